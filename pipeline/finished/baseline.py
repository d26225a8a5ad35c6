"""A build held against an earlier one: what got worse, on the same images, by more than a margin."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline import workspace
from pipeline.errors import BadRequest
from pipeline.finished.findings import Finding
from pipeline.finished.recheck import ANSWERS
from pipeline.parity.paired import bounds, median_bounds, paired_drop, unpaired_bounds
from pipeline.report.ledger import SCHEMA

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from pipeline.finished.recheck import Saved

    Row = dict[str, Any]
    Answer = tuple[str, str, dict[str, float | None]]

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
    """An earlier build; ``answers`` are None where only its report was kept."""

    path: Path
    report: dict[str, Any]
    answers: Saved | None

    def damaged(self, error: Exception) -> BadRequest:
        """The sentence for a baseline that lacks what it should hold."""
        return BadRequest(f"--baseline {self.path}: its report is not whole ({error!r}); build the baseline again")


def read(path: Path) -> Baseline:
    """The build in the directory ``path``, or of the report.json ``path``, with the answers beside it if there are any.

    Raises BadRequest where there is none, or where its answers are others.
    """
    import safetensors
    import safetensors.numpy

    file = path / "report.json" if path.is_dir() else path
    beside = file.parent / ANSWERS
    wanted = "give the directory of a finished build, or its report.json"
    try:
        report = json.loads(file.read_text(), parse_constant=_no_number)
        answers = safetensors.numpy.load_file(beside) if beside.is_file() else None
    except (OSError, ValueError, RecursionError, safetensors.SafetensorError) as error:
        raise BadRequest(f"--baseline {path} cannot be read ({workspace.explain(error)}); {wanted}") from error
    if not isinstance(report, dict) or report.get("schema") != SCHEMA:
        raise BadRequest(f"--baseline {path}: {file.name} is no report of schema {SCHEMA}; {wanted}")
    if answers is not None and workspace.sha256(beside) != report.get("answers"):
        raise BadRequest(f"--baseline {path}: {ANSWERS} beside its report is not what that build wrote; restore it")
    return Baseline(path, report, answers)


def refuse(report: dict[str, Any], answers: Saved, old: Baseline) -> None:
    """Raise BadRequest where the two builds cannot be compared, and say which of all it is."""
    try:
        why = _other(report, answers, old)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise old.damaged(error) from error
    if why is not None:
        raise BadRequest(f"--baseline {old.path}: {why}; only builds judged on the same images can be compared")


def _other(report: dict[str, Any], answers: Saved, old: Baseline) -> str | None:
    then, now = (
        {"the architecture": r["recipe"]["arch"], "the data set": r["recipe"]["data"], "the preprocessing": p}
        for r in (old.report, report)
        for p in [", ".join(f"{key} {value}" for key, value in sorted(r["preprocessing"].items()))]
    )
    same = old.report["images"]["test"] == report["images"]["test"] and old.report["classes"] == report["classes"]
    for what in then if not same else ["the architecture"]:
        if then[what] != now[what]:
            return f"{what} is {then[what]} there and {now[what]} here"
    if same:
        return None
    labels, (counted, *_) = answers["labels"], [r["accuracy"]["n"] for r in old.report["stages"] if r["accuracy"]]
    if counted != len(labels):
        return f"{counted} images judged it, and {len(labels)} judge this one"
    if old.answers is not None and np.array_equal(np.sort(old.answers["labels"]), np.sort(labels)):
        return "the images have another order there, or are others with the same labels"
    return "other images judged it, or the same in another order"


@dataclass(frozen=True)
class Pair:
    """One stage in both builds: its row here and ``then``, the answers, and whether both froze the same weights."""

    row: Row
    then: Row
    answers: Saved
    before: Saved | None
    margins: Margins
    same_network: bool

    def kept(self, what: str) -> tuple[NDArray[Any], NDArray[Any]] | None:
        """``what`` of every image, (N,), in the baseline and here; None where either did not keep it."""
        key = f"{what}.{self.row['name']}"
        if self.before is None or key not in self.before or key not in self.answers:
            return None
        then, now = self.before[key], self.answers[key]
        if then.shape != now.shape:
            raise ValueError(f"{key} has the shape {then.shape}")
        if np.isnan(then).any():
            raise ValueError(f"{key} holds NaN")
        return then, now


def compare(
    report: dict[str, Any], answers: Saved, old: Baseline, margins: Margins, files: dict[str, str]
) -> list[Finding]:
    """The checks against ``old`` of every stage that either build judged; ``files`` are the paths of this one's.

    A stage made from a file that is worse already is not asked: it would only say the same again.
    """
    before = {row["name"]: row for row in old.report["stages"] if row["file"]}
    found: list[Finding] = []
    worse: set[tuple[str, str]] = set()
    for row in report["stages"]:
        name = row["name"]
        if name not in files or name not in before:
            continue
        pair = Pair(row, before[name], answers, old.answers, margins, same_network(report, old))
        for check, ask in CHECKS.items():
            if (answer := ask(pair)) is None:
                continue
            verdict, message, figures = answer
            if follows := (row["source"], check) in worse:
                verdict, message = "not_run", f"made from {row['source']}, which is worse already; {message}"
            if follows or verdict == "fail":
                worse.add((name, check))
            found.append(Finding(name, check, verdict, message, files[name], figures))
    return [*found, *_unjudged(report, before, files)]


def _unjudged(report: dict[str, Any], before: dict[str, Row], files: dict[str, str]) -> Iterator[Finding]:
    """An engine that was judged and is not any more: nothing tells whether it got worse."""
    judged = {row["name"] for row in report["stages"] if row["accuracy"]}
    for name, row in before.items():
        if name.startswith(("engine", "fp16_engine")) and row["accuracy"]:
            verdict, n = "pass" if name in judged else "undecided", row["accuracy"]["n"]
            lost = f"the baseline judged it on {n} images and this build did not: nothing tells whether it got worse"
            yield Finding(name, "baseline-judged", verdict, "" if name in judged else lost, files.get(name))


def weigh(what: str, scale: float, unit: str, margin: float, value: float, lower: float, upper: float) -> Answer:
    """Verdict, sentence and figures of a change for the worse: pass where its upper bound is within ``margin``."""
    verdict = "pass" if upper <= margin else "fail" if lower > margin else "undecided"
    bounded = math.isfinite(upper - lower)
    known = f"between {scale * lower:.2f} and {scale * upper:.2f}" if bounded else "so few images give no bounds"
    between = "" if lower == upper else f" ({known})"
    limit = {"pass": "within", "fail": "more than", "undecided": "not to be told from"}[verdict]
    sentence = f"{what} by {scale * value:.2f} {unit}{between}, {limit} {scale * margin:g}"
    held = {"lower": lower, "upper": upper} if bounded else {"lower": None, "upper": None}
    return verdict, sentence, {"value": value, **held, "margin": margin}


def _accuracy(pair: Pair) -> Answer | None:
    now, then, confidence = pair.row["accuracy"], pair.then["accuracy"], pair.margins.confidence
    if now is None or then is None:
        return None
    n, right, was = now["n"], round(now["top1"] * now["n"]), round(then["top1"] * now["n"])
    value = (was - right) / n
    if (kept := pair.kept("top1")) is not None:
        before, after = (each == pair.answers["labels"] for each in kept)
        drop = paired_drop(before, after, confidence)
        value, lower, upper = drop.value, drop.lower, drop.upper
    elif pair.same_network:
        # Which images is not known; no more than these can have changed, and the more do, the wider the bounds.
        lost = pair.then["drop"]["gained"] + pair.row["drop"]["lost"]
        lower, upper = bounds(lost, lost - (was - right), n, confidence)
    else:
        lower, upper = unpaired_bounds(was, right, n, confidence)
    return weigh("top-1 fell", 100, "points", pair.margins.drop, value, lower, upper)


def _drift(pair: Pair) -> Answer | None:
    now, then = pair.row["drift"], pair.then["drift"]
    if now is None or then is None:
        return None
    if (kept := pair.kept("sqnr_db")) is not None:
        was, here = (np.minimum(each, CEILING) for each in kept)
        what, value = "SQNR fell, in the median over the images,", float(np.median(was - here))
        lower, upper = median_bounds(was - here, 1 - pair.margins.confidence)
    else:
        median, before = (CEILING if (db := each["sqnr_db"]) is None else min(db, CEILING) for each in (now, then))
        what, value = "the median SQNR fell", before - median
        lower = upper = value
    return weigh(what, 1, "dB", pair.margins.drift, value, lower, upper)


def _size(pair: Pair) -> Answer:
    grown = pair.row["bytes"] / pair.then["bytes"] - 1
    return weigh("the file grew", 100, "%", pair.margins.growth, grown, grown, grown)


CHECKS: dict[str, Callable[[Pair], Answer | None]] = {
    "baseline-accuracy": _accuracy,
    "baseline-drift": _drift,
    "baseline-size": _size,
}


def same_network(report: dict[str, Any], old: Baseline) -> bool:
    """Whether both builds are of the same frozen weights."""
    now, then = ({row["name"]: row["sha256"] for row in each["stages"]} for each in (report, old.report))
    return bool(now["freeze"] == then["freeze"])


def _no_number(name: str) -> float:
    raise ValueError(f"it holds {name}, which is no number")
