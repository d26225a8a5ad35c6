"""A finished build judged again: its files' hashes, and its saved answers or, with ``rerun``, new ones."""

from __future__ import annotations

from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline import workspace
from pipeline.building import plan
from pipeline.data import conformance
from pipeline.errors import BadRequest
from pipeline.finished import build_directory
from pipeline.parity.judge import judge, overall
from pipeline.parity.paired import paired_drop
from pipeline.stage import Drift, StageRow, Tolerance

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    Saved = dict[str, NDArray[Any]]
    Look = Callable[[dict[str, Any], Tolerance], dict[str, Any]]

ANSWERS = "answers.safetensors"
# What running a file again renews in its row; the rest tells how the file was made.
RENEWED = (
    "provider", "drift", "step", "accuracy", "drop", "certificate", "refuted", "tolerance", "verdict", "reasons",
)  # fmt: skip


def recheck(
    directory: Path, max_drop: float | None = None, confidence: float | None = None, *, rerun: bool = False
) -> tuple[dict[str, Any], Saved]:
    """The report of ``directory`` with every verdict computed anew, under other margins if given, and the answers.

    With ``rerun`` every file runs again on the images that judged it, and the answers are those. Raises BadRequest
    where the directory holds no finished build, or those images are no longer to be had.
    """
    import safetensors
    import safetensors.numpy

    report, recipe = build_directory.report(directory), build_directory.recipe_of(directory)
    asked = {"max_drop": max_drop, "confidence": confidence}
    margins: dict[str, Any] = {name: value for name, value in asked.items() if value is not None}
    try:
        saved = safetensors.numpy.load_file(directory / ANSWERS)
        look = _run_again(directory, report, saved) if rerun else partial(_remembered, saved)
        rows: list[dict[str, Any]] = []
        for row in report["stages"]:
            # Of the report only figures are believed: bounds and verdicts are this program's own.
            role, precision = build_directory.role_of(row)
            tolerance = plan.bounds(row["name"], role, precision or recipe.precision, replace(recipe, **margins))
            ended = bool(report["error"]) or any(earlier["verdict"] == "fail" for earlier in rows)
            rows.append(_judged(row, directory, tolerance, look, ended=ended))
        if workspace.sha256(directory / ANSWERS) != report["answers"]:
            rows[0] |= {"verdict": "fail", "reasons": [f"{ANSWERS} is not what this build wrote"]}
        if touched := conformance.touched(directory, report["conformance"]):
            told = [f"{name} is gone or not what this build wrote" for name in touched]
            rows[0] |= {"verdict": "fail", "reasons": [*rows[0]["reasons"], *told]}
        verdict = "fail" if report["error"] else overall(row["verdict"] for row in rows)
    except (OSError, safetensors.SafetensorError) as error:
        raise BadRequest(f"{directory / ANSWERS} cannot be read ({error}); build again") from error
    except (KeyError, TypeError, AttributeError, IndexError, ValueError) as error:
        raise build_directory.damaged(directory, error) from error
    return {**report, "recipe": {**report["recipe"], **margins}, "verdict": verdict, "stages": rows}, saved


def _judged(row: dict[str, Any], directory: Path, bounds: Tolerance, look: Look, *, ended: bool) -> dict[str, Any]:
    if row["file"] is None:
        return _unjudged(row, None if ended else "it has no file, though nothing before it failed")
    path = directory / Path(row["file"]).name
    if (why := workspace.other(path, row["sha256"])) is not None:
        return {**row, "verdict": "fail", "reasons": [why]}
    if row["provider"] is None:
        return _unjudged(row, None if path.suffix in {".engine", ".sh"} else f"{path.name} was never run")
    return {**row, **look(row, bounds)}


def _unjudged(row: dict[str, Any], wrong: str | None) -> dict[str, Any]:
    """Not reached, or built for another machine: no margin changes that; ``wrong`` where that cannot be."""
    return {**row, "verdict": "fail" if wrong else "not_run", "reasons": [wrong] if wrong else []}


def _remembered(saved: Saved, row: dict[str, Any], tolerance: Tolerance) -> dict[str, Any]:
    answered = saved.get(f"top1.{row['name']}")
    if answered is None:
        return {"verdict": "fail", "reasons": row["refuted"]}  # its answers were no numbers
    labels = saved["labels"]
    drop = paired_drop(saved["reference"].argmax(1) == labels, answered == labels, tolerance.confidence)
    drift, step = Drift(**row["drift"]), Drift(**row["step"])
    verdict, why = judge(tolerance, drift, step, drop, len(labels), row["refuted"])
    return {"tolerance": asdict(tolerance), "drop": asdict(drop), "verdict": verdict, "reasons": why}


def _run_again(directory: Path, report: dict[str, Any], saved: Saved) -> Look:
    from pipeline.parity.examine import examine
    from pipeline.parity.sqnr import sqnr_db

    images = build_directory.test_images(directory)
    files = {row["name"]: directory / Path(row["file"]).name for row in report["stages"] if row["file"]}
    logits: Saved = {}

    def look(row: dict[str, Any], tolerance: Tolerance) -> dict[str, Any]:
        role, precision = build_directory.role_of(row)
        fresh = StageRow(row["name"], role, precision or "", tolerance=tolerance)
        name, source = row["name"], row["source"]
        if source is not None and source not in logits:
            return {"verdict": "fail", "reasons": [f"{source}, from which it was made, could not be run again"]}
        found = examine(fresh, files[name], files.get(source), images, saved["reference"], logits.get(source))
        if found is not None:
            logits[name], saved[f"top1.{name}"] = found, found.argmax(1)
            saved[f"sqnr_db.{name}"] = sqnr_db(saved["reference"], found).astype("float32")
        return {key: value for key, value in asdict(fresh).items() if key in RENEWED}

    return look
