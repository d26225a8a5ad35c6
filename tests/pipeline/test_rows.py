"""The rows of a build follow from its recipe, and the plan makes a stage of each of them."""

from __future__ import annotations

import itertools
import json
from typing import TYPE_CHECKING

import pytest

from exporters import engines
from exporters.engines import onnxruntime, tensorrt, tensorrt_rtx
from pipeline import Recipe, rows
from pipeline.building import backends, plan
from pipeline.data import digits, sampling
from pipeline.errors import BadRequest
from pipeline.finished import rows_asked
from pipeline.finished.finished_build import FinishedBuild
from pipeline.models import frozen, specs
from pipeline.precisions import PRECISIONS
from pipeline.targets import resolve

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import Golden

    from exporters.engines.backend import Backend

RECOVERIES = ("none", "auto", "equalise", "mixed", "qat", "equalise,mixed,qat")
INPUTS = ("float32", "uint8")
PLACEMENTS = ("tensorrt", "onnxruntime")
TARGETS = (None, "cpu", "rtx", "jetson-orin-nx@jp6.2", "jetson-thor")


def recipes(precision: str) -> list[Recipe]:
    """All that may change the rows of a precision, as far as it can be asked for and had here."""
    taken = []
    for recover, input_dtype, placement, target in itertools.product(RECOVERIES, INPUTS, PLACEMENTS, TARGETS):
        try:
            recipe = resolve.resolved(
                Recipe(
                    arch="resnet_tiny",
                    precision=precision,
                    recover=recover,
                    input_dtype=input_dtype,
                    placement=placement,
                    target=target,
                )
            )
            backends.refuse(recipe)
        except BadRequest:
            continue
        taken.append(recipe)
    return taken


@pytest.mark.parametrize("precision", PRECISIONS)
def test_the_plan_makes_a_stage_of_every_row(precision: str) -> None:
    arch, spec = specs.find("resnet_tiny")
    data = digits.read()
    taken = recipes(precision)
    assert len(taken) >= 6
    description = frozen.describe(arch, spec, data.classes, data.preprocessing)
    network = description.network()
    images = sampling.calibration(taken[0], data, data.preprocessing)
    for recipe in taken:
        chosen = backends.chosen(recipe)
        stages = plan.planned(recipe, network, description, images, images)
        asked = rows.asked(recipe, chosen)
        assert [(s.name, s.role, s.precision, s.suffix, s.source) for s in stages] == [
            (row.name, row.role, row.precision, row.suffix, row.source) for row in asked
        ]
        engines_of = [stage.parameters["backend"] for stage in stages if stage.role == "engine"]
        assert engines_of == [row.backend.name for row in asked if row.backend is not None]


@pytest.mark.parametrize("precision", PRECISIONS)
def test_every_row_follows_from_one_before_it(precision: str) -> None:
    for recipe in recipes(precision):
        names: list[str | None] = [None]
        for row in rows.asked(recipe, backends.chosen(recipe)):
            assert row.source in names
            assert row.name not in names
            names.append(row.name)
        assert "engine" in names


def test_the_rows_of_every_precision(golden: Golden) -> None:
    """On a machine with TensorRT, ONNX Runtime and TensorRT-RTX; `pytest --renew` after a change that is meant."""
    lines = []
    chosen: dict[str, list[Backend]] = {
        "onnxruntime": [onnxruntime.BACKEND],
        "tensorrt, tensorrt-rtx": [tensorrt.BACKEND, tensorrt_rtx.BACKEND],
        "onnxruntime, tensorrt-rtx, device": [onnxruntime.BACKEND, tensorrt_rtx.BACKEND, engines.named("device")],
    }
    for precision, input_dtype, (names, takers) in itertools.product(PRECISIONS, INPUTS, chosen.items()):
        recipe = Recipe(arch="resnet_tiny", precision=precision, input_dtype=input_dtype)
        files = [
            rows.file_name(number, row.name, row.suffix)
            for number, row in enumerate(rows.asked(recipe, takers), start=1)
        ]
        lines.append(f"{precision}, {input_dtype}, by {names}: {' '.join(files[len(rows.SHARED) :])}")
    golden("rows", lines)


def test_a_finished_build_has_the_rows_that_its_recipe_asks_for(built: Path, mixed: Path) -> None:
    for directory in (built, mixed):
        build = FinishedBuild.open(directory)
        assert [row.name for row in rows_asked.asked(build)] == [row.name for row in build.stages]


def test_what_was_not_installed_is_not_asked_for(mixed: Path) -> None:
    """Where TensorRT-RTX was not installed there is no engine of it, and nothing beside."""
    report = json.loads((mixed / "report.json").read_text())
    report["environment"]["versions"]["tensorrt-rtx"] = None
    report["stages"] = [row for row in report["stages"] if "fp16" not in row["name"] and "rtx" not in row["name"]]
    build = FinishedBuild.of(mixed, report)
    assert [row.name for row in rows_asked.asked(build)] == [row.name for row in build.stages]
    assert not list(rows_asked.mismatches(build, rows_asked.pairs(build)))
