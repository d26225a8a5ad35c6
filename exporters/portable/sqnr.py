"""The ratio of signal to quantisation noise between two sets of answers, in dB: one formula, one policy of caps.

``sqnr_db`` is the figure itself, infinite where nothing differs. Whoever takes medians and minima, or writes JSON, caps
it with ``capped_sqnr_db``.
"""

from __future__ import annotations

from typing import Any, List

import numpy as np

# The largest SQNR that is told apart from identical answers: float32 that differs at all lies far below, at 150.
CAP_DB = 300.0
# A signal of nothing but zeros has no logarithm; squares of float32 are far larger than this.
LEAST_SIGNAL = 1e-300


def sqnr_db(reference: Any, answers: Any) -> Any:
    """Of each row (N,) float64: 10 log10(sum reference^2 / sum (answers - reference)^2) over its values, in dB.

    Both are (N, ...) of the same shape. Infinity where a row is the same, NaN where one of them holds no number.
    """
    wide = reference.astype(np.float64).reshape(len(reference), -1)
    error = answers.astype(np.float64).reshape(wide.shape) - wide
    signal_power = (wide**2).sum(1)
    noise_power = (error**2).sum(1)

    with np.errstate(divide="ignore", invalid="ignore"):
        ratio_db = 10 * np.log10(np.maximum(signal_power, LEAST_SIGNAL) / noise_power)
    return np.where(noise_power == 0, np.inf, ratio_db)


def capped_sqnr_db(reference: Any, answers: Any) -> List[float]:
    """The same, but from -CAP_DB, where shapes differ or an answer is no number, to CAP_DB, where a row is the same.

    A list: whoever gathers the figures of many batches adds it to another list.
    """
    if reference.shape != answers.shape:
        return [-CAP_DB] * len(reference)
    ratio_db = sqnr_db(reference, answers)
    capped = np.clip(np.where(np.isnan(ratio_db), -CAP_DB, ratio_db), -CAP_DB, CAP_DB)
    return [float(value) for value in capped]
