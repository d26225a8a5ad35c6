"""Histogram to amax, the magnitude that becomes the top level. A new method is a function and its row in METHODS."""

from __future__ import annotations

from typing import TYPE_CHECKING

from exporters.number_formats import INT8

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    from numpy.typing import NDArray

    from calibration.histogram import Histogram
    from exporters.number_formats import NumberFormat

# Of the values, the share that the percentile keeps.
SHARE = 0.9999
# Bins of the entropy method over [0, amax], and the fewest that a range may span.
LINEAR, FEWEST = 2048, 128


def minmax(histogram: Histogram, number_format: NumberFormat = INT8) -> float:  # noqa: ARG001
    """The largest magnitude seen: nothing is clipped."""
    return histogram.amax


def percentile(histogram: Histogram, number_format: NumberFormat = INT8, share: float = SHARE) -> float:  # noqa: ARG001
    """The magnitude below which 99.99 % of the values lie (Wu et al. 2020, arXiv 2004.09602, section 4.1).

    Where so many of them are 0 it is the largest magnitude: a range of 0 would round all others away.
    """
    import numpy as np

    # A histogram counts what is below its first edge in its total alone.
    zeros = histogram.total - int(histogram.counts.sum())
    below_edge = np.append(zeros, zeros + np.cumsum(histogram.counts))
    index = int(np.searchsorted(below_edge, share * histogram.total))
    if index == 0:
        return histogram.amax
    return min(histogram.amax, float(histogram.edges[index]))


def mse(histogram: Histogram, number_format: NumberFormat = INT8) -> float:
    """The amax with the least squared error between the values and their images among the levels.

    Clipping and rounding of what is usual (Histogram.usual) are weighed against each other (Sung et al. 2015, arXiv
    1511.06488, section 3), over ten octaves below the largest magnitude in steps of 1/16, then finer around the best.
    """
    import numpy as np

    histogram = histogram.usual
    best = histogram.amax
    if not histogram.counts.any():
        return best

    coarse = np.linspace(-10, 0, 161)
    fine = np.linspace(-1, 1, 33) / 16
    for octaves in (coarse, fine):
        candidates = np.minimum(best * 2.0**octaves, histogram.amax)
        errors = squared_errors(histogram, candidates / number_format.largest_level, number_format)
        best = float(candidates[int(np.argmin(errors))])
    return best


def squared_error(histogram: Histogram, scale: float, number_format: NumberFormat = INT8) -> float:
    """The sum of squared errors of all values seen, when rounded to the levels and clipped above the largest."""
    import numpy as np

    return float(squared_errors(histogram, np.array([scale]), number_format)[0])


def even_error(histogram: Histogram, scale: float) -> float:
    """The sum of squared errors that values of these magnitudes have where they lie anywhere between whole levels.

    That is scale^2 / 12 each, and of values that become 0 no more than their square. Values on a grid, as behind a
    pair, may have less by accident.
    """
    import numpy as np

    middles = (histogram.edges[1:] + histogram.edges[:-1]) / 2
    return float(np.sum(histogram.counts * np.minimum(scale**2 / 12, middles**2)))


def squared_errors(
    histogram: Histogram, scales: NDArray[np.float64], number_format: NumberFormat = INT8
) -> NDArray[np.float64]:
    """:func:`squared_error` of each of ``scales`` (n,): values are taken as spread evenly over their bin.

    Of the values x that become level k the error is the sum of (x - k s)^2 = x^2 - 2 k s x + k^2 s^2: three running
    sums over the histogram give it for any level of any scale.
    """
    import numpy as np

    edges = histogram.edges
    middles = (edges[1:] + edges[:-1]) / 2
    counts = histogram.counts.astype(np.float64)

    # A level takes the values that are nearer to it than to its neighbours, the last one everything above.
    levels = number_format.magnitudes()
    upper_bounds = np.append((levels[:-1] + levels[1:]) / 2, np.inf) * scales[:, None]

    def per_level(sums: NDArray[np.float64]) -> NDArray[np.float64]:
        """What of ``sums``, one number a bin, falls to each level of each scale, (n, levels)."""
        running = np.append(0, np.cumsum(sums))
        return np.diff(np.interp(upper_bounds, edges, running), prepend=0)

    # A value that is spread evenly over a bin of width w has w^2 / 12 beside the square of the middle.
    sum_of_squares = float(np.sum(counts * (middles**2 + np.diff(edges) ** 2 / 12)))
    sum_of_values = per_level(counts * middles)
    how_many = per_level(counts)

    images = levels * scales[:, None]
    return np.asarray(sum_of_squares + np.sum(images * (images * how_many - 2 * sum_of_values), axis=1))


def entropy(histogram: Histogram, number_format: NumberFormat = INT8) -> float:
    """The amax that loses least information, as TensorRT's entropy calibrators choose it.

    Migacz, "8-bit Inference with TensorRT" (GTC 2017, pages 19 to 38), as NVIDIA's pytorch-quantization states it: of
    2048 bins over [0, amax] the first i are the range; P has all beyond added to the last of them, Q is their mass in
    128 levels, spread evenly over the filled bins of each; the i of the least KL(P, Q) is chosen, the largest of
    equals. The first bin, where a ReLU puts half of all values, is given the count of the second.

    All i are computed at once: in every array below, row r belongs to the i of ``ends[r]``.
    """
    import numpy as np

    if not histogram.counts.any():
        return histogram.amax

    bins = _linear_bins(histogram)
    bins[0] = bins[1]

    level_count = number_format.largest_level + 1
    ends = np.arange(max(FEWEST, level_count), LINEAR + 1)
    last = bins[ends - 1]
    beyond = bins.sum() - np.cumsum(bins)[ends - 1]

    # The levels divide the first i bins evenly: level k of row r has the bins from starts[r, k] to starts[r, k + 1].
    starts = np.ceil(np.linspace(0, ends, level_count + 1, axis=1)).astype(int)
    mass = np.diff(_running(bins)[starts])
    filled = np.diff(_running(bins > 0)[starts])
    inside = mass.sum(axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        log_q = np.where(mass > 0, np.log(mass / filled), 0)

    # Of P each bin has its own count, the last one all beyond as well: sum of p log p.
    p_log_p = np.cumsum(_xlogx(bins))[ends - 1] - _xlogx(last) + _xlogx(last + beyond)

    # Within a level q is one number, so that only the mass of P there counts: sum of p log q.
    mass_of_p = mass
    mass_of_p[:, -1] += beyond
    p_log_q = np.sum(mass_of_p * log_q, axis=1)

    # KL(P / a, Q / b) = sum of p (log p - log q) / a - log(a / b), where a and b are the sums of P and Q.
    sum_of_p = inside + beyond
    with np.errstate(divide="ignore", invalid="ignore"):
        divergence = (p_log_p - p_log_q) / sum_of_p - np.log(sum_of_p / inside)

    # P has mass in its last bin where Q has none: infinitely far.
    unmatched = (last <= 0) & (beyond > 0)
    divergence[unmatched | ~np.isfinite(divergence)] = np.inf

    # argmin gives the first of equals; read backwards that is the largest i.
    best = len(ends) - 1 - int(np.argmin(divergence[::-1]))
    return float(histogram.amax * ends[best] / LINEAR)


def _linear_bins(histogram: Histogram) -> NDArray[np.float64]:
    """How many values lie in each of 2048 bins of equal width over [0, amax]; those below the first edge in none."""
    import numpy as np

    grid = np.linspace(0, histogram.amax, LINEAR + 1)
    return np.diff(np.interp(grid, histogram.edges, _running(histogram.counts)))


def _running(numbers: NDArray[np.generic]) -> NDArray[np.float64]:
    """The sums of the first 0, 1, 2 … of ``numbers``: the sum from i to j is the difference of two."""
    import numpy as np

    return np.append(0, np.cumsum(numbers))


def _xlogx(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """X log x, 0 where x is 0."""
    import numpy as np

    return np.asarray(values * np.log(np.where(values > 0, values, 1)))


# What every method has to hold (tests/calibration/test_ranges.py asks each row): an empty histogram gives 0, a tensor
# of one magnitude gives that magnitude, and no range is larger than the largest value seen. A method that weighs
# squared errors looks at Histogram.usual, or a few images far too bright decide it.
METHODS: dict[str, Callable[[Histogram, NumberFormat], float]] = {
    "minmax": minmax,
    "percentile": percentile,
    "entropy": entropy,
    "mse": mse,
}
