"""A finished build judged again: its files' hashes, and its saved answers or, with ``rerun``, new ones."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any, cast

from exporters import engines
from pipeline import workspace
from pipeline.finished import looks, saved_answers, vectors
from pipeline.finished.finished_build import FinishedBuild
from pipeline.finished.report_json import measured
from pipeline.parity.judge import judge, overall
from pipeline.parity.looks import under
from pipeline.parity.paired import drop_of, paired_drop
from pipeline.stage import StageRow, Tolerance

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

    from pipeline.data.images import Images
    from pipeline.finished.report_json import Verdict
    from pipeline.finished.saved_answers import SavedAnswers

    Judge = Callable[[StageRow, Tolerance], StageRow]


def recheck(
    directory: Path, max_drop: float | None = None, confidence: float | None = None, *, rerun: bool = False
) -> tuple[FinishedBuild, SavedAnswers]:
    """The build in ``directory`` with every verdict computed anew, under other margins if given, and its answers.

    With ``rerun`` every file runs again on the images that judged it, and the answers are those. Raises BadRequest
    where the directory holds no finished build, or those images are no longer to be had.
    """
    build = FinishedBuild.open(directory).under(max_drop=max_drop, confidence=confidence)
    answers = build.read_answers()
    if build.answers_digest is None:
        raise build.damaged(KeyError("answers"))
    if build.conformance_digests is None:
        raise build.damaged(KeyError("conformance"))

    rerunner = _Rerun(build, answers, build.test_images()) if rerun else None
    before = looks.before(build)
    number = looks.number(before, build, answers)
    if rerunner is None:
        rows = _rows(build, partial(_remembered, answers), number)
    else:
        rows = _rows(build, rerunner.look, number)
        answers = rerunner.answers()
        # All files have run: other answers are another look, and only the verdicts are new.
        rows = _rows(build, rerunner.look, looks.number(before, build, answers))

    # A report without stages has no row to fail; it proves nothing, and so is undecided.
    if rows:
        rows[0] = _with_what_belongs_to_no_stage(build, rows[0])
    verdict = "fail" if build.error else overall(row.verdict for row in rows)
    return build.judged(rows, cast("Verdict", verdict)), answers


def _rows(build: FinishedBuild, judged_by: Judge, look: int) -> list[StageRow]:
    """Every row judged anew by ``judged_by``, with the bounds of look number ``look``."""
    rows: list[StageRow] = []
    for row in build.stages:
        # A build ends with the first stage that fails: what stands behind it has no file, rightly.
        ended = build.error is not None or any(earlier.verdict == "fail" for earlier in rows)
        rows.append(_judged(build, row, judged_by, look, ended=ended))
    return rows


def _with_what_belongs_to_no_stage(build: FinishedBuild, first: StageRow) -> StageRow:
    """The ``first`` row, which fails where the saved answers or the contract of preprocessing were touched."""
    if build.answers_touched():
        first = replace(first, verdict="fail", reasons=[f"{saved_answers.FILE} is not what this build wrote"])
    touched = vectors.touched(build.directory, build.conformance_digests or {})
    if touched:
        sentences = [f"{name} is gone or not what this build wrote" for name in touched]
        first = replace(first, verdict="fail", reasons=[*first.reasons, *sentences])
    return first


def _judged(build: FinishedBuild, row: StageRow, judged_by: Judge, look: int, *, ended: bool) -> StageRow:
    """``row`` judged again; ``ended``: the build was over before it came to this stage."""
    if row.file is None:
        return _unjudged(row, None if ended else "it has no file, though nothing before it failed")
    path = build.path(row)
    changed = workspace.other(path, row.sha256)
    if changed is not None:
        return replace(row, verdict="fail", reasons=[changed])
    # A file that can run here did when it was built; whoever takes its answers away hides something.
    if row.provider is None:
        return _unjudged(row, None if _runs_elsewhere(row) else f"{path.name} was never run")
    # Of the report only figures are believed: bounds and verdicts are this program's own.
    return judged_by(row, under(build.bounds(row.name), look))


def _runs_elsewhere(row: StageRow) -> bool:
    """Whether the file of ``row`` is an engine of a backend that only builds here."""
    backend = row.details.get("backend")
    if row.role != "engine" or backend not in (*engines.BACKENDS, *engines.RECIPES):
        return False
    return not engines.named(backend).runs_here


def _unjudged(row: StageRow, wrong: str | None) -> StageRow:
    """Not reached, or built for another machine: no margin changes that; ``wrong`` where that cannot be."""
    if wrong is None:
        return replace(row, verdict="not_run", reasons=[])
    return replace(row, verdict="fail", reasons=[wrong])


def _remembered(answers: SavedAnswers, row: StageRow, tolerance: Tolerance) -> StageRow:
    """``row`` judged by its saved answers."""
    top1 = answers.top1.get(row.name)
    figures = measured(row)
    if top1 is None or figures is None:
        return replace(row, verdict="fail", reasons=row.refuted)  # its answers were no numbers
    labels = answers.labels
    drop = paired_drop(answers.reference_is_right(), top1 == labels, tolerance.confidence)
    verdict, reasons = judge(tolerance, figures.drift, figures.step, drop, len(labels), row.refuted)
    return replace(row, tolerance=tolerance, drop=drop, verdict=verdict, reasons=reasons)


@dataclass
class _Rerun:
    """Every file of ``build`` run again on ``images``; ``saved`` are the answers that were kept."""

    build: FinishedBuild
    saved: SavedAnswers
    images: Images
    logits: dict[str, NDArray[Any]] = field(default_factory=dict)
    examined: dict[str, StageRow] = field(default_factory=dict)

    def look(self, row: StageRow, tolerance: Tolerance) -> StageRow:
        """``row`` with what running its file again gives; how the file was made stays as it was.

        The second time the file does not run again: its figures are judged under ``tolerance``.
        """
        if row.name in self.examined:
            return self._judged(row, tolerance)

        from pipeline.parity.examine import examine

        # Rows come in the order their files were made in: a source that ran has its logits by now.
        source = None
        if row.source is not None:
            if row.source not in self.logits:
                why = f"{row.source}, from which it was made, could not be run again"
                return replace(row, verdict="fail", reasons=[why])
            source = self.build.path(self.build.stage(row.source))

        fresh = StageRow(row.name, row.role, row.precision, tolerance=tolerance)
        logits = examine(
            fresh, self.build.path(row), source, self.images, self.saved.reference, self.logits.get(row.source or "")
        )
        if logits is not None:
            self.logits[row.name] = logits
        self.examined[row.name] = fresh
        return self._judged(row, tolerance)

    def _judged(self, row: StageRow, tolerance: Tolerance) -> StageRow:
        """``row`` with what its file showed."""
        fresh = self.examined[row.name]
        figures = measured(fresh)
        if figures is not None:
            n = figures.accuracy.n
            fresh.tolerance = tolerance
            fresh.drop = drop_of(figures.drop.lost, figures.drop.gained, n, tolerance.confidence)
            fresh.verdict, fresh.reasons = judge(tolerance, figures.drift, figures.step, fresh.drop, n, fresh.refuted)
        return replace(
            row,
            provider=fresh.provider,
            drift=fresh.drift,
            step=fresh.step,
            accuracy=fresh.accuracy,
            drop=fresh.drop,
            certificate=fresh.certificate,
            refuted=fresh.refuted,
            tolerance=fresh.tolerance,
            verdict=fresh.verdict,
            reasons=fresh.reasons,
        )

    def answers(self) -> SavedAnswers:
        """The answers of the files that ran again; of the others those that were kept."""
        from exporters.portable.sqnr import sqnr_db

        top1 = dict(self.saved.top1)
        ratios = dict(self.saved.sqnr_db)
        for name, logits in self.logits.items():
            top1[name] = logits.argmax(1)
            ratios[name] = sqnr_db(self.saved.reference, logits).astype("float32")
        return replace(self.saved, top1=top1, sqnr_db=ratios)
