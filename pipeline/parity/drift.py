"""How far one set of answers lies from another: of every image, and of all of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from exporters.portable.sqnr import sqnr_db
from pipeline.stage import Drift

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float32]

# In place of the largest magnitude of a reference that is 0 throughout.
LEAST_MAGNITUDE = 1e-300
# Values that are computed in float64 at once: what bounds the memory.
AT_ONCE = 2**20


@dataclass(frozen=True)
class Distance:
    """Of every image (N,) float32: SQNR in dB, infinity where nothing differs; largest difference; cosine.

    ``centred_db`` is the SQNR of the centred logits; None of answers that an earlier version kept.
    """

    sqnr_db: Floats
    max_abs: Floats
    cosine: Floats
    centred_db: Floats | None = None


def distance(reference: Floats, answers: Floats) -> Distance:
    """How far ``answers`` (N, classes) lie from ``reference``; raises ValueError where any is missing or no number."""
    if reference.shape != answers.shape:
        raise ValueError(f"answers have shape {answers.shape} where the reference has {reference.shape}")
    if not len(answers):
        raise ValueError("there are no answers to compare: no image was given")
    bad = int((~np.isfinite(answers)).any(axis=1).sum())
    if bad:
        raise ValueError(f"{bad} of {len(answers)} images are answered with NaN or infinity")

    sqnr, max_abs, cosine, centred_sqnr = (np.empty(len(answers), np.float32) for _ in range(4))
    rows = max(1, AT_ONCE // answers.shape[1])
    for start in range(0, len(answers), rows):
        some = slice(start, start + rows)
        expected = reference[some].astype(np.float64)
        answered = answers[some].astype(np.float64)
        sqnr[some] = sqnr_db(expected, answered)
        max_abs[some] = np.abs(answered - expected).max(axis=1)
        cosine[some] = _cosines(expected, answered)
        centred_sqnr[some] = sqnr_db(centred(expected), centred(answered))
    return Distance(sqnr, max_abs, cosine, centred_sqnr)


def centred(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    """``logits`` (N, classes) minus their mean over the classes, to which softmax and argmax are blind.

    One logit alone stays as it is.
    """
    if logits.shape[1] < 2:
        return logits
    return np.asarray(logits - logits.mean(axis=1, keepdims=True))


def drift(reference: Floats, answers: Floats) -> Drift:
    """The drift of ``answers`` (N, classes) from ``reference``; raises as ``distance`` does."""
    found = distance(reference, answers)
    agreement = float((reference.argmax(1) == answers.argmax(1)).mean())
    return summary(found, float(np.abs(reference).max()), agreement)


def summary(found: Distance, magnitude: float, agreement: float) -> Drift:
    """Of all images: ``magnitude`` is the largest of the reference, ``agreement`` the share of the same top-1."""
    largest = float(found.max_abs.max())
    return Drift(
        max_abs=largest,
        max_rel=largest / max(magnitude, LEAST_MAGNITUDE),
        cosine=float(min(1.0, found.cosine.min())),
        sqnr_db=median_db(found.sqnr_db) if largest > 0 else None,
        top1_agreement=agreement,
        centred_db=centred_median_db(found),
    )


def centred_median_db(found: Distance) -> float | None:
    """The median over images of the centred SQNR; None where nothing but an offset differs, or it was not kept."""
    ratios_db = found.centred_db
    if ratios_db is None or np.isposinf(ratios_db).all():
        return None
    return median_db(ratios_db)


def _cosines(expected: NDArray[np.float64], answered: NDArray[np.float64]) -> NDArray[np.float64]:
    """The cosine of the angle between the two answers to each image, (N,).

    An answer of zeros has no angle: there it is 1 where both are the same, and 0 where they are not.
    """
    norms = np.sqrt((expected**2).sum(1) * (answered**2).sum(1))
    equal = ((answered - expected) ** 2).sum(1) == 0
    cosines = (expected * answered).sum(1) / np.where(norms > 0, norms, 1)
    return np.asarray(np.where(norms > 0, cosines, equal * 1.0))


def median_db(ratios_db: Floats) -> float:
    """The median of the images' SQNR, of which not all are infinite.

    None in the report means the same bits. Where most images have them, the best of the others stands for the median.
    """
    return float(min(np.median(ratios_db), ratios_db[ratios_db < np.inf].max()))
