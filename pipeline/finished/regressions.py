"""What got worse than in an earlier build, on the same images, by more than a margin."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.finished.baseline import same_network
from pipeline.finished.findings import Finding
from pipeline.parity.paired import counted_bounds, median_bounds, paired_drop, unpaired_bounds

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from pipeline.finished.baseline import Baseline
    from pipeline.finished.finished_build import FinishedBuild
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
    # Stage and check of all that failed, and of all that was made from it.
    worse: set[tuple[str, str]] = set()
    for row in build.stages:
        if row.name not in files or row.name not in rows_then:
            continue
        comparison = Comparison(row, rows_then[row.name], answers, old.answers, margins, network_is_same)
        for check, changed in CHECKS.items():
            change = changed(comparison)
            if change is None:
                continue
            verdict = change.verdict
            message = change.message
            follows = (row.source or "", check) in worse
            if follows:
                verdict = "not_run"
                message = f"made from {row.source}, which is worse already; {message}"
            if follows or verdict == "fail":
                worse.add((row.name, check))
            beside = row.stands_beside(build.precision)
            findings.append(Finding(row.name, check, verdict, message, files[row.name], change.figures, beside))
    return findings + _engines_not_judged(build, rows_then, files)


def _engines_not_judged(build: FinishedBuild, rows_then: dict[str, StageRow], files: dict[str, str]) -> list[Finding]:
    """An engine that was judged and is not any more: nothing tells whether it got worse."""
    judged = {row.name for row in build.stages if row.accuracy is not None}
    findings = []
    for name, row in rows_then.items():
        if row.role != "engine" or row.accuracy is None:
            continue
        beside = row.stands_beside(build.precision)
        if name in judged:
            findings.append(Finding(name, "baseline-judged", "pass", "", files.get(name), beside=beside))
            continue
        message = (
            f"the baseline judged it on {row.accuracy.n} images and this build did not: "
            "nothing tells whether it got worse"
        )
        findings.append(Finding(name, "baseline-judged", "undecided", message, files.get(name), beside=beside))
    return findings


def weigh(what: str, scale: float, unit: str, margin: float, value: float, lower: float, upper: float) -> Change:
    """How a change for the worse by ``value`` stands to ``margin``: it passes where its upper bound is within it.

    ``scale`` makes of each the figure in ``unit`` that the sentence has.
    """
    # What lies on both sides of the margin, or is no number, decides nothing.
    verdict = "undecided"
    limit = "not to be told from"
    if upper <= margin:
        verdict = "pass"
        limit = "within"
    elif lower > margin:
        verdict = "fail"
        limit = "more than"

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
    now = comparison.now
    then = comparison.then
    if now.accuracy is None or now.drop is None or then.accuracy is None or then.drop is None:
        return None
    margins = comparison.margins

    both = _of_each_image(comparison, lambda answers: answers.top1)
    # The same answers, or without any the same file, need no statistics.
    alike = _same_file(comparison) if both is None else np.array_equal(*both)
    if alike:
        return weigh("top-1 fell", 100, "points", margins.drop, 0.0, 0.0, 0.0)
    if both is not None:
        return _accuracy_of_each_image(comparison, *both)

    # From the counts alone.
    images = now.accuracy.n
    right_now = round(now.accuracy.top1 * images)
    right_then = round(then.accuracy.top1 * images)
    fewer_right = right_then - right_now
    if comparison.same_network:
        # Which images is not known, but no more than these can have changed.
        most_lost = then.drop.gained + now.drop.lost
        lower, upper = counted_bounds(fewer_right, most_lost, images, margins.confidence)
    else:
        lower, upper = unpaired_bounds(right_then, right_now, images, margins.confidence)
    return weigh("top-1 fell", 100, "points", margins.drop, fewer_right / images, lower, upper)


def _accuracy_of_each_image(comparison: Comparison, then: NDArray[Any], now: NDArray[Any]) -> Change:
    """The change between the answers ``then`` and ``now``, (N,)."""
    labels = comparison.answers_now.labels
    distinct = comparison.answers_now.distinct
    margins = comparison.margins
    drop = paired_drop((then == labels)[distinct], (now == labels)[distinct], margins.confidence)
    change = weigh("top-1 fell", 100, "points", margins.drop, drop.value, drop.lower, drop.upper)
    # Only what runs it can have changed, and the images do not convict that.
    if change.verdict == "undecided" and _same_file(comparison):
        return replace(change, verdict="pass", message=f"{change.message}; the file is the same")
    return change


def _drift(comparison: Comparison) -> Change | None:
    now = comparison.now.drift
    then = comparison.then.drift
    if now is None or then is None:
        return None
    margin = comparison.margins.drift

    both = _of_each_image(comparison, lambda answers: answers.sqnr_db)
    if both is not None and np.array_equal(*both):
        return weigh("SQNR fell, in the median over the images,", 1, "dB", margin, 0.0, 0.0, 0.0)
    if both is None:
        fall = _median_db(then) - _median_db(now)
        return weigh("the median SQNR fell", 1, "dB", margin, fall, fall, fall)

    falls = np.minimum(both[0], CEILING) - np.minimum(both[1], CEILING)
    falls = falls[comparison.answers_now.distinct]
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
    then = kind(comparison.answers_then)
    now = kind(comparison.answers_now)
    if name not in then or name not in now:
        return None
    return then[name], now[name]


def _same_file(comparison: Comparison) -> bool:
    return comparison.same_network and comparison.now.sha256 == comparison.then.sha256


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
