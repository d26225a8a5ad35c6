"""A finished build judged again: its files' hashes, and its saved answers or, with ``rerun``, new ones."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any, cast

from exporters import onnx_glance
from pipeline import workspace
from pipeline.bounds import bounds
from pipeline.errors import StageFailed
from pipeline.finished import derived_figures, proofs, rows_asked, same_build, same_network, saved_answers
from pipeline.finished.finished_build import FinishedBuild
from pipeline.finished.report_json import measured
from pipeline.parity.judge import judge, overall
from pipeline.parity.paired import paired_drop
from pipeline.stage import StageRow, Tolerance

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from numpy.typing import NDArray

    from exporters.onnx_glance import Glance
    from pipeline.data.images import Images
    from pipeline.finished.mismatch import Mismatch
    from pipeline.finished.report_json import Verdict
    from pipeline.finished.rows_asked import Pair
    from pipeline.finished.saved_answers import SavedAnswers

    Look = Callable[[StageRow, Tolerance], StageRow]


def recheck(
    directory: Path, max_drop: float | None = None, confidence: float | None = None, *, rerun: bool = False
) -> tuple[FinishedBuild, SavedAnswers]:
    """The build in ``directory`` with every verdict computed anew, under other margins if given, and its answers.

    All that the report tells is held against what it follows from: its ``mismatches`` fail the stages that they are of.
    With ``rerun`` every file runs again on the images that judged it, and the answers are those. Raises BadRequest
    where the directory holds no finished build, or those images are no longer to be had.
    """
    saved = FinishedBuild.open(directory)
    build = saved.under(max_drop=max_drop, confidence=confidence)
    answers = build.read_answers()
    if not answers.reference.size:
        raise build.damaged(ValueError(f"{saved_answers.FILE} holds no answers"))
    if build.answers_digest is None:
        raise build.damaged(KeyError("answers"))
    if build.conformance_digests is None:
        raise build.damaged(KeyError("conformance"))

    pairs = rows_asked.pairs(saved)
    found = _mismatches(saved, pairs, answers)
    rerunner = _Rerun(build, answers, build.test_images()) if rerun else None
    look = rerunner.look if rerunner is not None else partial(_remembered, answers)
    rows = _rows(build, pairs, look)
    if rerunner is not None:
        found += rerunner.mismatches(rows)
        answers = rerunner.answers()
    rows = _with_mismatches(rows, found)
    verdict = "fail" if build.error else overall(row.verdict for row in rows)
    return build.judged(rows, cast("Verdict", verdict), found), answers


def _rows(build: FinishedBuild, pairs: list[Pair], look: Look) -> list[StageRow]:
    """Every row judged anew by ``look``."""
    rows: list[StageRow] = []
    for pair in pairs:
        # A build ends with the first stage that fails: what stands behind it has no file, rightly.
        ended = build.error is not None or any(earlier.verdict == "fail" for earlier in rows)
        rows.append(_judged(build, pair, look, ended=ended))
    return rows


def _mismatches(build: FinishedBuild, pairs: list[Pair], answers: SavedAnswers) -> list[Mismatch]:
    """Where ``build``, as its report has it, does not follow from its recipe, its answers and its files."""
    glances = {row.name: glance for row in build.stages if (glance := _glance(build, row)) is not None}
    return [
        *same_build.mismatches(build),
        *rows_asked.mismatches(build, pairs),
        *derived_figures.mismatches(build, answers),
        *same_network.mismatches(build, answers, glances),
        *proofs.mismatches(build, glances),
    ]


def _glance(build: FinishedBuild, row: StageRow) -> Glance | None:
    """What the file of ``row`` says of itself; None where it is there and no ONNX file by its name."""
    path = build.path(row)
    if path.suffix != ".onnx" or not path.is_file():
        return None
    try:
        return onnx_glance.glance(path)
    except (OSError, ValueError):
        # It says nothing: neither which network it is, nor that it is quantised.
        return onnx_glance.Glance({}, Counter())


def _with_mismatches(rows: list[StageRow], found: Iterable[Mismatch]) -> list[StageRow]:
    """``rows``, of which those fail that anything was ``found`` of; what belongs to no stage is told by the first."""
    sentences: dict[str, list[str]] = {}
    for mismatch in found:
        stage = rows[0].name if mismatch.stage is None else mismatch.stage
        sentences.setdefault(stage, []).append(mismatch.sentence)

    failing = []
    for row in rows:
        # Of two rows of one name the first one tells.
        told = sentences.pop(row.name, [])
        # Reasons of another verdict than this one would be taken for its own.
        reasons = row.reasons if row.verdict == "fail" else []
        failing.append(replace(row, verdict="fail", reasons=[*reasons, *told]) if told else row)
    return failing


def _judged(build: FinishedBuild, pair: Pair, look: Look, *, ended: bool) -> StageRow:
    """The row of ``pair`` judged again; ``ended``: the build was over before it came to this stage."""
    row = pair.told
    # What is wrong with it is told by its mismatch.
    if pair.missing or pair.asked is None:
        return _unjudged(row, None)
    if row.file is None:
        return _unjudged(row, None if ended else "it has no file, though nothing before it failed")
    path = build.path(row)
    changed = workspace.other(path, row.sha256)
    if changed is not None:
        return replace(row, verdict="fail", reasons=[changed])
    # A file that can run here did when it was built; whoever takes its answers away hides something.
    if row.provider is None:
        backend = pair.asked.backend
        runs_here = backend is None or backend.runs_here
        return _unjudged(row, f"{path.name} was never run" if runs_here else None)
    # Of the report only figures are believed: bounds and verdicts are this program's own.
    return look(row, bounds(pair.asked.name, pair.asked.role, pair.asked.precision, build.recipe))


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
        # They were no numbers, or somebody took them away.
        return replace(row, verdict="fail", reasons=row.refuted or ["nothing is left of its answers"])
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
        before = self.logits.get(row.source or "")
        try:
            logits = examine(fresh, self.build.path(row), source, self.images, self.saved.reference, before)
        except StageFailed as error:
            return replace(row, verdict="fail", reasons=[str(error)])
        if logits is not None:
            self.logits[row.name] = logits
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

    def mismatches(self, rows: list[StageRow]) -> list[Mismatch]:
        """Where the saved answers are not those that the files of ``rows`` gave now."""
        found = [*derived_figures.other_labels(self.saved, self.images.labels)]
        for row in rows:
            if row.name in self.logits and row.tolerance is not None:
                found += derived_figures.run_again(self.saved, row.name, self.logits[row.name], row.tolerance)
        return found

    def answers(self) -> SavedAnswers:
        """The answers of the files that ran again; of the others those that were kept."""
        from exporters.portable.sqnr import sqnr_db

        top1 = dict(self.saved.top1)
        ratios = dict(self.saved.sqnr_db)
        for name, logits in self.logits.items():
            top1[name] = logits.argmax(1)
            ratios[name] = sqnr_db(self.saved.reference, logits).astype("float32")
        return replace(self.saved, top1=top1, sqnr_db=ratios)
