"""A finished build judged again, against a baseline if asked: the report of it, and its findings."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from pipeline.errors import BadRequest
from pipeline.finished import baseline as baselines
from pipeline.finished import build_directory, recheck
from pipeline.finished.claims import evidence
from pipeline.finished.findings import Finding, findings
from pipeline.parity.judge import overall

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

# Seconds that two engines are timed side by side at most.
SECONDS = 30.0
# What reading a report raises that is not what it should be.
DAMAGED = (KeyError, TypeError, AttributeError, IndexError, ValueError, ZeroDivisionError)


@dataclass(frozen=True)
class Checked:
    """What a check of the build ``name`` found: its ``report`` with every verdict anew, and one finding a check."""

    name: str
    report: dict[str, Any]
    findings: list[Finding]

    @property
    def evidence(self) -> dict[str, list[str]]:
        """What is proven, shown by a stand-in, and not proven, under these titles."""
        return {title.replace("_", " "): self.report[title] for title in ("proven", "proxy", "not_proven")}


def check(
    directory: Path,
    baseline: Path | None = None,
    *,
    max_drop: float | None = None,
    confidence: float | None = None,
    rerun: bool = False,
    **margins: float | None,
) -> Checked:
    """Judge the build in ``directory`` again, and hold it against the one of ``baseline``.

    ``margins`` are those of baselines.Margins; None is its default. Raises BadRequest where either is no build, or
    they cannot be compared, or a margin makes no sense.
    """
    _refuse(baseline, margins)
    old = None if baseline is None else baselines.read(baseline)
    if old is not None and margins.get("slowdown") is not None and not old.path.is_dir():
        raise BadRequest(f"--max-slowdown times two engines side by side, and {old.path} has none; give its directory")
    report, answers = recheck.recheck(directory, max_drop, confidence, rerun=rerun)
    try:
        lists, found = evidence(report, rerun=rerun), findings(report, directory)
    except DAMAGED as error:
        raise build_directory.damaged(directory, error) from error
    if old is not None:
        given = {name: value for name, value in margins.items() if value is not None}
        allowed = baselines.Margins(report["recipe"]["max_drop"], report["recipe"]["confidence"], **given)
        baselines.refuse(report, answers, old)
        # Only of the files that are those that were judged.
        whole = {each.stage: str(each.file) for each in found if (each.check, each.verdict) == ("intact", "pass")}
        try:
            found += baselines.compare(report, answers, old, allowed, whole)
            lists = {title: lists[title] + more for title, more in _open(report, old).items()}
        except DAMAGED as error:
            raise old.damaged(error) from error
        if allowed.slowdown is not None:
            found.append(_timed(directory, old, allowed.slowdown, allowed.confidence))
    verdict = overall([report["verdict"], *(each.verdict for each in found)])
    told = [{"rule": each.rule, **asdict(each)} for each in found]
    return Checked(directory.resolve().name, {**report, **lists, "verdict": verdict, "findings": told}, found)


def _refuse(baseline: Path | None, margins: Mapping[str, float | None]) -> None:
    for name, value in margins.items():
        if value is not None and baseline is None:
            raise BadRequest(f"--max-{name} {value:g} goes with --baseline: there is nothing to compare with")
        if value is not None and not 0 <= value < 1000:
            raise BadRequest(f"--max-{name} {value:g}: give a number from 0 on")


def _open(report: dict[str, Any], old: baselines.Baseline) -> dict[str, list[str]]:
    """What the comparison itself leaves open, in the lists of ``evidence``."""
    proxy, nowhere = [], []
    if not baselines.same_network(report, old):
        proxy.append("The baseline has other weights: drift is compared between each build and its own network.")
    if old.answers is None:
        nowhere.append(
            "The baseline kept no answers: its top-1 is compared by counts, not image by image, and its drift by the "
            "medians alone, without bounds."
        )
    elif not any(key.startswith("sqnr_db.") for key in old.answers):
        nowhere.append("The baseline did not keep the drift of every image: medians are compared, without bounds.")
    if old.report["verdict"] != "pass":
        nowhere.append(f"The baseline did not pass itself: its verdict is {old.report['verdict']}.")
    return {"proven": [], "proxy": proxy, "not_proven": nowhere}


def _timed(directory: Path, old: baselines.Baseline, margin: float, confidence: float) -> Finding:
    """Both engines on one image, in turns."""
    import numpy as np

    from pipeline.finished import benchmark, race

    field = benchmark.contenders(directory, [str(old.path.resolve())])
    pixels = build_directory.test_images(directory).select(np.arange(1))
    # The baseline first, since all ratios are to the first.
    loads = [partial(each.timed, pixels) for each in field[::-1]]
    (then, now), _ = race.race(loads, SECONDS, decide=1 + margin, confidence=confidence)
    ratio = race.ratio(now, then, confidence)
    slower = (each - 1 for each in (ratio.value, ratio.lower, ratio.upper))
    answer = baselines.weigh("the engine's time for one image grew", 100, "%", margin, *slower)
    return Finding("engine", "baseline-latency", answer[0], answer[1], str(field[0].path), answer[2])
