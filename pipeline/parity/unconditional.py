"""The exact unconditional bound of the difference of two paired rates, for many counts at once.

Of n images let L be lost and G gained, with the rates p and q. The upper bound of p - q is Buehler's (1957, J. Amer.
Statist. Assoc. 52:482; for paired rates Lloyd and Moldovan 2007, Statist. Med. 26:3369): the largest difference under
which, for some q, an outcome that looks as good as the one seen, or better, still has the chance `error`. Outcomes are
ordered by the score bound of two Poisson rates, which only says which ones look better; that the bound holds does not
rest on it. The rate q is sought in its own exact interval alone, whose small error is paid for (Berger and Boos 1994,
J. Amer. Statist. Assoc. 89:1012).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Numbers = Sequence[int] | NDArray[np.integer]

# The share of the error that the interval of q may be wrong with.
INTERVAL_SHARE = 1e-3
# Rates q that are tried. Four times as many move no bound by a thousandth of itself.
RATES = 32
# Counts that are computed at once: what bounds the memory.
AT_ONCE = 64
# Parts of the sum below this share of the error are left out.
NEGLIGIBLE = 1e-6
# Of a bound: absolute, and as a share of it. What is left is added to the bound.
ACCURACY = {"xatol": 1e-6, "xrtol": 1e-4, "fatol": 0, "frtol": 0}
# Score bounds of whole counts that differ by less are equal but for rounding.
TIE = 1e-7
# Stands for a chance of 0 where its logarithm is needed.
LEAST_CHANCE = 1e-320


def upper_bounds(lost: Numbers, gained: Numbers, n: Numbers, error: float) -> Floats:
    """The upper bound of p - q for each of the counts (N,), in -1..1, each wrong with a chance of at most ``error``.

    The lower bound for the counts (lost, gained) is minus the upper one for (gained, lost).
    """
    counts = _Counts.of(lost, gained, n, error)
    bounds = np.empty(len(counts.n))
    for chosen in counts.chunks():
        bounds[chosen] = _bounds(counts.take(chosen))
    return bounds


def lies_below(lost: Numbers, gained: Numbers, n: Numbers, margin: float, error: float) -> NDArray[np.bool_]:
    """Whether the upper bound for each of the counts (N,) lies below ``margin``: a tenth of the work of the bound."""
    counts = _Counts.of(lost, gained, n, error)
    below = np.empty(len(counts.n), np.bool_)
    for chosen in counts.chunks():
        some = counts.take(chosen)
        margins = np.full(len(chosen), margin)
        excess = _Terms.of(some).log_excess(margins, np.arange(len(chosen)))
        below[chosen] = (excess < 0) & (some.lost < some.n)
    return below


@dataclass(frozen=True)
class _Counts:
    """Outcomes (N,), the interval of q that goes with each, and the numbers gained that may come of it."""

    error: float
    lost: Floats
    gained: Floats
    n: Floats
    least_rate: Floats
    most_rate: Floats
    first: Floats
    last: Floats

    @classmethod
    def of(cls, lost: Numbers, gained: Numbers, n: Numbers, error: float) -> _Counts:
        from scipy.special import betaincinv, ndtri

        g = np.asarray(gained, np.float64)
        size = np.asarray(n, np.float64)
        # Clopper and Pearson's interval; the maxima only keep those out that `where` does not take.
        tail = error * INTERVAL_SHARE / 2
        least_rate = np.where(g > 0, betaincinv(np.maximum(g, 1), size - g + 1, tail), 0.0)
        most_rate = np.where(g < size, betaincinv(g + 1, np.maximum(size - g, 1), 1 - tail), 1.0)

        # So many standard deviations and counts beyond its mean a binomial number comes with no chance that counts.
        far = -ndtri(tail * NEGLIGIBLE)
        below = size * least_rate - far * np.sqrt(size * least_rate * (1 - least_rate)) - far
        above = size * most_rate + far * np.sqrt(size * most_rate * (1 - most_rate)) + far**2
        first = np.maximum(np.floor(below), 0)
        last = np.minimum(np.ceil(above), size)
        return cls(error, np.asarray(lost, np.float64), g, size, least_rate, most_rate, first, last)

    def chunks(self) -> Iterator[NDArray[np.int64]]:
        """Their places, a few at a time: those that need about as many terms are computed together."""
        order = np.argsort(self.last - self.first)
        for start in range(0, len(order), AT_ONCE):
            yield order[start : start + AT_ONCE]

    def take(self, chosen: NDArray[np.int64]) -> _Counts:
        """Only these."""
        arrays = (self.lost, self.gained, self.n, self.least_rate, self.most_rate, self.first, self.last)
        return _Counts(self.error, *(array[chosen] for array in arrays))


def _bounds(counts: _Counts) -> Floats:
    """The upper bounds for ``counts``, all at once."""
    from scipy.optimize.elementwise import find_root

    terms = _Terms.of(counts)
    # Under the difference -1 nearly all outcomes look as good; under 1 none does, but where every image was lost.
    ends = -np.ones(len(counts.n)), np.ones(len(counts.n))
    found = find_root(terms.log_excess, ends, args=(np.arange(len(counts.n)),), tolerances=ACCURACY)
    # The end of the bracket: a bound may be too large, and never too small.
    return np.where(counts.lost == counts.n, 1.0, np.minimum(found.bracket[1], 1.0))


@dataclass(frozen=True)
class _Terms:
    """What the chance of an outcome that looks as good is the sum of: one term a number gained.

    Where ``gained`` images are gained, outcomes with at most ``most_lost`` of the ``rest`` lost look as good.
    """

    rest: Floats
    gained: Floats
    most_lost: Floats
    log_ways: Floats
    least_rate: Floats
    most_rate: Floats
    goal: float

    @classmethod
    def of(cls, counts: _Counts) -> _Terms:
        """Arrays of (counts, rates q, numbers gained)."""
        from scipy.special import ndtri

        z = -ndtri(counts.error)
        n = counts.n[:, None, None]
        longest = int((counts.last - counts.first).max())
        gained = counts.first[:, None, None] + np.arange(longest + 1)
        seen = _score_bound(counts.lost, counts.gained, z)[:, None, None]
        most_lost = np.minimum(_most_lost(seen, gained, z), n - gained)
        possible = (gained <= counts.last[:, None, None]) & (most_lost >= 0)
        kept = np.where(possible, gained, 0)
        return cls(
            rest=n - kept,
            gained=kept,
            most_lost=np.where(possible, most_lost, 0),
            log_ways=np.where(possible, _log_ways(n, kept), -np.inf),
            least_rate=counts.least_rate[:, None, None],
            most_rate=counts.most_rate[:, None, None],
            goal=counts.error * (1 - INTERVAL_SHARE),
        )

    def log_excess(self, difference: Floats, which: NDArray[np.int64]) -> Floats:
        """Logarithm of the largest chance over q, over the goal, where p = q + ``difference``; of these counts only."""
        from scipy.special import betainc, xlog1py, xlogy

        rows = which.astype(np.int64)
        delta = difference[:, None, None]
        # Both rates together are 1 at most.
        most = np.sqrt(np.maximum(np.minimum(self.most_rate[rows], (1 - delta) / 2), 0))
        least = np.minimum(np.sqrt(self.least_rate[rows]), most)
        # Denser where rates are small, as their deviations are.
        q = (least + (most - least) * np.linspace(0, 1, RATES)[:, None]) ** 2
        p = np.maximum(q + delta, 0)

        rest = self.rest[rows]
        gained_chance = np.exp(self.log_ways[rows] + xlogy(self.gained[rows], q) + xlog1py(rest, -q))
        # Of the images that were not gained each is lost with this chance.
        share = np.minimum(p / np.maximum(1 - q, LEAST_CHANCE), 1)
        chance = np.zeros(gained_chance.shape)
        counted = gained_chance > self.goal * NEGLIGIBLE
        of, up_to, lost_chance = (
            np.broadcast_to(array, counted.shape)[counted] for array in (rest, self.most_lost[rows], share)
        )
        # The binomial distribution function as a beta integral; 1 where all of the rest may be lost.
        at_most = betainc(np.maximum(of - up_to, 1), up_to + 1, 1 - lost_chance)
        chance[counted] = np.where(up_to >= of, 1.0, at_most)
        largest = (gained_chance * chance).sum(axis=2).max(axis=1)
        return np.asarray(np.log(np.maximum(largest, LEAST_CHANCE)) - np.log(self.goal))


def _log_ways(n: Floats, count: Floats) -> Floats:
    """Logarithm of the number of ways to choose ``count`` of ``n``."""
    from scipy.special import gammaln

    return np.asarray(gammaln(n + 1) - gammaln(count + 1) - gammaln(n - count + 1))


def _score_bound(lost: Floats, gained: Floats, z: float) -> Floats:
    """The upper score bound of the difference of two Poisson numbers, at ``z`` standard deviations.

    The order of outcomes: it grows with ``lost`` and falls with ``gained``.
    """
    return np.asarray(lost - gained + z**2 / 2 + z * np.sqrt(lost + gained + z**2 / 4))


def _most_lost(bound: Floats, gained: Floats, z: float) -> Floats:
    """The most images lost of which, next to ``gained``, the score bound is at most ``bound``; -1: there are none."""
    # With u² = lost + gained + z²/4 the score bound is (u + z/2)² - 2 gained.
    square = bound + TIE + 2 * gained
    u = (np.sqrt(np.maximum(4 * square, 0)) - z) / 2
    lost = np.floor(u**2 - z**2 / 4 - gained)
    fits = (u >= z / 2) & (lost >= 0) & (_score_bound(np.maximum(lost, 0), gained, z) <= bound + TIE)
    return np.where(fits, lost, -1.0)
