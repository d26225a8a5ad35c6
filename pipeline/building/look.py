"""The look that a build is: what its images can prove at best before it starts, and its number once it has answers."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from pipeline.console import news
from pipeline.finished import looks, report_json
from pipeline.finished.finished_build import FinishedBuild
from pipeline.finished.looks import Question
from pipeline.parity import figures
from pipeline.parity.judge import judge
from pipeline.parity.looks import confidence_of
from pipeline.report import ledger

if TYPE_CHECKING:
    from pipeline.building.request import Request
    from pipeline.building.run import Build
    from pipeline.stage import Stage, StageRow, Tolerance


def foreseen(request: Request) -> str | None:
    """The sentence for test images that are too few to show a drop below the margin; None where they may do.

    Raises BadRequest where looks.json is damaged.
    """
    from pipeline.parity.advice import images_needed
    from pipeline.precisions import PRECISIONS

    before = looks.read(request.output)
    if PRECISIONS[request.recipe.precision].tolerance.drop is None:
        return None
    n = int(request.test.distinct.sum())
    margin = request.recipe.max_drop
    # Which network it is shows later; most directories see one only.
    look = before.next(Question(before.asked[-1].network)) if before.asked else 1
    needed = images_needed(n, margin, confidence_of(look, request.recipe.confidence))
    if needed == n:
        return None
    could = "no test set could" if needed is None else f"{needed:,} could"
    sentence = f"{n:,} images cannot prove --max-drop {margin:g}, even if none is lost; {could}"
    if look > 1:
        sentence += f" (at look {look}; the same answers as at an earlier look are that look)"
    return sentence


def settle(request: Request, under_way: Build, stages: list[Stage], rows: list[StageRow]) -> None:
    """Give ``rows`` the verdicts of the look that they are.

    While its answers were not known a build was judged as a new look; those of an earlier one have its number.
    """
    shipped = report_json.shipped(rows, request.recipe.precision)
    if shipped is None or not looks.judges_a_margin(shipped):
        return
    question = looks.question(rows)
    answers = looks.answers_of(shipped, under_way.answers(), under_way.images.digest)
    look = under_way.looks.number(question, answers)
    if look == under_way.looks.next(question):
        return

    news.say(f"these are the answers of look {look}, and are judged as that")
    tolerances = {stage.name: stage.tolerance for stage in stages}
    for row in rows:
        if row.name in under_way.kept:
            _rejudge(row, under_way, replace(tolerances[row.name], look=look))


def _rejudge(row: StageRow, under_way: Build, tolerance: Tolerance) -> None:
    """Derive ``row`` from its answers again, under ``tolerance``; another verdict is said."""
    before = row.verdict
    row.tolerance = tolerance
    figures.fill(row, under_way.test_set, under_way.kept[row.name], under_way.kept.get(row.source or ""))
    row.verdict, row.reasons = judge(row)
    if row.verdict != before:
        news.say(ledger.line(row))


def noted(under_way: Build, report: dict[str, Any]) -> dict[str, Any] | None:
    """Note the verdict of ``report``, and answer what it says of its look; None where no margin was judged."""
    build = FinishedBuild.of(under_way.output, report)
    return looks.noted(under_way.looks, build, under_way.answers(), "build")
