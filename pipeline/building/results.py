"""What a build leaves beside its stage files: the answers, report.json, the evidence and the page."""

from __future__ import annotations

import hashlib
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from pipeline.errors import PipelineError, StageFailed
from pipeline.finished.finished_build import FinishedBuild
from pipeline.parity.figures import every_subset
from pipeline.parity.looks import spent

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pipeline.building.request import Request
    from pipeline.building.run import Build
    from pipeline.parity.figures import TestSet
    from pipeline.stage import Stage, StageRow

ANSWERS = "answers.safetensors"
# Classes or groups of one family that the report lists, at most.
LISTED = 2000


def forget(output: Path) -> None:
    """Delete what an earlier build said of itself: until this one has ended, there is no report."""
    from pipeline.finished import report_json

    # The report says itself which evidence.json it belongs to.
    for name in (report_json.FILE, report_json.PAGE):
        (output / name).unlink(missing_ok=True)


def judged(under_way: Build, stages: list[Stage]) -> tuple[list[StageRow], PipelineError | None]:
    """The row of every stage that was reached, each said as soon as it is judged, and what ended them early."""
    from pipeline.console import news
    from pipeline.report import ledger

    rows: list[StageRow] = []
    try:
        for row in under_way.run(stages):
            rows.append(row)
            news.say(ledger.line(row))
    except PipelineError as error:
        return rows, error
    return rows, None


def write(
    request: Request,
    origin: str,
    under_way: Build,
    stages: list[Stage],
    rows: list[StageRow],
    failure: PipelineError | None,
) -> dict[str, Any]:
    """Write all of it and return the report; raises ``failure`` afterwards, where there was one.

    Raises StageFailed where the disk takes no report.
    """
    import safetensors.numpy

    from pipeline import workspace
    from pipeline.building import look
    from pipeline.console import news
    from pipeline.data import conformance
    from pipeline.finished import report_json
    from pipeline.report import evidence, page

    output = under_way.output
    unfinished = under_way.unfinished
    workspace.forget_others(output, {path.name for path in under_way.files.values()})
    saved_answers = safetensors.numpy.save(under_way.answers().tensors())
    look.settle(request, under_way, stages, rows)
    report = _report(request, origin, under_way, stages, rows, failure)
    report["answers"] = hashlib.sha256(saved_answers).hexdigest()
    try:
        report["looks"] = look.noted(under_way, report)
        report["conformance"] = conformance.write(under_way.images, output, unfinished)
        workspace.write_bytes(output / ANSWERS, saved_answers, unfinished)
        evidence.write(under_way, report)
        # All that stands beside the report is there now: it names what belongs to it.
        report["evidence"] = workspace.sha256(output / report_json.EVIDENCE)
        report["notes"] = _notes(under_way)
        report["content"] = report_json.content(report)
        workspace.write_json(output / report_json.FILE, report, unfinished)
        workspace.write_bytes(output / page.FILE, page.html(output).encode(), unfinished)
        news.say(f"the same as a page: {output / page.FILE}")
    except (OSError, PipelineError) as error:
        raise failure or StageFailed(f"-o {output}: no report could be written: {workspace.explain(error)}") from error
    if failure is not None:
        raise failure
    return report


def _notes(under_way: Build) -> dict[str, str]:
    """SHA-256 of the note beside each file that was made, by its name."""
    from pipeline import workspace

    notes = [workspace.note_of(path) for path in under_way.files.values()]
    return {note.name: workspace.sha256(note) for note in notes}


def _report(
    request: Request,
    origin: str,
    under_way: Build,
    stages: list[Stage],
    rows: list[StageRow],
    failure: PipelineError | None,
) -> dict[str, Any]:
    from pipeline.finished.benchmark import beside_float
    from pipeline.report import ledger

    sources = {"data": request.source, "weights": origin}
    images = {"calibration": request.calibration.digest, "test": request.test.digest}
    report = ledger.header(request.recipe, under_way.output, request.description, sources, images)
    report["warnings"] = [*request.warnings, *_doubts(request, under_way.test_set)]
    speed = beside_float(rows, under_way.files, under_way.images) if failure is None else None
    report["speed"] = None if speed is None else asdict(speed)
    report["groups"] = {column: list(each.names) for column, each in request.groupings.items()}
    report |= ledger.ledger(rows, stages, failure, request.recipe.precision)
    report["subsets"] = _subsets(under_way, FinishedBuild.of(under_way.output, report))
    return report


def _doubts(request: Request, test: TestSet) -> Iterator[str]:
    """What the answers of the network itself to every distinct image say against it."""
    from pipeline.parity import doubts

    classes = len(request.description.classes)
    return doubts.of_network(
        test.reference[test.distinct], test.labels[test.distinct], classes, request.recipe.confidence
    )


def _subsets(under_way: Build, finished: FinishedBuild) -> dict[str, Any]:
    """Every class and group of what is shipped, the worst first."""
    shipped = finished.shipped
    if shipped is None or shipped.tolerance is None:
        return {}
    found = every_subset(under_way.test_set, under_way.kept[shipped.name].answers.top1, spent(shipped.tolerance))
    return {column: [asdict(subset) for subset in worst_first[:LISTED]] for column, worst_first in found.items()}
