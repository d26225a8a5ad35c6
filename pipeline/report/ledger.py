"""The ledger as report.json has it: every key always there, null where nothing ran."""

from __future__ import annotations

from dataclasses import asdict
from os import PathLike
from typing import TYPE_CHECKING, Any

from exporters.portable import cuda
from pipeline import provenance
from pipeline.finished.report_json import SCHEMA
from pipeline.parity.judge import overall
from pipeline.stage import StageRow

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pipeline.models.frozen import NetworkDescription
    from pipeline.recipe import Recipe
    from pipeline.stage import Stage

NOT_ON_JETSON = "Nothing of this build has run on a Jetson: build and judge the engine on the device itself."
NO_GPU = "No TensorRT engine was built or run: this machine has no usable NVIDIA GPU."


def header(
    recipe: Recipe, output: Path, description: NetworkDescription, sources: dict[str, str], images: dict[str, str]
) -> dict[str, Any]:
    """What was asked, of what, and where it runs."""
    # Paths are no JSON.
    knobs = {name: str(value) if isinstance(value, PathLike) else value for name, value in asdict(recipe).items()}
    return {
        "schema": SCHEMA,
        "verdict": "fail",
        "error": None,
        "recipe": {**knobs, "arch": description.arch, "output": str(output)},
        "sources": sources,
        "images": images,
        "preprocessing": description.preprocessing,
        "classes": list(description.classes),
        "environment": provenance.environment(),
    }


def ledger(rows: list[StageRow], stages: list[Stage], failure: Exception | None, asked: str) -> dict[str, Any]:
    """The verdict, a row for every stage, reached or not, and what was not proven."""
    names_made = {row.name for row in rows}
    made = [stage for stage in stages if stage.name in names_made]
    unreached = [_unreached(stage) for stage in stages if stage.name not in names_made]
    # Two engines may leave the same thing open.
    not_proven = list(dict.fromkeys([*_passed_over(rows), *_not_proven(made)]))
    return {
        # What stands beside has a verdict of its own, and does not decide: nobody ships it.
        "verdict": "fail" if failure else overall(row.verdict for row in rows if not row.stands_beside(asked)),
        "error": None if failure is None else str(failure),
        "stages": [asdict(row) for row in [*rows, *unreached]],
        "not_proven": not_proven,
    }


def _unreached(stage: Stage) -> StageRow:
    return StageRow(stage.name, stage.role, stage.precision, tolerance=stage.tolerance)


def _passed_over(rows: list[StageRow]) -> Iterator[str]:
    for row in rows:
        if row.fallback:
            yield f"{row.name} was passed over, as --allow-fallback permits: {row.fallback}."
        if row.details.get("unproven"):
            yield f"{row.name} did less than it could, since not all could be proven: {row.details['unproven']}."


def _not_proven(made: list[Stage]) -> Iterator[str]:
    for stage in made:
        if not stage.runs_here:
            yield f"{stage.name} ({stage.parameters['backend']}) was built, not run here: nothing proves its answers."
        if stage.not_proven is not None:
            yield stage.not_proven
    if cuda.driver() is None:
        yield NO_GPU
    yield NOT_ON_JETSON


def line(row: StageRow) -> str:
    """One line for the terminal as soon as a stage is judged."""
    if row.file is None:
        return "; ".join([f"{row.name}: {row.verdict}", *row.reasons])
    state = "reused" if row.reused else f"{row.seconds:.1f} s"
    verdict = "built, not run here" if row.verdict == "not_run" else row.verdict
    return "; ".join([f"{row.file} ({state}): {row.work}", verdict, *row.reasons])
