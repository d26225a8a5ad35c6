"""The look that a build is: what its images can prove at best before it starts, and its number once it has answers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from pipeline.console import news
from pipeline.finished import looks, report_json
from pipeline.finished.looks import Asked
from pipeline.parity.judge import judge, overall
from pipeline.parity.looks import confidence_of, under
from pipeline.parity.paired import drop_of
from pipeline.report import ledger

if TYPE_CHECKING:
    from pipeline.building.request import Request
    from pipeline.building.run import Build
    from pipeline.errors import PipelineError
    from pipeline.finished.report_json import Verdict
    from pipeline.stage import Stage, StageRow


def foreseen(request: Request) -> str | None:
    """The sentence for test images that are too few to show a drop below the margin; None where they may do.

    Raises BadRequest where looks.json is damaged.
    """
    from pipeline.parity.advice import images_needed
    from pipeline.precisions import PRECISIONS

    before = looks.read(request.output)
    if PRECISIONS[request.recipe.precision].tolerance.drop is None:
        return None
    n = len(request.test)
    margin = request.recipe.max_drop
    # Which network it is shows later; most directories see one only.
    look = before.next(before.asked[-1].question) if before.asked else 1
    needed = images_needed(n, margin, confidence_of(look, request.recipe.confidence))
    if needed == n:
        return None
    sentence = f"{n:,} images cannot prove --max-drop {margin:g}, even if none is lost; {needed:,} could"
    if look > 1:
        sentence += f" (at look {look}; the same answers as at an earlier look are that look)"
    return sentence


def settle(
    request: Request,
    under_way: Build,
    stages: list[Stage],
    rows: list[StageRow],
    failure: PipelineError | None,
) -> dict[str, Any] | None:
    """Give ``rows`` the verdicts of the look that they are; returns what report.json says of it, and notes it.

    While its answers were not known a build is judged as a new look; those of an earlier one have its number. None
    where no margin was judged.
    """
    shipped = report_json.shipped(rows, request.recipe.precision)
    if shipped is None or shipped.drop is None or not shipped.tolerance or shipped.tolerance.drop is None:
        return None
    question = looks.Question(under_way.network)
    labels = under_way.images.labels
    before = under_way.reference.argmax(1)
    answers = looks.identity(labels, before, under_way.top1[shipped.name], under_way.images.digest)
    look = under_way.looks.number(question, answers)
    if look != under_way.looks.next(question):
        news.say(f"these are the answers of look {look}, and are judged as that")
        _rejudge(rows, stages, look, len(labels))

    asked = Asked(
        look=look,
        day=looks.today(),
        command="build",
        n=len(labels),
        margin=request.recipe.max_drop,
        confidence=request.recipe.confidence,
        verdict="fail" if failure else cast("Verdict", overall(row.verdict for row in rows)),
        answers=answers,
        images=under_way.images.digest,
        network=question.network,
    )
    looks.note(under_way.output, asked)
    return looks.told(under_way.looks, asked, shipped.drop)


def _rejudge(rows: list[StageRow], stages: list[Stage], look: int, n: int) -> None:
    """Give each of ``rows`` that answered ``n`` images its bounds and its verdict at look number ``look``."""
    tolerances = {stage.name: stage.tolerance for stage in stages}
    for row in rows:
        figures = report_json.measured(row)
        if figures is None:
            continue
        tolerance = under(tolerances[row.name], look)
        row.tolerance = tolerance
        row.drop = drop_of(figures.drop.lost, figures.drop.gained, n, tolerance.confidence)
        before = row.verdict
        row.verdict, row.reasons = judge(tolerance, figures.drift, figures.step, row.drop, n, row.refuted)
        if row.verdict != before:
            news.say(ledger.line(row))
