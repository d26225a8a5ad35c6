"""What so many images can show at best, and how many more would settle a verdict."""

from __future__ import annotations

import math
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.parity.paired import bounds

if TYPE_CHECKING:
    from numpy.typing import NDArray

# The share of cases in which following the advice settles the verdict: the usual power of a planned experiment.
POWER = 0.8
# Draws of the true rates; the share of decided ones is then known to 0.6 points.
DRAWS = 4000
# Bounds are known to a millionth: beyond so many images they do not shrink.
LARGEST = 10**7
# No test set has more.
MOST_IMAGES = 10**5
LEAST_MEAN = 1e-12
# From so many changed images on their difference is taken as normal.
MANY = 100
# Pseudo-counts of lost, gained and same (Jeffreys 1946, Proceedings of the Royal Society A 186:453).
JEFFREYS = 0.5


def images_needed(n: int, margin: float, confidence: float) -> int | None:
    """How many images could show a drop below ``margin`` where none is lost: ``n`` where these can.

    None where no number could that a bound is known well enough for.
    """
    too_few = n
    enough = n
    while not _can_show(enough, margin, confidence):
        if enough > LARGEST:
            return None
        too_few = enough
        enough *= 2
    while enough - too_few > 1:
        middle = (too_few + enough) // 2
        if _can_show(middle, margin, confidence):
            enough = middle
        else:
            too_few = middle
    return enough


def _can_show(n: int, margin: float, confidence: float) -> bool:
    return bounds(0, 0, n, confidence)[1] < margin


@cache
def more_images(lost: int, gained: int, n: int, margin: float, confidence: float) -> int | None:
    """About how many more images decide the verdict with a chance of POWER; None where no reasonable number does.

    The true rates are not known: they are drawn from what ``n`` images say of them (a Dirichlet distribution, with
    Jeffreys' prior), the new answers from those rates, and old and new ones are judged together against ``margin`` with
    ``confidence``, which is that of the next look. Always the same draws, so always the same answer.
    """
    counts = np.array([lost, gained, n - lost - gained])
    rates = np.random.default_rng(0).dirichlet(counts + JEFFREYS, DRAWS)

    def decides(more: int) -> bool:
        more_lost, more_gained = _drawn(rates, more)
        decided = is_decided(lost + more_lost, gained + more_gained, n + more, margin, 1 - confidence)
        return bool(decided.mean() >= POWER)

    too_few = 0
    more = _about(n / 16)
    while not decides(more):
        too_few = more
        more = _about(2 * more)
        if more > MOST_IMAGES:
            return None
    # To a twentieth: the rates are not known that well by far.
    while more - too_few > max(1, more / 20):
        middle = _about((too_few + more) / 2)
        if middle in {too_few, more}:
            break
        if decides(middle):
            more = middle
        else:
            too_few = middle
    return more


def _about(images: float) -> int:
    """``images`` with two digits, rounded up."""
    unit = 10.0 ** max(0, len(str(int(images))) - 2)
    return max(1, math.ceil(images / unit) * int(unit))


def _drawn(rates: NDArray[np.float64], images: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """How many of ``images`` are lost and gained under each of ``rates`` (N, 3): of lost, gained and same."""
    rng = np.random.default_rng(1)
    lost_rate, gained_rate, same_rate = rates.T
    lost = rng.binomial(images, lost_rate)
    gained = rng.binomial(images - lost, gained_rate / (gained_rate + same_rate))
    return lost, gained


def is_decided(lost: NDArray[Any], gained: NDArray[Any], n: int, margin: float, error: float) -> NDArray[np.bool_]:
    """Whether each pair of counts among ``n`` images is on one side of ``margin``, (N,), nearly as ``bounds`` say."""
    as_good, as_bad = tails(lost, gained, n, margin)
    return np.asarray(np.minimum(as_good, as_bad) <= error)


def tails(
    lost: NDArray[Any], gained: NDArray[Any], n: int, margin: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The chance of a change as good and of one as bad, each (N,), where the drop is exactly ``margin``.

    The rate of gained images is the likeliest one then (Tango 1998, Statistics in Medicine 17:891). Rare changes are
    counts of Poisson, and so their difference is one of Skellam (1946, Journal of the Royal Statistical Society
    109:296).
    """
    from scipy.special import ndtr
    from scipy.stats import skellam

    gained_rate = _likeliest_gained(lost, gained, n, margin)
    fall = lost - gained
    # The half is the continuity correction.
    spread = np.sqrt(n * (2 * gained_rate + margin * (1 - margin)))
    as_good = ndtr((fall + 0.5 - n * margin) / spread)
    as_bad = ndtr((n * margin - fall + 0.5) / spread)

    few = np.flatnonzero(lost + gained < MANY)
    # Of a mean of 0 scipy answers NaN.
    gained_mean = np.maximum(n * gained_rate[few], LEAST_MEAN)
    means = (gained_mean + n * margin, gained_mean)
    as_good[few] = skellam.cdf(fall[few], *means)
    as_bad[few] = skellam.sf(fall[few] - 1, *means)
    return as_good, as_bad


def _likeliest_gained(lost: NDArray[Any], gained: NDArray[Any], n: int, margin: float) -> NDArray[np.float64]:
    """The maximum-likelihood rate of gained images where that of lost ones is larger by ``margin``."""
    # a x^2 + b x + c = 0
    a = 2 * n
    b = (2 * n - lost + gained) * margin - lost - gained
    c = -gained * margin * (1 - margin)
    return np.asarray((np.sqrt(b * b - 4 * a * c) - b) / (2 * a))
