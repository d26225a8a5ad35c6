"""What the mean and the median hide: the worst images, the leads of answers, and their probabilities."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from pipeline.parity.paired import rate_at_least, rate_at_most
from pipeline.stage import Crossing, Noisy, Spread

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from pipeline.parity.per_image import Answers
    from pipeline.stage import Tolerance

    Floats = NDArray[np.float32]

# An image whose logits carry more noise than this, in dB, is answered out of hand (docs/bounds.md).
NOISY_DB = 15.0
WORST_PERCENT = 1
# Images that are named, at most.
NAMED = 5
# Bins of the expected calibration error, as Guo et al. 2017 have them.
BINS = 15


def spread(
    before: Answers,
    after: Answers,
    sqnr_db: Floats,
    labels: NDArray[np.int64],
    places: NDArray[np.int64],
    name: Callable[[int], str],
    tolerance: Tolerance,
) -> Spread:
    """Of the network's answers ``before`` and those of a file, to the images at ``places`` (N,) of the test images.

    ``sqnr_db`` (N,) is that of each image; ``name`` says what the image at a place is called.
    """
    n = len(labels)
    error = 1 - tolerance.confidence
    # The value itself and none between two: one of them may be infinite.
    worst_db = float(np.percentile(sqnr_db, WORST_PERCENT, method="lower"))
    below = int((sqnr_db < NOISY_DB).sum())
    noisiest = [place for place in np.argsort(sqnr_db, kind="stable")[:NAMED] if np.isfinite(sqnr_db[place])]
    threshold = tolerance.threshold
    return Spread(
        worst_db=worst_db if np.isfinite(worst_db) else None,
        noisy_db=NOISY_DB,
        below=below,
        below_upper=rate_at_most(below, n, error),
        noisiest=[Noisy(int(places[place]), name(int(places[place])), float(sqnr_db[place])) for place in noisiest],
        lead=[float(np.median(before.lead)), float(np.median(after.lead))],
        calibration_error=[calibration_error(before, labels), calibration_error(after, labels)],
        crossing=None if threshold is None else _crossing(before.probability, after.probability, threshold, error),
    )


def calibration_error(answers: Answers, labels: NDArray[np.int64]) -> float:
    """The mean over images of how far the probability of the answers in a bin is from how many of them are right."""
    # The upper end belongs to a bin, as in (0, 1/15].
    bins = np.clip(np.ceil(answers.probability * BINS).astype(np.int64) - 1, 0, BINS - 1)
    right = np.bincount(bins, weights=answers.top1 == labels, minlength=BINS)
    promised = np.bincount(bins, weights=answers.probability, minlength=BINS)
    return float(np.abs(right - promised).sum() / len(labels))


def _crossing(before: Floats, after: Floats, threshold: float, error: float) -> Crossing:
    lost = int(((before >= threshold) & (after < threshold)).sum())
    gained = int(((before < threshold) & (after >= threshold)).sum())
    n = len(before)
    crossed = lost + gained
    return Crossing(
        threshold, lost, gained, crossed / n, rate_at_least(crossed, n, error), rate_at_most(crossed, n, error)
    )
