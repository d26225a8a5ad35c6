"""What could not be done is told, and not kept as if it were a result."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from benchmarks.peers import environments, table
from benchmarks.peers.cell import OURS, Task, cell
from benchmarks.real import sets
from benchmarks.real.__main__ import MEASURED

if TYPE_CHECKING:
    from pathlib import Path

FIGURES = {
    "agreement": 0.95, "agreement_lower": 0.93, "agreement_upper": 0.96, "offset": 0.9,
    "centred_db": 20.0, "centred_lower": 19.5, "centred_upper": 20.5,
    "read_db": 22.0, "read_lower": 21.5, "read_upper": 22.5,
    "sqnr_db": 45.0, "sqnr_lower": 44.5, "sqnr_upper": 45.5,
    "convolutions": 1.0, "macs": 1.0, "adds": 1.0, "tensorrt_rtx": "yes",
}  # fmt: skip


@pytest.fixture
def task(tmp_path: Path) -> Task:
    """Of a network that nobody gets to see."""
    images = sets.images(np.zeros((4, 3, 8, 8), np.uint8), np.zeros(4, np.int64))
    source = tmp_path / "float.onnx"
    return Task(
        tmp_path / "cells", lambda: source, lambda: source, lambda: ["--arch", "no_such_network"], images, tmp_path
    )


def test_an_environment_that_pip_cannot_make_is_no_result(task: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(environments.ENVIRONMENTS, "onnxruntime", ("./no-such-wheel-1.0-py3-none-any.whl",))
    found = cell(task, "ORT minmax")
    assert found["failed"].startswith("its environment onnxruntime cannot be made: pip says ERROR")
    assert not list(task.folder.glob("*.json"))
    assert not (task.environments / "environments/onnxruntime/done").exists()


def test_a_build_without_a_file_is_no_result(task: Task, capfd: pytest.CaptureFixture[str]) -> None:
    for quantiser in OURS:
        found = cell(task, quantiser)
        assert found["failed"].startswith("our own build ended before it had an INT8 file")
    assert not list(task.folder.glob("*.json"))
    assert "our own build ends with 2" in capfd.readouterr().err
    assert "no_such_network" in (task.folder / "edge-resnet/build.log").read_text()


def test_the_raw_figure_leaves_where_an_offset_dominates() -> None:
    rows = {"one": FIGURES, "two": {**FIGURES, "offset": 0.1}, "three": {"failed": "it said | nothing"}}
    *_, first, second, third = table.lines("title", MEASURED, rows)
    assert (
        first == "| one | 95.0 (93.0 … 96.0) | 20.0 (19.5 … 20.5) | 22.0 (21.5 … 22.5) | – | 100 · 100 · 100 | built |"
    )
    assert "| 45.0 (44.5 … 45.5) |" in second
    assert third.startswith("| three | failed: it said / nothing |")
    assert third.count("|") == first.count("|")
