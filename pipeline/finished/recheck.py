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
from pipeline.finished.saved_answers import SavedAnswers
from pipeline.parity import figures
from pipeline.parity.judge import judge, overall
from pipeline.parity.looks import spent
from pipeline.parity.paired import paired_drop
from pipeline.stage import StageRow, Tolerance

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from pipeline.data.images import Images
    from pipeline.finished.report_json import Verdict
    from pipeline.parity.figures import TestSet
    from pipeline.parity.per_image import PerImage

    Judge = Callable[[StageRow, Tolerance], StageRow]


def recheck(directory: Path, *, rerun: bool = False, **margins: float | None) -> tuple[FinishedBuild, SavedAnswers]:
    """The build in ``directory`` with every verdict computed anew, and its answers.

    ``margins`` are those of recipe.MARGINS that take the place of what the build was asked for, None where they do not.
    With ``rerun`` every file runs again on the images that judged it, and the answers are those. Raises BadRequest
    where the directory holds no finished build, or those images are no longer to be had.
    """
    build = FinishedBuild.open(directory).under(**margins)
    answers = build.read_answers()
    if build.answers_digest is None:
        raise build.damaged(KeyError("answers"))
    if build.conformance_digests is None:
        raise build.damaged(KeyError("conformance"))

    test_set = build.test_set(answers)
    before = looks.before(build)
    number = looks.number(before, build, answers)
    rerunner = _Rerun(build, test_set, build.test_images()) if rerun else None
    judged_by = rerunner.look if rerunner is not None else partial(_remembered, answers, test_set)
    rows: list[StageRow] = []
    for row in build.stages:
        # A build ends with the first stage that fails: what stands behind it has no file, rightly.
        ended = build.error is not None or any(earlier.verdict == "fail" for earlier in rows)
        rows.append(_judged(build, row, judged_by, number, ended=ended))
    if rerunner is not None:
        answers = rerunner.answers(answers)
        own_number = looks.number(before, build, answers)
        # Other answers are another look; no file runs again for that.
        if own_number != number:
            rows = list(_at_look(build, rows, rerunner, answers, own_number))

    # A report without stages has no row to fail; it proves nothing, and so is undecided.
    if rows:
        rows[0] = _with_what_belongs_to_no_stage(build, rows[0])
    deciding = [row.verdict for row in rows if not row.stands_beside(build.precision)]
    verdict = "fail" if build.error else overall(deciding)
    return build.judged(rows, cast("Verdict", verdict)), answers


def _at_look(
    build: FinishedBuild, rows: list[StageRow], rerunner: _Rerun, answers: SavedAnswers, look: int
) -> Iterator[StageRow]:
    """Each of ``rows``, those that ``rerunner`` has answers of with the bounds of look number ``look``."""
    for row in rows:
        if row.name in rerunner.kept:
            yield _remembered(answers, rerunner.test_set, row, replace(build.bounds(row.name), look=look))
        else:
            yield row


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
    return judged_by(row, replace(build.bounds(row.name), look=look))


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


def _remembered(answers: SavedAnswers, test_set: TestSet, row: StageRow, tolerance: Tolerance) -> StageRow:
    """``row`` judged by its saved answers."""
    if row.name not in answers.top1 or measured(row) is None:
        return replace(row, verdict="fail", reasons=row.refuted)  # its answers were no numbers
    fresh = replace(row, tolerance=tolerance)
    kept = answers.kept(row.name)
    if kept is None:
        # Version 0.1 kept less: what it did not is believed.
        right = answers.top1[row.name] == answers.labels
        fresh.drop = paired_drop(answers.reference_is_right(), right, spent(tolerance))
    else:
        figures.fill(fresh, test_set, kept, answers.kept(row.source or ""))
    fresh.verdict, fresh.reasons = judge(fresh)
    return fresh


@dataclass
class _Rerun:
    """Every file of ``build`` run again on ``images``, and judged on ``test_set``."""

    build: FinishedBuild
    test_set: TestSet
    images: Images
    logits: dict[str, NDArray[Any]] = field(default_factory=dict)
    kept: dict[str, PerImage] = field(default_factory=dict)

    def look(self, row: StageRow, tolerance: Tolerance) -> StageRow:
        """``row`` with what running its file again gives; how the file was made stays as it was."""
        from pipeline.parity.examine import examine

        # Rows come in the order their files were made in: a source that ran has its logits by now.
        source = None
        if row.source is not None:
            if row.source not in self.logits:
                why = f"{row.source}, from which it was made, could not be run again"
                return replace(row, verdict="fail", reasons=[why])
            source = self.build.path(self.build.stage(row.source))

        fresh = StageRow(row.name, row.role, row.precision, tolerance=tolerance)
        before = row.source or ""
        examined = examine(
            fresh,
            self.build.path(row),
            source,
            self.images,
            self.test_set,
            self.logits.get(before),
            self.kept.get(before),
        )
        if examined is not None:
            self.logits[row.name] = examined.logits
            self.kept[row.name] = examined.kept
        return replace(
            row,
            provider=fresh.provider,
            drift=fresh.drift,
            step=fresh.step,
            accuracy=fresh.accuracy,
            drop=fresh.drop,
            spread=fresh.spread,
            subsets=fresh.subsets,
            certificate=fresh.certificate,
            refuted=fresh.refuted,
            tolerance=fresh.tolerance,
            verdict=fresh.verdict,
            reasons=fresh.reasons,
        )

    def answers(self, saved: SavedAnswers) -> SavedAnswers:
        """The answers of the files that ran again; of the others those that were ``saved``."""
        fresh = SavedAnswers.of(self.test_set, self.kept)
        return replace(saved, per_image={**saved.per_image, **fresh.per_image})
