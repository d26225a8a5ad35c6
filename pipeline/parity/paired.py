"""The change in accuracy on the same images, with an interval whose coverage is proven."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from pipeline.stage import Drop

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def paired_drop(before: NDArray[np.bool_], after: NDArray[np.bool_], confidence: float) -> Drop:
    """The drop between two judgements, right or wrong, of the same N images."""
    return drop_of(int((before & ~after).sum()), int((~before & after).sum()), len(before), confidence)


def drop_of(lost: int, gained: int, n: int, confidence: float) -> Drop:
    """The drop where of ``n`` images so many were ``lost`` and ``gained``."""
    lower, upper = bounds(lost, gained, n, confidence)
    return Drop((lost - gained) / n, lower, upper, lost, gained)


# The stages of a build often have the same counts.
@lru_cache(maxsize=1024)
def bounds(lost: int, gained: int, n: int, confidence: float) -> tuple[float, float]:
    """Bounds of the drop P(lost) - P(gained), each of which holds with ``confidence`` by itself, whatever the rates."""
    from pipeline.parity.unconditional import upper_bounds

    upper, turned = upper_bounds([lost, gained], [gained, lost], [n, n], 1 - confidence)
    return -float(turned), float(upper)


def counted_bounds(fewer_right: int, most_lost: int, n: int, confidence: float) -> tuple[float, float]:
    """Bounds of the drop where ``fewer_right`` of ``n`` images are, and at most ``most_lost`` were lost.

    They hold however many were lost, and as many fewer gained.
    """
    import numpy as np

    from pipeline.parity.unconditional import upper_bounds

    lost = np.arange(max(0, fewer_right), max(most_lost, fewer_right, 0) + 1)
    gained = lost - fewer_right
    sizes = np.full(len(lost), n)
    upper = upper_bounds(lost, gained, sizes, 1 - confidence).max()
    turned = upper_bounds(gained, lost, sizes, 1 - confidence).max()
    return -float(turned), float(upper)


def unpaired_bounds(before: int, after: int, n: int, confidence: float) -> tuple[float, float]:
    """Bounds of the drop between ``before`` and ``after`` right answers to ``n`` images, where nothing says which.

    Each rate has its exact bound, and half of the error is given to either (Bonferroni): the result holds however the
    answers go together, and is wide.
    """
    error = (1 - confidence) / 2
    lower = rate_at_least(before, n, error) - rate_at_most(after, n, error)
    upper = rate_at_most(before, n, error) - rate_at_least(after, n, error)
    return lower, upper


def median_bounds(values: NDArray[np.float64], error: float) -> tuple[float, float]:
    """Bounds of the median of what ``values`` (N,) are drawn from, each wrong with a chance of at most ``error``.

    They are order statistics (Hahn and Meeker 1991, Statistical Intervals, chapter 5) and hold for any distribution.
    Of too few values not even the extremes are bounds: then they are -infinity and infinity.
    """
    import numpy as np
    from scipy.stats import binom

    # The chance that all of them lie on one given side of the median.
    if 0.5 ** len(values) > error:
        return -np.inf, np.inf
    ranked = np.sort(values)
    place = int(binom.ppf(error, len(ranked), 0.5))
    return float(ranked[place - 1]), float(ranked[-place])


def rate_at_most(count: int, n: int, error: float) -> float:
    """The upper bound of a rate of which ``count`` of ``n`` were seen (Clopper and Pearson 1934, Biometrika 26:404)."""
    from scipy.special import betaincinv

    return 1.0 if count == n else float(betaincinv(count + 1, n - count, 1 - error))


def rate_at_least(count: int, n: int, error: float) -> float:
    """The lower Clopper-Pearson bound."""
    from scipy.special import betaincinv

    return 0.0 if count == 0 else float(betaincinv(count, n - count + 1, error))
