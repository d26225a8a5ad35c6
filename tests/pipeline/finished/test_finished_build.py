"""A finished build as a typed record: read from today's report or an older one, and refused where it is not whole."""

from __future__ import annotations

import copy
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest

from pipeline.errors import BadRequest
from pipeline.finished import json_records
from pipeline.finished.finished_build import FinishedBuild, NotWhole


@pytest.fixture(scope="module")
def reports(built: Path, mixed: Path) -> dict[Path, dict[str, Any]]:
    """report.json of an INT8 build, and of one with a float16 engine beside."""
    return {build: json.loads((build / "report.json").read_text()) for build in (built, mixed)}


def test_rows_before_0_2_say_by_their_names_what_rows_say_now(reports: dict[Path, dict[str, Any]]) -> None:
    for directory, report in reports.items():
        old = copy.deepcopy(report)
        for row in old["stages"]:
            del row["role"], row["precision"]
        for key in ("speed", "conformance", "answers"):
            del old[key]
        now, then = FinishedBuild.open(directory), FinishedBuild.of(directory, old)
        assert then.stages == now.stages
        assert [then.path(row) for row in then.engines] == [now.path(row) for row in now.engines]
        assert (then.speed, then.answers_digest, then.conformance_digests) == (None, None, None)


def test_a_knob_newer_than_the_build_had_its_default(built: Path, reports: dict[Path, dict[str, Any]]) -> None:
    old = copy.deepcopy(reports[built])
    del old["recipe"]["input_dtype"]
    assert FinishedBuild.of(built, old).recipe.input_dtype == "float32"


def test_engines_beside_are_none_of_those_asked_for(mixed: Path) -> None:
    build = FinishedBuild.open(mixed)
    assert [row.name for row in build.engines] == ["engine", "engine_tensorrt_rtx"]
    assert [path for path, _ in build.engine_files()] == [build.path(row) for row in build.engines]
    assert [details["backend"] for _, details in build.engine_files()] == ["onnxruntime", "tensorrt-rtx"]
    assert build.judged_engine is build.shipped is build.engines[0]


@pytest.mark.parametrize(
    ("keys", "reason"),
    [
        (["classes"], "KeyError('classes')"),
        (["recipe", "arch"], "KeyError('arch')"),
        (["images", "test"], "KeyError('test')"),
        (["stages", 4, "refuted"], "KeyError('refuted')"),
        (["stages", 4, "drift", "cosine"], "KeyError('cosine')"),
        (["environment", "cores"], "KeyError('cores')"),
    ],
)
def test_what_was_taken_away_is_named(
    built: Path, reports: dict[Path, dict[str, Any]], keys: list[Any], reason: str
) -> None:
    report = copy.deepcopy(reports[built])
    place: Any = report
    for key in keys[:-1]:
        place = place[key]
    del place[keys[-1]]
    with pytest.raises(NotWhole) as raised:
        FinishedBuild.of(built, report)
    assert str(raised.value) == f"{built / 'report.json'} is not whole ({reason}); build again"


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"role": "motor"}, "role is 'motor'"),
        ({"name": None}, "name is None"),
        ({"drop": None}, "int8 has no drop"),
        ({"sha256": None}, "int8 has no sha256"),
        ({"bytes": 0}, "int8 has 0 bytes"),
        ({"bytes": True}, "bytes is True"),
        ({"seconds": float("inf")}, "inf is no finite number"),
        ({"reasons": "none"}, "reasons is 'none'"),
        ({"accuracy": {"top1": 1.0, "top5": 1.0, "n": 0}}, "int8 was judged on 0 images"),
    ],
    ids=str,
)
def test_a_row_that_makes_no_sense_is_refused(
    built: Path, reports: dict[Path, dict[str, Any]], row: dict[str, Any], reason: str
) -> None:
    report = copy.deepcopy(reports[built])
    report["stages"][4] |= row
    with pytest.raises(NotWhole) as raised:
        FinishedBuild.of(built, report)
    assert reason in raised.value.reason


def test_a_stage_that_this_version_does_not_know_has_no_bounds(
    built: Path, reports: dict[Path, dict[str, Any]]
) -> None:
    report = copy.deepcopy(reports[built])
    report["stages"][4]["name"] = "int7"
    build = FinishedBuild.of(built, report)
    with pytest.raises(NotWhole, match="KeyError\\('int7'\\)"):
        build.bounds("int7")
    with pytest.raises(BadRequest, match="has no stage int8; take one of freeze, export"):
        build.bounds("int8")


@dataclass(frozen=True)
class Wheel:
    """Something to read back."""

    size: float
    spokes: int | None
    kind: Literal["front", "rear"] = "front"
    place: Path | None = None
    holes: list[float] = field(default_factory=list)


def test_a_record_is_read_back_from_json() -> None:
    values = json.loads('{"size": 2, "spokes": null, "place": "a/b", "holes": [1, 2.5], "colour": "red"}')
    assert json_records.read(Wheel, values) == Wheel(2, None, "front", Path("a/b"), [1, 2.5])
    assert isinstance(json_records.read(Wheel, values).place, Path)


@pytest.mark.parametrize(
    ("values", "error"),
    [
        ([], TypeError),
        ({"size": 1.0}, KeyError),
        ({"size": "1", "spokes": 3}, TypeError),
        ({"size": float("nan"), "spokes": 3}, ValueError),
        ({"size": 1.0, "spokes": 3.0}, TypeError),
        ({"size": 1.0, "spokes": True}, TypeError),
        ({"size": 1.0, "spokes": 3, "kind": "side"}, TypeError),
        ({"size": 1.0, "spokes": 3, "holes": {}}, TypeError),
        ({"size": 1.0, "spokes": 3, "holes": ["x"]}, TypeError),
    ],
    ids=str,
)
def test_json_of_another_shape_is_no_such_record(values: object, error: type[Exception]) -> None:
    with pytest.raises(error):
        json_records.read(Wheel, values)
