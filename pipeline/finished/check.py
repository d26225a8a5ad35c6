"""A finished build judged again, against a baseline if asked: the report of it, and its findings."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from pipeline.errors import BadRequest
from pipeline.finished import baseline as baselines
from pipeline.finished import looks, recheck, regressions
from pipeline.finished.claims import Claims, claims
from pipeline.finished.findings import Finding, findings
from pipeline.parity.judge import overall
from pipeline.parity.looks import confidence_of

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from pipeline.finished.finished_build import FinishedBuild
    from pipeline.finished.saved_answers import SavedAnswers
    from pipeline.stage import StageRow

# Seconds that two engines are timed side by side at most.
SECONDS = 30.0
NOT_COUNTED = "The build is of a version that counted no looks: verdicts asked before this check are not known."


@dataclass(frozen=True)
class Checked:
    """What a check of the build ``name`` found: its ``report`` with every verdict anew, and one finding a check.

    ``shipped`` is the row of the file that the verdict is on, None where none was judged.
    """

    name: str
    report: dict[str, Any]
    findings: list[Finding]
    shipped: StageRow | None = None

    @property
    def evidence(self) -> dict[str, list[str]]:
        """What is proven, shown by a stand-in, and not proven, under these titles."""
        return {title.replace("_", " "): self.report[title] for title in ("proven", "proxy", "not_proven")}


def check(
    directory: Path,
    baseline: Path | None = None,
    *,
    margins: Mapping[str, float | None] | None = None,
    groups: Path | None = None,
    rerun: bool = False,
    **worse: float | None,
) -> Checked:
    """Judge the build in ``directory`` again, and hold it against the one of ``baseline``.

    ``margins`` take the place of those that the build was asked for (recipe.MARGINS), and the file ``groups`` that of
    its groups; ``worse`` are those of regressions.Margins; None is the default. Raises BadRequest where either is no
    build, or they cannot be compared, or a margin or a group makes no sense.
    """
    # All that can be refused comes before the work.
    _refuse(baseline, worse)
    old = None if baseline is None else baselines.read(baseline)
    if old is not None and worse.get("slowdown") is not None and not old.path.is_dir():
        raise BadRequest(f"--max-slowdown times two engines side by side, and {old.path} has none; give its directory")

    build, answers = recheck.recheck(directory, rerun=rerun, groups=groups, **(margins or {}))
    shown = claims(build, rerun=rerun)
    all_findings = findings(build)
    told = _noted(build, answers, rerun=rerun)
    if told is not None and "looks" not in build.report:
        shown += Claims([], [], [NOT_COUNTED])
    if old is not None:
        baselines.refuse(build, answers, old)
        given = {name: value for name, value in worse.items() if value is not None}
        confidence = _noted_against(build, answers, old)
        allowed = regressions.Margins(build.max_drop, confidence, **given)
        # Only of the files that are those that were judged.
        intact = {
            finding.stage: str(finding.file)
            for finding in all_findings
            if finding.check == "intact" and finding.verdict == "pass"
        }
        all_findings += regressions.compare(build, answers, old, allowed, intact)
        shown += _left_open(build, answers, old)
        if allowed.slowdown is not None:
            # Rounds are measured anew each time: they are no look at the test images.
            all_findings.append(_timed(build, old, allowed.slowdown, build.confidence))

    deciding = [finding.verdict for finding in all_findings if not finding.beside]
    verdict = overall([build.verdict, *deciding])
    rows = [{"rule": finding.rule, **asdict(finding)} for finding in all_findings]
    report = {**build.report, **asdict(shown), "verdict": verdict, "looks": told, "findings": rows}
    return Checked(directory.resolve().name, report, all_findings, build.shipped)


def _refuse(baseline: Path | None, margins: Mapping[str, float | None]) -> None:
    for name, value in margins.items():
        if value is not None and baseline is None:
            raise BadRequest(f"--max-{name} {value:g} goes with --baseline: there is nothing to compare with")
        if value is not None and not 0 <= value < 1000:
            raise BadRequest(f"--max-{name} {value:g}: give a number from 0 on")


def _noted(build: FinishedBuild, answers: SavedAnswers, *, rerun: bool) -> dict[str, Any] | None:
    """What the report says of the look that ``answers`` are, which is noted; None where there is none."""
    # What is no answer of this build is no look at it.
    if not rerun and build.answers_touched():
        return None
    return looks.noted(looks.before(build), build, answers, "check")


def _noted_against(build: FinishedBuild, answers: SavedAnswers, old: baselines.Baseline) -> float:
    """The confidence of the bounds of this look next to the baseline, which is noted.

    The same answers need no bounds, and so use nothing of the error.
    """
    if not looks.judges_a_margin(build.shipped) or baselines.same_answers(build, answers, old):
        return confidence_of(1, build.confidence)
    question = replace(looks.question(build.stages), baseline=baselines.digest(old))
    before = looks.read(build.directory)
    look = before.number(question, looks.answers_of(build.shipped, answers, build.images.test))
    asked = looks.asked_of(build, answers, look, "check")
    looks.note(build.directory, before, replace(asked, baseline=question.baseline))
    return confidence_of(look, build.confidence)


def _left_open(build: FinishedBuild, answers: SavedAnswers, old: baselines.Baseline) -> Claims:
    """What the comparison itself leaves open."""
    proxy = []
    if not baselines.same_network(build, old):
        proxy.append("The baseline has other weights: drift is compared between each build and its own network.")

    not_proven = []
    if old.answers is None:
        not_proven.append(
            "The baseline kept no answers: its top-1 is compared by counts, not image by image, and its drift by the "
            "medians alone, without bounds."
        )
    elif not old.answers.sqnr_db:
        not_proven.append("The baseline did not keep the drift of every image: medians are compared, without bounds.")
    if not baselines.same_answers(build, answers, old):
        not_proven.append(
            "Both builds were judged on the same images: each bound holds for one of them alone, and whoever keeps the "
            "better of the two needs other images to prove how good it is."
        )
    if old.build.verdict != "pass":
        not_proven.append(f"The baseline did not pass itself: its verdict is {old.build.verdict}.")
    return Claims([], proxy, not_proven)


def _timed(build: FinishedBuild, old: baselines.Baseline, margin: float, confidence: float) -> Finding:
    """Both engines on one image, in turns."""
    import numpy as np

    from pipeline.finished import benchmark, race

    engine, engine_then = benchmark.contenders(build, [str(old.path.resolve())])
    pixels = build.test_images().select(np.arange(1))
    # The baseline first, since all ratios are to the first.
    loads = [partial(contender.timed, pixels) for contender in (engine_then, engine)]
    (then, now), _ = race.race(loads, SECONDS, decide=1 + margin, confidence=confidence)
    ratio = race.ratio(now, then, confidence)
    change = regressions.weigh(
        "the engine's time for one image grew", 100, "%", margin, ratio.value - 1, ratio.lower - 1, ratio.upper - 1
    )
    return Finding("engine", "baseline-latency", change.verdict, change.message, str(engine.path), change.figures)
