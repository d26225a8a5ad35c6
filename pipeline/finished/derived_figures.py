"""Whether what the report says of a file's answers is what the saved answers give."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.finished.mismatch import Mismatch
from pipeline.finished.report_json import measured
from pipeline.parity.drift import median_db
from pipeline.parity.figures import agreement
from pipeline.parity.looks import spent

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from pipeline.data.images import Images
    from pipeline.finished.finished_build import FinishedBuild
    from pipeline.finished.saved_answers import SavedAnswers
    from pipeline.parity.figures import TestSet
    from pipeline.parity.per_image import PerImage
    from pipeline.stage import StageRow

    Figures = dict[str, float | None]

CHECK = "figures"
# Two figures are the same where they differ by no more than float32 rounds what they are made from.
ROUNDING = 1e-5
# Twice what two honest builds are apart, in dB, and the SQNR from which on all is the same (docs/ci.md).
NOISE_DB = 3.0
CEILING = 90.0
# Of a stage what its answers alone give. Bounds are not among them: they are computed anew under the margins asked for.
FACTS = {
    "drift": ("max_abs", "max_rel", "cosine", "sqnr_db", "top1_agreement", "centred_db"),
    "step": ("max_abs", "max_rel", "cosine", "sqnr_db", "top1_agreement", "centred_db"),
    "before": ("sqnr_db", "centred_db"),
    "agreement": ("same", "n"),
    "accuracy": ("top1", "top5", "n"),
    "drop": ("value", "lost", "gained"),
    "spread": ("worst_db", "below"),
}
OF_THE_SUBSETS = ("count", "least", "most")
OF_A_SUBSET = ("n", "lost", "gained")
# What was kept of every image before there was more; a report with a hash of its content has all of it.
FIRST_KEPT = {"top1", "sqnr_db"}
# Of kept figures those that stand for the same bits by infinity.
INFINITE = {"sqnr_db", "step_sqnr_db", "centred_db", "step_centred_db"}
# Parts of a row that an earlier version did not tell.
LATER = ("before", "agreement")


def impossible(build: FinishedBuild, answers: SavedAnswers) -> Iterator[Mismatch]:
    """What was saved and can be no answers: of all stages, or of one that ``build`` judged."""
    classes = len(build.classes)
    reference = answers.reference
    if reference.shape[1] != classes:
        sentence = f"the saved answers are of {reference.shape[1]} classes, and the report has {classes}"
        yield Mismatch(None, CHECK, sentence)
        return
    # The sum of a row tells of any in it, without as many truth values as there are logits.
    with np.errstate(invalid="ignore"):
        bad = int((~np.isfinite(reference.sum(axis=1, dtype=np.float64))).sum())
    if bad or not reference.size:
        sentence = f"the saved logits of the PyTorch network are NaN or infinity for {bad} of {len(reference)} images"
        yield Mismatch(None, CHECK, sentence)
        return
    no_classes = _no_classes(answers.labels, classes)
    if no_classes is not None:
        yield Mismatch(None, CHECK, f"the saved labels {no_classes}")
        return
    if not answers.distinct.any():
        yield Mismatch(None, CHECK, "every image is saved as the copy of another")
        return

    for row in build.stages:
        if measured(row) is None:
            continue
        sentence_of_stage = _impossible(build, answers, row.name)
        if sentence_of_stage is not None:
            yield Mismatch(row.name, CHECK, sentence_of_stage)


def _impossible(build: FinishedBuild, answers: SavedAnswers, name: str) -> str | None:
    """Why what was saved of a stage can be no answers, or not all of them."""
    kept = answers.per_image.get(name, {})
    all_kept = answers.kept(name) is not None
    if not kept.keys() >= FIRST_KEPT or (build.content is not None and not all_kept):
        return "it was judged, and its answers are not saved"
    no_classes = _no_classes(kept["top1"], answers.reference.shape[1])
    if no_classes is not None:
        return f"its saved answers {no_classes}"
    for figure, values in kept.items():
        # Nothing but the same bits is infinitely close.
        allowed = np.isposinf(values) if figure in INFINITE else False
        bad = int((~(np.isfinite(values) | allowed)).sum())
        if bad:
            return f"its saved {figure} is NaN or infinity for {bad} of {len(values)} images"
    return None


def _no_classes(values: NDArray[Any], count: int) -> str | None:
    """Why ``values`` (N,) are not all places among ``count`` classes."""
    if values.dtype.kind not in "iu":
        return f"are {values.dtype}, and no classes"
    if values.min() < 0 or values.max() >= count:
        return f"go from {values.min()} to {values.max()}, and there are {count} classes"
    return None


def strangers(build: FinishedBuild, answers: SavedAnswers) -> Iterator[Mismatch]:
    """Saved answers of stages that ``build`` does not judge."""
    judged = {row.name for row in build.stages if measured(row) is not None}
    for name in sorted(answers.per_image.keys() - judged):
        yield Mismatch(None, CHECK, f"there are saved answers of {name}, which the report does not judge")


def mismatches(
    build: FinishedBuild, rows: list[StageRow], answers: SavedAnswers, test_set: TestSet
) -> Iterator[Mismatch]:
    """Where the figures of ``build`` are not those of ``rows``, which its saved answers gave."""
    told = {row.name: row for row in build.stages}
    untold = [part for part in LATER if all(getattr(row, part) is None for row in build.stages)]
    for row in rows:
        # Of one that was not judged anew another mismatch tells why.
        if row.verdict == "not_run" or row.name not in told or measured(row) is None:
            continue
        if not answers.per_image.get(row.name, {}).keys() >= FIRST_KEPT:
            continue
        derived = _facts(row, untold) if answers.kept(row.name) is not None else _first_facts(answers, row.name)
        for sentence in _apart(_facts(told[row.name]), derived):
            yield Mismatch(row.name, CHECK, sentence)
    yield from _subsets(build, answers, test_set)


def _apart(told: Figures, derived: Figures) -> Iterator[str]:
    for what, value in derived.items():
        if not _same(told.get(what), value):
            yield f"its {what} is {_shown(told.get(what))} in the report, and {_shown(value)} by the saved answers"


def _same(told: float | None, derived: float | None) -> bool:
    if told is None or derived is None:
        return told is derived
    return math.isclose(told, derived, rel_tol=ROUNDING, abs_tol=1e-12)


def _shown(figure: float | None) -> str:
    return "none" if figure is None else f"{figure:.6g}"


def _facts(row: StageRow, left_out: Sequence[str] = ()) -> Figures:
    """The facts of ``row`` by their place in the report, but those of the parts ``left_out``."""
    told: Figures = {}
    for part, names in FACTS.items():
        if part in left_out:
            continue
        record = getattr(row, part)
        for name in names:
            told[f"{part}.{name}"] = None if record is None else getattr(record, name)
    for column, family in row.subsets.items():
        for name in OF_THE_SUBSETS:
            told[f"subsets.{column}.{name}"] = getattr(family, name)
    return told


def _first_facts(answers: SavedAnswers, name: str) -> Figures:
    """Those that the first versions kept answers for."""
    top1 = answers.top1[name]
    right = top1 == answers.labels
    right_before = answers.reference_is_right()
    ratios_db = answers.sqnr_db[name]
    return {
        "drift.sqnr_db": None if np.isposinf(ratios_db).all() else median_db(ratios_db),
        "drift.top1_agreement": float((answers.reference.argmax(1) == top1).mean()),
        "accuracy.top1": float(right.mean()),
        "accuracy.n": len(top1),
        "drop.lost": int((right_before & ~right).sum()),
        "drop.gained": int((~right_before & right).sum()),
    }


def _subsets(build: FinishedBuild, answers: SavedAnswers, test_set: TestSet) -> Iterator[Mismatch]:
    """Where a class or a group that the report lists did not lose what it says."""
    shipped = build.shipped
    kept = None if shipped is None else answers.kept(shipped.name)
    if shipped is None or kept is None or not build.subsets:
        return
    lost, gained = test_set.changes(kept.answers.top1)
    changes = {"n": np.ones(len(lost), np.bool_), "lost": lost, "gained": gained}
    for column, listed in build.subsets.items():
        if column not in test_set.groupings:
            yield Mismatch(None, CHECK, f"the report lists subsets by {column}, and no answers are kept by that")
            continue
        grouping = test_set.groupings[column].of(test_set.places)
        counts = _counted(grouping.names, grouping.codes, changes)
        for subset in listed:
            told = {what: getattr(subset, what) for what in OF_A_SUBSET}
            if counts.get(subset.name) != told:
                by_answers = counts.get(subset.name, "none")
                sentence = f"{column} {subset.name} has {told} in the report, and by the saved answers {by_answers}"
                yield Mismatch(None, CHECK, sentence)


def _counted(
    names: Any, codes: NDArray[np.integer], changes: Mapping[str, NDArray[np.bool_]]
) -> dict[str, dict[str, int]]:
    """By name how many images of each subset changed in each way."""
    counts = {what: np.bincount(codes, weights=which, minlength=len(names)) for what, which in changes.items()}
    by_name = {}
    for place, name in enumerate(names):
        by_name[str(name)] = {what: int(count[place]) for what, count in counts.items()}
    return by_name


def run_again(
    build: FinishedBuild, answers: SavedAnswers, images: Images, rows: list[StageRow], kept: Mapping[str, PerImage]
) -> Iterator[Mismatch]:
    """Where the saved ``answers`` are not those that the files of ``build`` gave now to its ``images``.

    ``rows`` are what was judged of them, and ``kept`` the answers, by stage.

    Another machine may round to a neighbouring level: as many answers may differ as may between the stage and the
    PyTorch network, and the median of the SQNR as far as two honest builds are apart.
    """
    if not np.array_equal(answers.labels, images.labels):
        yield Mismatch(None, CHECK, f"the saved labels are not those of the {len(images)} images")
    # The first versions counted copies as images of their own.
    if build.content is not None and not np.array_equal(answers.distinct, images.distinct):
        yield Mismatch(None, CHECK, f"other images of the {len(images)} are saved as copies than are copies")
    for row in rows:
        if row.name not in kept or row.name not in answers.per_image or row.tolerance is None:
            continue
        now = kept[row.name]
        alike = answers.top1[row.name] == now.answers.top1
        same = agreement(int(alike.sum()), len(alike), spent(row.tolerance))
        if same.upper < row.tolerance.agreement:
            share = 100 * same.same / same.n
            sentence = f"run again it gives {share:.4g} % of the images the answer that was saved"
            yield Mismatch(row.name, CHECK, sentence)
        saved_db = _capped_median_db(answers.sqnr_db[row.name])
        now_db = _capped_median_db(now.drift.sqnr_db)
        if abs(saved_db - now_db) > NOISE_DB:
            sentence = f"run again its median SQNR is {now_db:.4g} dB, and by the saved answers {saved_db:.4g}"
            yield Mismatch(row.name, CHECK, sentence)


def _capped_median_db(ratios_db: NDArray[Any]) -> float:
    return float(np.median(np.minimum(ratios_db, CEILING)))
