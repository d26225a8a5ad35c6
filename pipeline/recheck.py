"""A finished build judged again from what it left, its files' hashes and its saved answers; no model runs."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline import again, workspace
from pipeline.data import conformance
from pipeline.errors import BadRequest
from pipeline.parity.judge import judge, overall
from pipeline.parity.paired import paired_drop
from pipeline.parity.proof import reasons
from pipeline.stage import Drift, Tolerance

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Saved = dict[str, NDArray[np.int32]]

ANSWERS = "answers.safetensors"


def recheck(directory: Path, max_drop: float | None, confidence: float | None) -> dict[str, Any]:
    """The report of ``directory`` with every verdict computed anew, under other margins if they are given.

    Raises BadRequest where the directory holds no finished build.
    """
    import safetensors
    import safetensors.numpy

    report = again.report(directory)
    try:
        saved = safetensors.numpy.load_file(directory / ANSWERS)
        rows = [_judged(row, saved, directory, max_drop, confidence) for row in report["stages"]]
        if workspace.sha256(directory / ANSWERS) != report["answers"]:
            rows[0] |= {"verdict": "fail", "reasons": [f"{ANSWERS} is not what this build wrote"]}
        if touched := conformance.touched(directory, report.get("conformance", {})):  # older builds have none
            told = [f"{name} is gone or not what this build wrote" for name in touched]
            rows[0] |= {"verdict": "fail", "reasons": [*rows[0]["reasons"], *told]}
        recipe = {**report["recipe"], "confidence": confidence or report["recipe"]["confidence"]}
        verdict = "fail" if report["error"] else overall(row["verdict"] for row in rows)
    except (OSError, safetensors.SafetensorError) as error:
        raise BadRequest(f"{directory / ANSWERS} cannot be read ({error}); build again") from error
    except (KeyError, TypeError, AttributeError, IndexError, ValueError) as error:
        raise again.damaged(directory, error) from error
    return {**report, "recipe": recipe, "verdict": verdict, "stages": rows}


def _judged(
    row: dict[str, Any], saved: Saved, directory: Path, max_drop: float | None, confidence: float | None
) -> dict[str, Any]:
    if row["file"] is None:
        return row  # not reached
    path = directory / Path(row["file"]).name
    if not path.is_file() or workspace.sha256(path) != row["sha256"]:
        return {**row, "verdict": "fail", "reasons": [f"{path.name} is gone or not the file that was judged"]}
    answered = saved.get(f"top1.{row['name']}")
    if answered is None:
        return row  # built and not run, or answered with what is no number: no margin changes that
    tolerance = Tolerance(**row["tolerance"])
    if tolerance.drop is not None:
        tolerance = replace(tolerance, drop=max_drop or tolerance.drop, confidence=confidence or tolerance.confidence)
    labels = saved["labels"]
    drop = paired_drop(saved["reference"].argmax(1) == labels, answered == labels, tolerance.confidence)
    refuted = reasons(row["certificate"], row["contradictions"])
    drift, step = Drift(**row["drift"]), Drift(**row["step"])
    verdict, why = judge(tolerance, drift, step, drop, len(labels), refuted)
    return {**row, "tolerance": asdict(tolerance), "drop": asdict(drop), "verdict": verdict, "reasons": why}
