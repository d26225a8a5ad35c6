"""The signal-to-quantisation-noise ratio (SQNR), by which answers are compared."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

# In place of the power of a signal that is always 0: no square of a float32 is smaller but 0.
LEAST_POWER = 1e-300


def sqnr_db(reference: NDArray[np.float32], answers: NDArray[np.float32]) -> NDArray[np.float64]:
    """The SQNR of each image, (N,): 10 log10(sum reference^2 / sum (answers - reference)^2), in dB.

    Both are (N, …), and the sums go over all numbers of an image. It is infinity where they are the same, and NaN where
    one of them holds NaN.
    """
    wide = reference.astype(np.float64).reshape(len(reference), -1)
    errors = answers.astype(np.float64).reshape(wide.shape) - wide
    signal_power = (wide**2).sum(1)
    noise_power = (errors**2).sum(1)

    ratios_db = np.full(len(wide), np.inf)
    differing = noise_power != 0
    # Infinite answers have infinite noise: the logarithm of 0, or no number at all.
    with np.errstate(divide="ignore", invalid="ignore"):
        ratios = np.maximum(signal_power[differing], LEAST_POWER) / noise_power[differing]
        ratios_db[differing] = 10 * np.log10(ratios)
    return ratios_db
