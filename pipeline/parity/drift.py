"""How far one set of answers lies from another, and how many of them are right."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from exporters.portable.sqnr import sqnr_db
from pipeline.stage import Accuracy, Drift

if TYPE_CHECKING:
    from numpy.typing import NDArray


# In place of the largest magnitude of a reference that is 0 throughout.
LEAST_MAGNITUDE = 1e-300


def drift(reference: NDArray[np.float32], answers: NDArray[np.float32]) -> Drift:
    """The drift of ``answers`` (N, classes) from ``reference``; raises ValueError where any is missing or no number."""
    if reference.shape != answers.shape:
        raise ValueError(f"answers have shape {answers.shape} where the reference has {reference.shape}")
    if not len(answers):
        raise ValueError("there are no answers to compare: no image was given")
    bad = int((~np.isfinite(answers)).any(axis=1).sum())
    if bad:
        raise ValueError(f"{bad} of {len(answers)} images are answered with NaN or infinity")

    expected = reference.astype(np.float64)
    answered = answers.astype(np.float64)
    errors = np.abs(answered - expected)
    largest_error = errors.max()
    return Drift(
        max_abs=float(largest_error),
        max_rel=float(largest_error / max(np.abs(expected).max(), LEAST_MAGNITUDE)),
        cosine=float(min(1.0, _cosines(expected, answered).min())),
        sqnr_db=median_db(sqnr_db(reference, answers)) if errors.any() else None,
        top1_agreement=float((expected.argmax(1) == answered.argmax(1)).mean()),
    )


def _cosines(expected: NDArray[np.float64], answered: NDArray[np.float64]) -> NDArray[np.float64]:
    """The cosine of the angle between the two answers to each image, (N,).

    An answer of zeros has no angle: there it is 1 where both are the same, and 0 where they are not.
    """
    norms = np.sqrt((expected**2).sum(1) * (answered**2).sum(1))
    equal = ((answered - expected) ** 2).sum(1) == 0
    cosines = (expected * answered).sum(1) / np.where(norms > 0, norms, 1)
    return np.asarray(np.where(norms > 0, cosines, equal * 1.0))


def median_db(ratios_db: NDArray[np.float64]) -> float:
    """The median of the images' SQNR, of which not all are infinite.

    None in the report means the same bits. Where most images have them, the best of the others stands for the median.
    """
    return float(min(np.median(ratios_db), ratios_db[ratios_db < np.inf].max()))


def accuracy(answers: NDArray[np.float32], labels: NDArray[np.int64]) -> Accuracy:
    """Top-1 and top-5 of ``answers`` (N, classes) against ``labels`` (N,)."""
    ranked = np.argsort(-answers, axis=1, kind="stable")[:, :5]
    hits = ranked == labels[:, None]
    return Accuracy(top1=float(hits[:, 0].mean()), top5=float(hits.any(axis=1).mean()), n=len(labels))
