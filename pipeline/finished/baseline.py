"""An earlier build that a build is held against, and whether the two can be compared."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pipeline import workspace
from pipeline.data.preprocessing import IGNORE
from pipeline.errors import BadRequest
from pipeline.finished import report_json, saved_answers
from pipeline.finished.finished_build import FinishedBuild, NotWhole
from pipeline.finished.same_network import frozen_weights

if TYPE_CHECKING:
    from pathlib import Path

    from pipeline.finished.saved_answers import SavedAnswers


@dataclass(frozen=True)
class Baseline:
    """An earlier build, named by ``path``; ``answers`` are None where only its report was kept."""

    path: Path
    build: FinishedBuild
    answers: SavedAnswers | None


def read(path: Path) -> Baseline:
    """The build in the directory ``path``, or of the report.json ``path``, with the answers beside it if there are any.

    Raises BadRequest where there is none, or where its answers are others.
    """
    file = path / report_json.FILE if path.is_dir() else path
    answers_file = file.parent / saved_answers.FILE
    wanted = f"give the directory of a finished build, or its {report_json.FILE}"
    try:
        report = json.loads(file.read_text(), parse_constant=_no_number)
        answers = saved_answers.read(answers_file) if answers_file.is_file() else None
    except (OSError, ValueError, RecursionError) as error:
        raise BadRequest(f"--baseline {path} cannot be read ({workspace.explain(error)}); {wanted}") from error

    if not isinstance(report, dict) or report.get("schema") != report_json.SCHEMA:
        raise BadRequest(f"--baseline {path}: {file.name} is no report of schema {report_json.SCHEMA}; {wanted}")
    # A lone report is a baseline too; answers of another build beside it would be compared as if they were its own.
    if answers is not None and workspace.sha256(answers_file) != report.get("answers"):
        raise BadRequest(
            f"--baseline {path}: {saved_answers.FILE} beside its report is not what that build wrote; restore it"
        )
    try:
        build = FinishedBuild.of(file.parent, report)
    except NotWhole as error:
        raise _damaged(path, error.reason) from error
    # NaN is neither better nor worse than anything: every check would end undecided.
    if answers is not None:
        for stage, ratios in answers.sqnr_db.items():
            if np.isnan(ratios).any():
                raise _damaged(path, repr(ValueError(f"sqnr_db.{stage} holds NaN")))
    return Baseline(path, build, answers)


def _no_number(name: str) -> float:
    raise ValueError(f"it holds {name}, which is no number")


def _damaged(path: Path, reason: str) -> BadRequest:
    """The sentence for a baseline that lacks what it should hold."""
    return BadRequest(f"--baseline {path}: its report is not whole ({reason}); build the baseline again")


def refuse(build: FinishedBuild, answers: SavedAnswers, old: Baseline) -> None:
    """Raise BadRequest where the two builds cannot be compared, and say which of all it is."""
    why = _incomparable(build, answers, old)
    if why is not None:
        raise BadRequest(f"--baseline {old.path}: {why}; only builds judged on the same images can be compared")


def _incomparable(build: FinishedBuild, answers: SavedAnswers, old: Baseline) -> str | None:
    here = _identity(build)
    there = _identity(old.build)
    same_images = old.build.images.test == build.images.test and old.build.classes == build.classes
    # Where the images are the same, so is what made them, under whatever name.
    to_agree = ["the architecture"] if same_images else list(there)
    for what in to_agree:
        if there[what] != here[what]:
            return f"{what} is {there[what]} there and {here[what]} here"

    if same_images:
        if old.answers is not None and len(old.answers.labels) != len(answers.labels):
            raise _damaged(old.path, repr(ValueError(f"its answers are to {len(old.answers.labels)} images")))
        return None

    counts = [row.accuracy.n for row in old.build.stages if row.accuracy is not None]
    if not counts:
        raise _damaged(old.path, repr(ValueError("no stage was judged")))
    if counts[0] != len(answers.labels):
        return f"{counts[0]} images judged it, and {len(answers.labels)} judge this one"
    if old.answers is not None and np.array_equal(np.sort(old.answers.labels), np.sort(answers.labels)):
        return "the images have another order there, or are others with the same labels"
    return "other images judged it, or the same in another order"


def _identity(build: FinishedBuild) -> dict[str, str]:
    """What two builds must have in common before their images can be the same, in words."""
    # A build from before there was a choice ignored EXIF turns.
    record = {"exif": IGNORE, **build.preprocessing}
    preprocessing = [f"{key} {value}" for key, value in sorted(record.items())]
    return {
        "the architecture": build.arch,
        "the data set": build.data,
        "the preprocessing": ", ".join(preprocessing),
    }


def same_network(build: FinishedBuild, old: Baseline) -> bool:
    """Whether both builds are of the same frozen weights.

    Their files may differ in what they say of the pixels, where versions of this program wrote other keys.
    """
    weights = frozen_weights(build)
    weights_then = frozen_weights(old.build)
    if weights is None or weights_then is None:
        return _frozen_file(build) == _frozen_file(old.build)
    return weights == weights_then


def same_answers(build: FinishedBuild, answers: SavedAnswers, old: Baseline) -> bool:
    """Whether what both builds ship answers every image alike, or is the same file where no answers were kept."""
    now = build.shipped
    then = old.build.shipped
    if now is None or then is None:
        return False
    if old.answers is None or now.name not in answers.top1 or then.name not in old.answers.top1:
        return now.sha256 == then.sha256
    return np.array_equal(answers.top1[now.name], old.answers.top1[then.name])


def digest(old: Baseline) -> str:
    """What tells one baseline from another: the SHA-256 of its answers, or of what it ships where none were kept."""
    shipped = old.build.shipped
    return old.build.answers_digest or str(shipped.sha256 if shipped is not None else None)


def _frozen_file(build: FinishedBuild) -> str | None:
    """SHA-256 of the file of the frozen network."""
    return next((row.sha256 for row in build.stages if row.role == "reference"), None)
