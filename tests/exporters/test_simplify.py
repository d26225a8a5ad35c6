"""A simplifier that crashes, hangs, eats memory or changes the network: a failed stage, or one passed over by name."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from conftest import ROOT, TINY, Cli

from exporters import child, simplify

if TYPE_CHECKING:
    from pathlib import Path

# Each stands in for the package onnxsim in a real build; all else is real.
CRASHES = "import os; os.abort()"
CHANGES = """
from onnx import numpy_helper
def simplify(model, **_):
    tensor = next(i for i in model.graph.initializer if i.name == "layer2.0.conv2.weight")
    tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) * 1.001, tensor.name))
    return model, True
"""
HANGS = "import signal; signal.pause()"
EATS = "kept = [bytearray(2**26) for _ in range(64)]"


@pytest.fixture
def with_simplifier(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in front of all others, where a test puts its own onnxsim.py."""
    place = tmp_path / "instead"
    place.mkdir()
    monkeypatch.setitem(cli.environment, "PYTHONPATH", f"{place}:{ROOT}")
    monkeypatch.setenv("PYTHONPATH", f"{place}:{ROOT}")
    return place / "onnxsim.py"


def test_what_crashes_stops_the_build_or_is_passed_over_by_name(
    cli: Cli, weights: Path, tmp_path: Path, with_simplifier: Path
) -> None:
    with_simplifier.write_text(CRASHES)
    sentence = "03-simplify.onnx from 02-export.onnx: exporters.simplify:in_child crashed (SIGABRT)"
    flags = (*TINY, "--weights", weights, "-o", tmp_path / "out")
    done = cli(*flags)
    assert done.returncode == 3
    assert sentence in done.stderr
    report = cli.report(*flags, "--allow-fallback", "simplify")
    row = report["stages"][2]
    assert sentence in row["fallback"]
    assert row["work"] == "nothing: 02-export.onnx goes on as it was"
    assert (tmp_path / "out" / row["file"]).read_bytes() == (tmp_path / "out" / "02-export.onnx").read_bytes()
    assert report["not_proven"][0].startswith("simplify was passed over, as --allow-fallback permits: ")
    with_simplifier.unlink()  # mended: the real stage is tried again, and nothing is passed over
    report = cli.report(*flags, "--allow-fallback", "simplify")
    assert [row["fallback"] for row in report["stages"]] == [None] * 6
    assert report["stages"][2]["certificate"]["operators"]["Identity"] == [3, 0]


def test_what_cannot_be_proven_is_not_taken_and_the_build_goes_on(
    cli: Cli, weights: Path, tmp_path: Path, with_simplifier: Path
) -> None:
    with_simplifier.write_text(CHANGES)
    flags = (*TINY, "--weights", weights, "-o", tmp_path / "out")
    report = cli.report(*flags)
    row = report["stages"][2]
    assert (row["name"], row["verdict"], row["certificate"]["proven"]) == ("simplify", "pass", True)
    assert row["work"] == "nothing: 02-export.onnx goes on as it was"
    assert row["details"]["unproven"].startswith("1 changes, the first at layer2.0.conv2: layer2.0.conv2.weight[")
    assert report["not_proven"][0].startswith("simplify did less than it could, since not all could be proven: ")
    again = cli.report(*flags)
    assert all(stage["reused"] for stage in again["stages"])


@pytest.mark.parametrize(
    ("text", "limit", "sentence"),
    [(HANGS, {"seconds": 10}, "did not end within 10 s"), (EATS, {"memory": 2**31}, "its limit of 2.0 GiB of memory")],
)
def test_its_time_and_memory_are_limited(
    built: Path, tmp_path: Path, with_simplifier: Path, text: str, limit: dict[str, int], sentence: str
) -> None:
    with_simplifier.write_text(text)
    with pytest.raises(RuntimeError, match=sentence):
        simplify.simplify(built / "02-export.onnx", tmp_path / "x.onnx", **limit)
    assert not (tmp_path / "x.onnx").exists()


def test_a_child_without_limits_may_use_what_there_is() -> None:
    assert child.call("builtins:eval", "len(bytearray(2**28))") == 2**28


def test_only_what_may_be_passed_over_can_be_named(cli: Cli) -> None:
    done = cli("--arch", "resnext_tiny", "--allow-fallback", "int8")
    assert done.returncode == 2
    assert "invalid choice: 'int8' (choose from simplify" in done.stderr.replace("'simplify'", "simplify")
