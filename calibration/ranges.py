"""Histogram to amax, the magnitude that becomes 127. A new method is a function and its row in METHODS."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    from calibration.observe import Histogram

LEVELS = 127


def minmax(histogram: Histogram) -> float:
    """The largest magnitude seen: nothing is clipped."""
    return histogram.amax


def percentile(histogram: Histogram, share: float = 0.9999) -> float:
    """The magnitude below which 99.99 % of the values lie (Wu et al. 2020, arXiv 2004.09602, section 4.1)."""
    cumulated = np.cumsum(histogram.counts)
    if cumulated[-1] == 0:
        return 0.0
    index = int(np.searchsorted(cumulated, share * cumulated[-1]))
    return min(histogram.amax, (index + 1) * histogram.limit / len(histogram.counts))


def mse(histogram: Histogram, steps: int = 100) -> float:
    """The amax with the least squared error between the values and their INT8 images.

    Clipping and rounding are weighed against each other (Sung et al. 2015, arXiv 1511.06488, section 3).
    """
    if histogram.amax == 0.0:
        return histogram.amax
    candidates = histogram.amax * np.linspace(0.2, 1.0, steps)
    errors = [squared_error(histogram, candidate / LEVELS) for candidate in candidates]
    return float(candidates[int(np.argmin(errors))])


def squared_error(histogram: Histogram, scale: float) -> float:
    """The sum of squared errors of all values seen, when rounded to 127 levels of ``scale`` and clipped above."""
    seen = histogram.counts > 0
    values, counts = histogram.centres[seen], histogram.counts[seen].astype(np.float64)
    rounded = np.minimum(np.rint(values / scale), LEVELS) * scale
    return float(np.sum(counts * (values - rounded) ** 2))


METHODS: dict[str, Callable[[Histogram], float]] = {"minmax": minmax, "percentile": percentile, "mse": mse}
