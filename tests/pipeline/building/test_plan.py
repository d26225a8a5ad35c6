"""Recipe to stages: what stands beside 8 bits is planned for itself, and the rows of a precision fit together."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from calibration import qdq
from exporters.number_formats import NUMBER_FORMATS
from pipeline import Recipe
from pipeline.building import plan
from pipeline.errors import BadRequest
from pipeline.precisions import PRECISIONS, Precision

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import Cli

ROWS = pytest.mark.parametrize("row", PRECISIONS.values(), ids=PRECISIONS)
INT8 = ("--arch", "resnext_tiny", "--precision", "int8")


@pytest.mark.parametrize(
    "flags",
    [
        ("--calib-cache", "statistics.safetensors"),
        ("--calib-cache", "TRT.cache"),
        ("--recover", "qat"),
        ("--recover", "equalise,qat", "--calib-cache", "statistics.safetensors", "--input-dtype", "uint8"),
    ],
)
def test_what_goes_with_int8_alone_does_not_refuse_the_fp16_beside_it(
    cli: Cli, tmp_path: Path, flags: tuple[str, ...]
) -> None:
    pytest.importorskip("tensorrt_rtx")
    done = cli(*INT8, *flags, "--dry-run", "-o", tmp_path / "out", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "fp16_engine_tensorrt_rtx.engine by tensorrt-rtx" in done.stdout
    assert "engine_tensorrt_rtx.engine by tensorrt-rtx" in done.stdout


def test_a_build_with_a_cache_has_fp16_beside_and_the_cache_is_read_again(
    cli: Cli, weights: Path, tmp_path: Path
) -> None:
    pytest.importorskip("tensorrt_rtx")
    flags = (*INT8, "--weights", weights, "--recover", "none", "--calib-cache", tmp_path / "int8.cache")
    first = cli.report(*flags, "-o", tmp_path / "one")
    second = cli.report(*flags, "-o", tmp_path / "two")
    for report in (first, second):
        assert report["verdict"] == "pass"
        rows = {row["name"]: row for row in report["stages"]}
        assert rows["fp16"]["source"] == "fold_batchnorm"
        assert [(rows[name]["role"], rows[name]["precision"]) for name in list(rows)[4:]] == [
            ("quantised", "int8"),
            ("engine", "int8"),
            ("engine", "int8"),
            ("typing", "fp16"),
            ("engine", "fp16"),
        ]
    assert "scales of" in next(row["work"] for row in second["stages"] if row["name"] == "int8")


@pytest.mark.parametrize(
    ("knobs", "sentence"),
    [
        ({"precision": "int4"}, "--precision int4 is none of fp32, fp16, int8, int8-fp16, int8-trt8, fp8"),
        ({"placement": "openvino"}, "--placement openvino is none of tensorrt, onnxruntime"),
        ({"beside": "int8"}, "--beside int8 is none of fp16, none"),
    ],
)
def test_a_word_that_is_none_is_refused_in_python_too(knobs: dict[str, str], sentence: str) -> None:
    with pytest.raises(BadRequest) as raised:
        Recipe(arch="resnet_tiny", **knobs)  # type: ignore[arg-type]
    assert str(raised.value) == sentence


@ROWS
def test_every_row_of_a_precision_names_what_there_is(row: Precision) -> None:
    for name in row.stages:
        assert (name in plan.BY_NAME) != (name in NUMBER_FORMATS)
    assert row.calibrated == bool(NUMBER_FORMATS.keys() & row.stages)
    assert row.number_format is None or row.number_format in row.stages
    assert set(row.placements) <= set(qdq.PLACEMENTS)
    assert {row.weak_form, row.strong_form} <= {None, *PRECISIONS}


@ROWS
def test_a_precision_is_written_in_an_opset_that_has_its_levels(row: Precision) -> None:
    if row.number_format is not None:
        assert row.opset >= NUMBER_FORMATS[row.number_format].opset
