"""The loss of every class, and of every group of images that the user names, with bounds that hold for all at once."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from pipeline.parity.unconditional import lies_below, upper_bounds
from pipeline.stage import Family, Subset

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pipeline.data.groups import Grouping

    Counts = NDArray[np.int64]
    Flags = NDArray[np.bool_]

# Without --max-class-drop a subset fails that is proven to have lost more than this many times --max-drop...
GROSS = 10.0
# ... and more than this.
LEAST_GROSS = 0.05
# Subsets that failed and are named, at most.
NAMED = 5
# Outcomes that are tried first for the largest bound.
LIKELY = 8
# "Would show" means: so often.
POWER = 0.8


def allowed(max_drop: float, subset_drop: float | None) -> float:
    """The loss of one subset from which on it fails."""
    return max(GROSS * max_drop, LEAST_GROSS) if subset_drop is None else subset_drop


def family(
    grouping: Grouping, lost: Flags, gained: Flags, confidence: float, max_drop: float, subset_drop: float | None
) -> Family:
    """The verdict on all subsets together; ``lost`` and ``gained`` (N,) say which answers changed.

    That one lost more is a claim on all of them, and holds by Holm's procedure (1979, Scand. J. Statist. 6:65). That
    none did is proven where each by itself is (Berger 1982, Technometrics 24:295).
    """
    counted = Counted.of(grouping, lost, gained, 1 - confidence)
    worst_first = counted.worst_first
    limit = allowed(max_drop, subset_drop)
    failed = counted.convicted(limit)
    at_most = counted.at_most()

    verdict = "pass"
    reasons = [f"{_said(subset)}, more than {100 * limit:g}" for subset in failed[:NAMED]]
    if failed:
        verdict = "fail"
    # What nobody asked for need not be proven.
    elif subset_drop is not None and at_most >= limit:
        verdict = "undecided"
        found = f"losses are proven to be at most {100 * at_most:.2f} points each, and {100 * limit:g} are allowed"
        reasons = [f"{found}; more images of each would tell"]
    return Family(
        count=len(worst_first),
        least=int(counted.n.min()),
        most=int(counted.n.max()),
        allowed=limit,
        asked=subset_drop is not None,
        at_most=at_most,
        shows=counted.shows(limit),
        worst=worst_first[0],
        failed=failed[:NAMED],
        verdict=verdict,
        reasons=reasons,
    )


def _said(subset: Subset) -> str:
    return (
        f"{subset.name} fell by {100 * subset.value:.2f} points (between {100 * subset.lower:.2f} and "
        f"{100 * subset.upper:.2f}; {subset.lost} lost and {subset.gained} gained of {subset.n} images)"
    )


@dataclass(frozen=True)
class Counted:
    """Of every subset that has images (K,): its name, how many, and how many lost and gained.

    Many have the same counts: ``outcomes`` (M, 3) are those that differ, and ``outcome`` (K,) is the place of each.
    """

    names: list[str]
    n: Counts
    lost: Counts
    gained: Counts
    error: float
    outcomes: Counts
    outcome: Counts

    @classmethod
    def of(cls, grouping: Grouping, lost: Flags, gained: Flags, error: float) -> Counted:
        """The counts of ``grouping``; each bound by itself is wrong with a chance of ``error`` at most."""
        count = len(grouping.names)
        images = np.bincount(grouping.codes, minlength=count)
        fewer = np.bincount(grouping.codes[lost], minlength=count)
        more = np.bincount(grouping.codes[gained], minlength=count)

        present = np.flatnonzero(images)
        table = np.stack([images, fewer, more], axis=1)[present]
        outcomes, outcome = np.unique(table, axis=0, return_inverse=True)
        names = [grouping.names[int(place)] for place in present]
        n, fewer, more = table.T
        return cls(names, n, fewer, more, error, outcomes, outcome.reshape(-1))

    @cached_property
    def worst_first(self) -> list[Subset]:
        """All of them: first those whose lower bound is highest, of equal ones those that lost most."""
        n, lost, gained = self.outcomes.T
        # Bonferroni: together the bounds of one side are wrong with a chance of at most the error.
        each = self.error / len(self.names)
        upper = upper_bounds(lost, gained, n, each)
        lower = -upper_bounds(gained, lost, n, each)
        found = []
        for name, place in zip(self.names, self.outcome, strict=True):
            images, fewer, more = (int(count) for count in self.outcomes[place])
            value = (fewer - more) / images
            found.append(Subset(name, images, fewer, more, value, float(lower[place]), float(upper[place])))
        return sorted(found, key=lambda subset: (-subset.lower, -subset.value, subset.name))

    def convicted(self, limit: float) -> list[Subset]:
        """Those that are proven to have lost more than ``limit``, the worst first.

        With each that is, fewer are left to share the error (Holm), so that the lower bound that a subset shows, which
        holds for all of them together, may lie below ``limit``.
        """
        n, lost, gained = self.outcomes.T
        suspects = np.flatnonzero((lost - gained) / n > limit)
        proven = np.zeros(len(self.outcomes), np.bool_)
        while len(suspects):
            left = len(self.names) - int(proven[self.outcome].sum())
            # That p - q lies above the limit is that q - p lies below minus the limit.
            found = lies_below(gained[suspects], lost[suspects], n[suspects], -limit, self.error / left)
            if not found.any():
                break
            proven[suspects[found]] = True
            suspects = suspects[~found]
        named = {name for name, place in zip(self.names, self.outcome, strict=True) if proven[place]}
        return [subset for subset in self.worst_first if subset.name in named]

    def at_most(self) -> float:
        """What no subset lost more than: the largest of the upper bounds, of which each is right by itself."""
        n, lost, gained = self.outcomes.T
        # The largest of a few that are likely, and of all others those that are not below it.
        likely = np.argsort(-(lost - gained + 2 * np.sqrt(lost + gained + 1)) / n)[:LIKELY]
        largest = float(upper_bounds(lost[likely], gained[likely], n[likely], self.error).max())
        above = ~lies_below(lost, gained, n, largest, self.error)
        above[likely] = False
        if above.any():
            largest = max(largest, float(upper_bounds(lost[above], gained[above], n[above], self.error).max()))
        return largest

    def shows(self, limit: float) -> float | None:
        """The loss of a subset of median size that fails with a chance of POWER, where it gains nothing; None: none."""
        from scipy.special import betaincinv

        size = int(np.median(self.n))
        each = self.error / len(self.names)

        def fails(lost: int) -> bool:
            return bool(lies_below([0], [lost], [size], -limit, each)[0])

        least = bisect_left(range(size + 1), x=True, key=fails)
        return float(betaincinv(least, size - least + 1, POWER)) if least <= size else None
