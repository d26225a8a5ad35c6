"""A build held against an earlier one: what got worse, on the same images, by more than a margin."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline import workspace
from pipeline.errors import BadRequest
from pipeline.finished import report_json, saved_answers
from pipeline.finished.findings import Finding
from pipeline.finished.finished_build import FinishedBuild, NotWhole
from pipeline.parity.paired import bounds, median_bounds, paired_drop, unpaired_bounds
from pipeline.report.ledger import SCHEMA

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

    from pipeline.finished.saved_answers import SavedAnswers
    from pipeline.stage import Drift, StageRow

# dB above which a difference is the order of float32 sums and nothing else; "the same" counts as this.
CEILING = 90.0


@dataclass(frozen=True)
class Margins:
    """How much worse is allowed: top-1 as a share, drift in dB, size and latency as shares (None: not timed)."""

    drop: float
    confidence: float
    drift: float = 3.0
    growth: float = 0.05
    slowdown: float | None = None


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

    if not isinstance(report, dict) or report.get("schema") != SCHEMA:
        raise BadRequest(f"--baseline {path}: {file.name} is no report of schema {SCHEMA}; {wanted}")
    if answers is not None and workspace.sha256(answers_file) != report.get("answers"):
        raise BadRequest(
            f"--baseline {path}: {saved_answers.FILE} beside its report is not what that build wrote; restore it"
        )
    try:
        build = FinishedBuild.of(file.parent, report)
    except NotWhole as error:
        raise _damaged(path, error.reason) from error
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
    here, there = _identity(build), _identity(old.build)
    same_images = old.build.images.test == build.images.test and old.build.classes == build.classes
    # Where the images are the same, so is what made them, under whatever name.
    asked = ["the architecture"] if same_images else list(there)
    for what in asked:
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
    preprocessing = [f"{key} {value}" for key, value in sorted(build.preprocessing.items())]
    return {
        "the architecture": build.arch,
        "the data set": build.data,
        "the preprocessing": ", ".join(preprocessing),
    }


def same_network(build: FinishedBuild, old: Baseline) -> bool:
    """Whether both builds are of the same frozen weights."""
    return _weights(build) == _weights(old.build)


def _weights(build: FinishedBuild) -> str | None:
    """SHA-256 of the frozen network."""
    return next((row.sha256 for row in build.stages if row.role == "reference"), None)


@dataclass(frozen=True)
class Comparison:
    """One stage in both builds: its row ``now`` and ``then``, with all saved answers of each.

    ``same_network``: both builds froze the same weights.
    """

    now: StageRow
    then: StageRow
    answers_now: SavedAnswers
    answers_then: SavedAnswers | None
    margins: Margins
    same_network: bool


@dataclass(frozen=True)
class Change:
    """A change for the worse next to its margin: the verdict, a sentence, and the figures behind them."""

    verdict: str
    message: str
    figures: dict[str, float | None]


def compare(
    build: FinishedBuild, answers: SavedAnswers, old: Baseline, margins: Margins, files: dict[str, str]
) -> list[Finding]:
    """The checks against ``old`` of every stage that either build judged; ``files`` are the paths of this one's.

    A stage made from a file that is worse already is not asked: it would only say the same again.
    """
    rows_then = {row.name: row for row in old.build.stages if row.file is not None}
    network_is_same = same_network(build, old)
    findings: list[Finding] = []
    worse: set[tuple[str, str]] = set()
    for row in build.stages:
        if row.name not in files or row.name not in rows_then:
            continue
        comparison = Comparison(row, rows_then[row.name], answers, old.answers, margins, network_is_same)
        for check, changed in CHECKS.items():
            change = changed(comparison)
            if change is None:
                continue
            verdict, message = change.verdict, change.message
            follows = (row.source or "", check) in worse
            if follows:
                verdict = "not_run"
                message = f"made from {row.source}, which is worse already; {message}"
            if follows or verdict == "fail":
                worse.add((row.name, check))
            findings.append(Finding(row.name, check, verdict, message, files[row.name], change.figures))
    return findings + _engines_not_judged(build, rows_then, files)


def _engines_not_judged(build: FinishedBuild, rows_then: dict[str, StageRow], files: dict[str, str]) -> list[Finding]:
    """An engine that was judged and is not any more: nothing tells whether it got worse."""
    judged = {row.name for row in build.stages if row.accuracy is not None}
    findings = []
    for name, row in rows_then.items():
        if row.role != "engine" or row.accuracy is None:
            continue
        if name in judged:
            findings.append(Finding(name, "baseline-judged", "pass", "", files.get(name)))
            continue
        message = (
            f"the baseline judged it on {row.accuracy.n} images and this build did not: "
            "nothing tells whether it got worse"
        )
        findings.append(Finding(name, "baseline-judged", "undecided", message, files.get(name)))
    return findings


def weigh(what: str, scale: float, unit: str, margin: float, value: float, lower: float, upper: float) -> Change:
    """How a change for the worse by ``value`` stands to ``margin``: it passes where its upper bound is within it.

    ``scale`` makes of each the figure in ``unit`` that the sentence has.
    """
    verdict, limit = "undecided", "not to be told from"
    if upper <= margin:
        verdict, limit = "pass", "within"
    elif lower > margin:
        verdict, limit = "fail", "more than"

    # Of too few values there are no bounds: they come as infinity, which JSON does not know.
    bounded = math.isfinite(upper - lower)
    between = ""
    if not bounded:
        between = " (so few images give no bounds)"
    elif lower != upper:
        between = f" (between {scale * lower:.2f} and {scale * upper:.2f})"

    message = f"{what} by {scale * value:.2f} {unit}{between}, {limit} {scale * margin:g}"
    figures = {
        "value": value,
        "lower": lower if bounded else None,
        "upper": upper if bounded else None,
        "margin": margin,
    }
    return Change(verdict, message, figures)


def _accuracy(comparison: Comparison) -> Change | None:
    now, then = comparison.now, comparison.then
    if now.accuracy is None or now.drop is None or then.accuracy is None or then.drop is None:
        return None
    images = now.accuracy.n
    right_now = round(now.accuracy.top1 * images)
    right_then = round(then.accuracy.top1 * images)
    confidence = comparison.margins.confidence

    both = _of_each_image(comparison, lambda answers: answers.top1)
    if both is not None:
        labels = comparison.answers_now.labels
        drop = paired_drop(both[0] == labels, both[1] == labels, confidence)
        value, lower, upper = drop.value, drop.lower, drop.upper
    else:
        value = (right_then - right_now) / images
        if comparison.same_network:
            # Which images is not known; no more than these can have changed, and the more do, the wider the bounds.
            most_lost = then.drop.gained + now.drop.lost
            most_gained = most_lost - (right_then - right_now)
            lower, upper = bounds(most_lost, most_gained, images, confidence)
        else:
            lower, upper = unpaired_bounds(right_then, right_now, images, confidence)
    return weigh("top-1 fell", 100, "points", comparison.margins.drop, value, lower, upper)


def _drift(comparison: Comparison) -> Change | None:
    now, then = comparison.now.drift, comparison.then.drift
    if now is None or then is None:
        return None
    margin = comparison.margins.drift

    both = _of_each_image(comparison, lambda answers: answers.sqnr_db)
    if both is None:
        fall = _median_db(then) - _median_db(now)
        return weigh("the median SQNR fell", 1, "dB", margin, fall, fall, fall)

    falls = np.minimum(both[0], CEILING) - np.minimum(both[1], CEILING)
    lower, upper = median_bounds(falls, 1 - comparison.margins.confidence)
    what = "SQNR fell, in the median over the images,"
    return weigh(what, 1, "dB", margin, float(np.median(falls)), lower, upper)


def _of_each_image(
    comparison: Comparison, kind: Callable[[SavedAnswers], dict[str, NDArray[Any]]]
) -> tuple[NDArray[Any], NDArray[Any]] | None:
    """What was kept of every image, (N,), in the baseline and here; None where either did not keep it."""
    if comparison.answers_then is None:
        return None
    name = comparison.now.name
    then, now = kind(comparison.answers_then), kind(comparison.answers_now)
    if name not in then or name not in now:
        return None
    return then[name], now[name]


def _median_db(drift: Drift) -> float:
    return CEILING if drift.sqnr_db is None else min(drift.sqnr_db, CEILING)


def _size(comparison: Comparison) -> Change:
    # Both have a file, and a report in which that has no bytes is not whole.
    assert comparison.now.bytes is not None
    assert comparison.then.bytes is not None
    growth = comparison.now.bytes / comparison.then.bytes - 1
    return weigh("the file grew", 100, "%", comparison.margins.growth, growth, growth, growth)


CHECKS: dict[str, Callable[[Comparison], Change | None]] = {
    "baseline-accuracy": _accuracy,
    "baseline-drift": _drift,
    "baseline-size": _size,
}
