"""A finished build judged again: its files' hashes, and its saved answers or, with ``rerun``, new ones."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any, cast

from exporters import onnx_glance
from pipeline import workspace
from pipeline.bounds import bounds
from pipeline.data import groups as groups_of_images
from pipeline.errors import StageFailed
from pipeline.finished import derived_figures, looks, proofs, rows_asked, same_build, same_network
from pipeline.finished.finished_build import FinishedBuild
from pipeline.finished.mismatch import Mismatch
from pipeline.finished.report_json import measured
from pipeline.finished.saved_answers import SavedAnswers
from pipeline.parity import figures
from pipeline.parity.judge import judge, overall
from pipeline.stage import StageRow, Tolerance

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from exporters.onnx_glance import Glance
    from pipeline.data.images import Images
    from pipeline.finished.report_json import Verdict
    from pipeline.finished.rows_asked import Pair
    from pipeline.parity.figures import TestSet
    from pipeline.parity.per_image import PerImage

    Judge = Callable[[StageRow, Tolerance], StageRow]


# What of a row is found by running its file; how the file was made stays as it was.
FOUND = (
    "provider", "drift", "step", "before", "agreement", "accuracy", "drop", "spread", "subsets", "certificate",
    "refuted", "tolerance", "verdict", "reasons",
)  # fmt: skip


def recheck(
    directory: Path, *, rerun: bool = False, groups: Path | None = None, **margins: float | None
) -> tuple[FinishedBuild, SavedAnswers]:
    """The build in ``directory`` with every verdict computed anew, and its answers.

    ``margins`` are those of recipe.MARGINS that take the place of what the build was asked for, None where they do not.
    All that the report tells is held against what it follows from; what does not follow fails. With ``rerun`` every
    file runs again on the images that judged it, and the answers are those. The file ``groups`` says which groups are
    judged, whatever the build was asked for. Raises BadRequest where the directory holds no finished build, or those
    images are no longer to be had.
    """
    saved = FinishedBuild.open(directory)
    build = saved.under(**margins)
    answers = build.read_answers()
    if build.answers_digest is None:
        raise build.damaged(KeyError("answers"))
    if build.conformance_digests is None:
        raise build.damaged(KeyError("conformance"))

    pairs = rows_asked.pairs(saved)
    broken = list(_broken(saved, pairs))
    impossible = list(derived_figures.impossible(saved, answers))
    found = [*broken, *impossible, *_mismatches(saved, pairs, answers, broken)]
    broken_stages = {item.stage for item in broken}
    unfit = {item.stage for item in impossible}
    if None in unfit:
        # What is wrong with all answers leaves nothing to judge, nor to hold a file against.
        rows = _rows(build, pairs, broken_stages, _not_judged, look=1)
    else:
        test_set = build.test_set(answers)
        before = looks.before(build)
        number = looks.number(before, build, answers)
        rows = _rows(build, pairs, broken_stages, partial(_remembered, answers, test_set, unfit), number)
        found += derived_figures.mismatches(saved, rows, answers, test_set)
        found += _unreached(saved, pairs, rows)
        if groups is not None:
            build, answers = _grouped(build, answers, groups)
            test_set = build.test_set(answers)
            rows = _rows(build, pairs, broken_stages, partial(_remembered, answers, test_set, unfit), number)
        if rerun:
            rerunner = _Rerun(build, test_set, build.test_images())
            rows = _rows(build, pairs, broken_stages, rerunner.judged, number)
            found += derived_figures.run_again(saved, answers, rerunner.images, rows, rerunner.kept)
            answers = rerunner.answers(answers)
            # Other answers are another look; no file runs again for that.
            own_number = looks.number(before, build, answers)
            if own_number != number:
                rows = list(_at_look(rows, rerunner, answers, own_number))

    rows = _with_mismatches(rows, found)
    deciding = [row.verdict for row in rows if not row.stands_beside(build.precision)]
    # What stands beside does not decide; that it is of this build, and whole, does.
    verdict = "fail" if build.error or found else overall(deciding)
    return build.judged(rows, cast("Verdict", verdict), found), answers


def _grouped(build: FinishedBuild, answers: SavedAnswers, path: Path) -> tuple[FinishedBuild, SavedAnswers]:
    """Both with the groups of test images that the file ``path`` names, in place of any others."""
    found = groups_of_images.read(path, build.test_images().part)
    names = {column: list(grouping.names) for column, grouping in found.items()}
    codes = {column: grouping.codes for column, grouping in found.items()}
    grouped = replace(build, groups=names, report={**build.report, "groups": names})
    return grouped, replace(answers, groups=codes)


def _at_look(rows: list[StageRow], rerunner: _Rerun, answers: SavedAnswers, look: int) -> Iterator[StageRow]:
    """Each of ``rows``, those that ``rerunner`` has answers of with the bounds of look number ``look``."""
    for row in rows:
        if row.name in rerunner.kept:
            assert row.tolerance is not None
            yield _remembered(answers, rerunner.test_set, (), row, replace(row.tolerance, look=look))
        else:
            yield row


def _broken(build: FinishedBuild, pairs: list[Pair]) -> Iterator[Mismatch]:
    """Files that are not those that were judged, or that never were though they could be."""
    for pair in pairs:
        row = pair.told
        if row.file is None or pair.asked is None:
            continue
        path = build.path(row)
        changed = workspace.other(path, row.sha256)
        if changed is not None:
            yield Mismatch(row.name, "intact", changed)
            continue
        # A file that can run here did when it was built; whoever takes its answers away hides something.
        backend = pair.asked.backend
        if row.provider is None and (backend is None or backend.runs_here):
            yield Mismatch(row.name, "intact", f"{path.name} was never run")


def _mismatches(
    build: FinishedBuild, pairs: list[Pair], answers: SavedAnswers, broken: list[Mismatch]
) -> Iterator[Mismatch]:
    """Where ``build``, as its report has it, does not follow from its recipe and its files.

    Of files that are ``broken`` nothing is asked: they say it by themselves.
    """
    stages = {item.stage for item in broken}
    whole = [row for row in build.stages if row.file is not None and row.name not in stages]
    glances = {row.name: _glance(build.path(row)) for row in whole if str(row.file).endswith(".onnx")}
    yield from same_build.mismatches(build)
    yield from rows_asked.mismatches(build, pairs)
    yield from derived_figures.strangers(build, answers)
    yield from same_network.mismatches(build, whole, glances)
    yield from proofs.mismatches(build, whole, glances)


def _glance(path: Path) -> Glance:
    """What an ONNX file says of itself."""
    try:
        return onnx_glance.glance(path)
    except (OSError, ValueError):
        # It says nothing: neither which network it is, nor that it is quantised.
        return onnx_glance.Glance({}, Counter())


def _rows(
    build: FinishedBuild, pairs: list[Pair], broken: Collection[str | None], judged: Judge, look: int
) -> list[StageRow]:
    """Every row ``judged`` anew at look number ``look``; those ``broken`` fail, for reasons told elsewhere."""
    rows = []
    for pair in pairs:
        row = pair.told
        if row.name in broken:
            rows.append(replace(row, verdict="fail", reasons=[]))
        elif _failed_beside(build, row):
            rows.append(row)
        elif pair.asked is None or row.file is None or row.provider is None:
            # Not reached, or built for another machine: no margin changes that.
            rows.append(replace(row, verdict="not_run", reasons=[]))
        else:
            # Of the report only figures are believed: bounds and verdicts are this program's own.
            tolerance = bounds(pair.asked.name, pair.asked.role, pair.asked.precision, build.recipe)
            rows.append(judged(row, replace(tolerance, look=look)))
    return rows


def _failed_beside(build: FinishedBuild, row: StageRow) -> bool:
    """Whether ``row`` stands beside and could not be made, which ends nothing but what stands beside."""
    return row.file is None and row.verdict == "fail" and bool(row.reasons) and row.stands_beside(build.precision)


def _unreached(build: FinishedBuild, pairs: list[Pair], rows: list[StageRow]) -> Iterator[Mismatch]:
    """Rows without a file, though the build had not ended: it ends with the first stage that fails."""
    ended = build.error is not None
    for pair, row in zip(pairs, rows, strict=True):
        ended = ended or row.verdict == "fail"
        if pair.asked is not None and not pair.missing and row.file is None and not ended:
            yield Mismatch(row.name, "made", "it has no file, though nothing before it failed")


def _with_mismatches(rows: list[StageRow], found: Iterable[Mismatch]) -> list[StageRow]:
    """``rows``, of which those fail that anything was ``found`` of; what belongs to no stage is told by the first."""
    sentences: dict[str, list[str]] = {}
    for item in found:
        sentences.setdefault(item.stage or rows[0].name, []).append(item.sentence)

    told = []
    for row in rows:
        # Of two rows of one name the first one tells.
        of_this = sentences.pop(row.name, [])
        # The reasons of another verdict than this one would be taken for its own.
        reasons = row.reasons if row.verdict == "fail" else []
        told.append(replace(row, verdict="fail", reasons=[*of_this, *reasons]) if of_this else row)
    return told


def _not_judged(row: StageRow, _: Tolerance) -> StageRow:
    """``row`` without figures: its answers are none, for reasons told elsewhere."""
    none: dict[str, Any] = dict.fromkeys(("drift", "step", "before", "agreement", "accuracy", "drop", "spread"))
    return replace(row, **none, subsets={}, verdict="fail", reasons=[])


def _remembered(
    answers: SavedAnswers, test_set: TestSet, unfit: Collection[str | None], row: StageRow, tolerance: Tolerance
) -> StageRow:
    """``row`` judged by its saved answers; those of the stages ``unfit`` are none."""
    if measured(row) is None:
        return replace(row, verdict="fail", reasons=row.refuted)  # its answers were no numbers
    if row.name in unfit:
        return _not_judged(row, tolerance)
    if row.source in unfit:
        why = f"the saved answers of {row.source}, from which it was made, are none"
        return replace(_not_judged(row, tolerance), reasons=[why])

    fresh = replace(row, tolerance=tolerance)
    kept = answers.kept(row.name)
    if kept is None:
        # Version 0.1 kept less: what it did not is believed.
        figures.fill_losses(fresh, test_set, answers.top1[row.name])
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

    def judged(self, row: StageRow, tolerance: Tolerance) -> StageRow:
        """``row`` with what running its file again gives."""
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
        try:
            examined = examine(
                fresh,
                self.build.path(row),
                source,
                self.images,
                self.test_set,
                self.logits.get(before),
                self.kept.get(before),
            )
        except StageFailed as error:
            return replace(row, verdict="fail", reasons=[str(error)])
        if examined is not None:
            self.logits[row.name] = examined.logits
            self.kept[row.name] = examined.kept
        return replace(row, **{name: getattr(fresh, name) for name in FOUND})

    def answers(self, saved: SavedAnswers) -> SavedAnswers:
        """The answers of the files that ran again; of the others those that were ``saved``."""
        fresh = SavedAnswers.of(self.test_set, self.kept)
        return replace(saved, per_image={**saved.per_image, **fresh.per_image})
