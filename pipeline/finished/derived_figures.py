"""Whether what the report says of a file's answers is what the saved answers give."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from pipeline.finished.mismatch import Mismatch
from pipeline.finished.report_json import measured

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    from pipeline.finished.finished_build import FinishedBuild
    from pipeline.finished.report_json import Measured
    from pipeline.finished.saved_answers import SavedAnswers
    from pipeline.stage import Tolerance

CHECK = "figures"
# Two figures are the same where they differ by no more than float32 rounds, of them or of what they are made from.
ROUNDING = 1e-5
# Twice what two honest builds are apart, in dB, and the SQNR from which on all is the same (docs/ci.md).
NOISE_DB = 3.0
CEILING = 90.0


def mismatches(build: FinishedBuild, answers: SavedAnswers) -> Iterator[Mismatch]:
    """Where the figures of ``build`` are not those of its saved ``answers``, or where those can be no answers."""
    bad = int((~np.isfinite(answers.reference)).any(axis=1).sum())
    if bad:
        of = len(answers.reference)
        sentence = f"the saved logits of the PyTorch network are NaN or infinity for {bad} of {of} images"
        yield Mismatch(None, CHECK, sentence)

    judged = {row.name: figures for row in build.stages if (figures := measured(row)) is not None}
    for name in sorted((answers.top1.keys() | answers.sqnr_db.keys()) - judged.keys()):
        yield Mismatch(None, CHECK, f"there are saved answers of {name}, which the report does not judge")
    for name, figures in judged.items():
        for sentence in _of_a_stage(answers, name, figures):
            yield Mismatch(name, CHECK, sentence)


def _of_a_stage(answers: SavedAnswers, name: str, figures: Measured) -> Iterator[str]:
    if name not in answers.top1 or name not in answers.sqnr_db:
        yield "it was judged, and its answers are not saved"
        return
    impossible = _impossible(answers, name)
    if impossible is not None:
        yield impossible
        return
    for what, (told, derived) in FIGURES.items():
        report_has = told(figures)
        answers_give = derived(answers, name)
        if not _same(report_has, answers_give):
            yield f"its {what} is {_shown(report_has)} in the report, and {_shown(answers_give)} by the saved answers"


def other_labels(answers: SavedAnswers, labels: NDArray[np.int64]) -> Iterator[Mismatch]:
    """Whether the saved labels are the ``labels`` (N,) of the images."""
    if not np.array_equal(answers.labels, labels):
        yield Mismatch(None, CHECK, f"the saved labels are not those of the {len(labels)} images")


def run_again(
    answers: SavedAnswers, name: str, logits: NDArray[np.float32], tolerance: Tolerance
) -> Iterator[Mismatch]:
    """Where the ``logits`` that the file of a stage gives now are not those that were saved of it.

    Another machine may round to a neighbouring level: as many answers may differ as may between the stage and the
    PyTorch network, and the median of the SQNR as far as two honest builds are apart.
    """
    from exporters.portable.sqnr import sqnr_db

    if name not in answers.top1 or name not in answers.sqnr_db:
        return
    same = float((answers.top1[name] == logits.argmax(1)).mean())
    if same < tolerance.agreement:
        sentence = f"run again it gives {100 * same:.4g} % of the images the answer that was saved"
        yield Mismatch(name, CHECK, sentence)

    saved_db = float(np.median(np.minimum(answers.sqnr_db[name], CEILING)))
    now_db = float(np.median(np.minimum(sqnr_db(answers.reference, logits), CEILING)))
    if abs(saved_db - now_db) > NOISE_DB:
        sentence = f"run again its median SQNR is {now_db:.4g} dB, and by the saved answers {saved_db:.4g}"
        yield Mismatch(name, CHECK, sentence)


def _impossible(answers: SavedAnswers, name: str) -> str | None:
    """Why what was saved of a stage can be no answers."""
    top1 = answers.top1[name]
    classes = answers.reference.shape[1]
    if len(top1) and not (top1.min() >= 0 and top1.max() < classes):
        return f"its saved answers go from {top1.min()} to {top1.max()}, and there are {classes} classes"
    ratios_db = answers.sqnr_db[name]
    # Infinity stands for the same bits.
    no_figures = int((np.isnan(ratios_db) | np.isneginf(ratios_db)).sum())
    if no_figures:
        return f"its saved SQNR is no figure for {no_figures} of {len(ratios_db)} images"
    return None


def _same(told: float | None, derived: float | None) -> bool:
    if told is None or derived is None:
        return told is derived
    return math.isclose(told, derived, rel_tol=ROUNDING, abs_tol=ROUNDING)


def _shown(figure: float | None) -> str:
    return "the same bits" if figure is None else f"{figure:.6g}"


def _agreement(answers: SavedAnswers, name: str) -> float:
    return float((answers.reference.argmax(1) == answers.top1[name]).mean())


def _sqnr_db(answers: SavedAnswers, name: str) -> float | None:
    from pipeline.parity.drift import median_db

    ratios_db = answers.sqnr_db[name].astype(np.float64)
    return None if np.isposinf(ratios_db).all() else median_db(ratios_db)


def _right(answers: SavedAnswers, name: str) -> NDArray[np.bool_]:
    return np.asarray(answers.top1[name] == answers.labels)


def _top1(answers: SavedAnswers, name: str) -> float:
    return float(_right(answers, name).mean())


def _images(answers: SavedAnswers, name: str) -> int:
    return len(answers.top1[name])


def _lost(answers: SavedAnswers, name: str) -> int:
    return int((answers.reference_is_right() & ~_right(answers, name)).sum())


def _gained(answers: SavedAnswers, name: str) -> int:
    return int((~answers.reference_is_right() & _right(answers, name)).sum())


# Each figure of a stage: where the report has it, and what the saved answers give.
FIGURES: dict[str, tuple[Callable[[Measured], float | None], Callable[[SavedAnswers, str], float | None]]] = {
    "drift.sqnr_db": (lambda told: told.drift.sqnr_db, _sqnr_db),
    "drift.top1_agreement": (lambda told: told.drift.top1_agreement, _agreement),
    "accuracy.top1": (lambda told: told.accuracy.top1, _top1),
    "accuracy.n": (lambda told: told.accuracy.n, _images),
    "drop.lost": (lambda told: told.drop.lost, _lost),
    "drop.gained": (lambda told: told.drop.gained, _gained),
}
