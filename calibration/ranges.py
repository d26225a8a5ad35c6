"""Histogram to amax, the magnitude that becomes the top level. A new method is a function and its row in METHODS."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    from numpy.typing import NDArray

    from calibration.histogram import Histogram

LEVELS, E4M3 = 127, 448
SHARE = 0.9999  # of the values that the percentile keeps
LINEAR, FEWEST = 2048, 128  # bins of the entropy method over [0, amax], and the fewest that a range may span


def minmax(histogram: Histogram, levels: int = LEVELS) -> float:  # noqa: ARG001
    """The largest magnitude seen: nothing is clipped."""
    return histogram.amax


def percentile(histogram: Histogram, levels: int = LEVELS, share: float = SHARE) -> float:  # noqa: ARG001
    """The magnitude below which 99.99 % of the values lie (Wu et al. 2020, arXiv 2004.09602, section 4.1).

    Where so many of them are 0 it is the largest magnitude: a range of 0 would round all others away.
    """
    import numpy as np

    zeros = histogram.total - int(histogram.counts.sum())
    below = np.append(zeros, zeros + np.cumsum(histogram.counts))
    index = int(np.searchsorted(below, share * histogram.total))
    return min(histogram.amax, float(histogram.edges[index])) if index else histogram.amax


def mse(histogram: Histogram, levels: int = LEVELS) -> float:
    """The amax with the least squared error between the values and their images on the grid up to ``levels``.

    Clipping and rounding of what is usual (Histogram.usual) are weighed against each other (Sung et al. 2015, arXiv
    1511.06488, section 3), over ten octaves below the largest magnitude in steps of 1/16, then finer around the best.
    """
    import numpy as np

    histogram = histogram.usual
    best = histogram.amax
    if not histogram.counts.any():
        return best
    for octaves in (np.linspace(-10, 0, 161), np.linspace(-1, 1, 33) / 16):
        candidates = np.minimum(best * 2.0**octaves, histogram.amax)
        best = float(candidates[int(np.argmin(squared_errors(histogram, candidates / levels, levels)))])
    return best


def squared_error(histogram: Histogram, scale: float, levels: int = LEVELS) -> float:
    """The sum of squared errors of all values seen, when rounded to the grid up to ``levels`` and clipped above."""
    import numpy as np

    return float(squared_errors(histogram, np.array([scale]), levels)[0])


def squared_errors(histogram: Histogram, scales: NDArray[np.float64], top: int = LEVELS) -> NDArray[np.float64]:
    """:func:`squared_error` of each of ``scales`` (n,): values are taken as spread evenly over their bin.

    Of the values x that become level k the error is the sum of (x - k s)^2 = x^2 - 2 k s x + k^2 s^2: three running
    sums over the histogram give it for any level of any scale. Levels are 0, 1 … ``top``, for E4M3 its own numbers.
    """
    import numpy as np

    edges, levels = histogram.edges, _levels(top)
    middles, counts = (edges[1:] + edges[:-1]) / 2, histogram.counts.astype(np.float64)
    # A level takes the values that are nearer to it than to its neighbours, the last one everything above.
    bounds = np.append((levels[:-1] + levels[1:]) / 2, np.inf) * scales[:, None]

    def per_level(sums: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.diff(np.interp(bounds, edges, np.append(0, np.cumsum(sums))), prepend=0)

    squares = float(np.sum(counts * (middles**2 + np.diff(edges) ** 2 / 12)))
    firsts, zeroths = per_level(counts * middles), per_level(counts)
    values = levels * scales[:, None]
    return np.asarray(squares + np.sum(values * (values * zeroths - 2 * firsts), axis=1))


def _levels(top: int) -> NDArray[np.float64]:
    import ml_dtypes
    import numpy as np

    if top != E4M3:
        return np.arange(top + 1, dtype=np.float64)
    # Its codes in ascending order; the one after them is NaN (Micikevicius et al. 2022, arXiv 2209.05433, table 1).
    return np.asarray(np.arange(0x7F, dtype=np.uint8).view(ml_dtypes.float8_e4m3fn), np.float64)


def entropy(histogram: Histogram, levels: int = LEVELS) -> float:
    """The amax that loses least information, as TensorRT's entropy calibrators choose it.

    Migacz, "8-bit Inference with TensorRT" (GTC 2017, pages 19 to 38), as NVIDIA's pytorch-quantization states it: of
    2048 bins over [0, amax] the first i are the range; P has all beyond added to the last of them, Q is their mass in
    128 levels, spread evenly over the filled bins of each; the i of the least KL(P, Q) is chosen, the largest of
    equals. The first bin, where a ReLU puts half of all values, is given the count of the second.
    """
    import numpy as np

    if not histogram.counts.any():
        return histogram.amax
    grid = np.linspace(0, histogram.amax, LINEAR + 1)
    bins = np.diff(np.interp(grid, histogram.edges, np.append(0, np.cumsum(histogram.counts))))
    bins[0] = bins[1]
    ends = np.arange(max(FEWEST, levels + 1), LINEAR + 1)
    beyond = bins.sum() - np.cumsum(bins)[ends - 1]
    last = bins[ends - 1]
    starts = np.ceil(np.linspace(0, ends, levels + 2, axis=1)).astype(int)
    mass, filled = (np.diff(np.append(0, np.cumsum(each))[starts]) for each in (bins, bins > 0))
    inside = mass.sum(axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        logarithms = np.where(mass > 0, np.log(mass / filled), 0)
    mass[:, -1] += beyond
    own = np.cumsum(_xlogx(bins))[ends - 1] - _xlogx(last) + _xlogx(last + beyond)
    total = inside + beyond
    with np.errstate(divide="ignore", invalid="ignore"):
        divergence = (own - np.sum(mass * logarithms, axis=1)) / total - np.log(total / inside)
    # P has mass in its last bin where Q has none: infinitely far.
    divergence[~((last > 0) | (beyond <= 0)) | ~np.isfinite(divergence)] = np.inf
    best = len(ends) - 1 - int(np.argmin(divergence[::-1]))
    return float(histogram.amax * ends[best] / LINEAR)


def _xlogx(values: NDArray[np.float64]) -> NDArray[np.float64]:
    import numpy as np

    return np.asarray(values * np.log(np.where(values > 0, values, 1)))


METHODS: dict[str, Callable[[Histogram, int], float]] = {
    "minmax": minmax,
    "percentile": percentile,
    "entropy": entropy,
    "mse": mse,
}
