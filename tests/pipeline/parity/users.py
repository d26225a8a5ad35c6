"""Users who look again, as they do: how often a build passes whose true rates are known."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pipeline.parity.advice import more_images
from pipeline.parity.unconditional import lies_below

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    Counts = NDArray[np.int64]
    # The confidence of the bounds at a look.
    Spending = Callable[[int, float], float]

CONFIDENCE = 0.95
MARGIN = 0.01
# Who is told to take more images than this has no such number.
AVAILABLE = 100_000


@dataclass(frozen=True)
class Rates:
    """The true share of images that a build loses, and of those that it gains."""

    lost: float
    gained: float

    def drawn(self, n: Counts, rng: np.random.Generator) -> tuple[Counts, Counts]:
        """How many of ``n`` images, (trials,), are lost and gained."""
        lost = rng.binomial(n, self.lost)
        gained = rng.binomial(n - lost, self.gained / (1 - self.lost))
        return lost, gained


def unspent(_look: int, confidence: float) -> float:
    """Every look as if it were the only one."""
    return confidence


def verdicts(lost: Counts, gained: Counts, n: Counts, confidence: float, margin: float = MARGIN) -> NDArray[np.str_]:
    """The verdict of each (trials,); equal counts are judged once."""
    counts, place = np.unique(np.stack([lost, gained, n]), axis=1, return_inverse=True)
    passed = lies_below(counts[0], counts[1], counts[2], margin, 1 - confidence)
    failed = lies_below(counts[1], counts[0], counts[2], -margin, 1 - confidence)
    words = np.where(passed, "pass", np.where(failed, "fail", "undecided"))
    return np.asarray(words[place.ravel()])


def who_adds(step: int, looks: int, n: int, rates: Rates, trials: int, spending: Spending) -> float:
    """The share of trials that pass at any of ``looks``, the first at ``n`` images and each later at ``step`` more."""
    rng = np.random.default_rng(0)
    lost, gained = rates.drawn(np.full(trials, n), rng)
    looking = np.ones(trials, np.bool_)
    passed = 0
    for look in range(1, looks + 1):
        words = verdicts(lost, gained, np.full(trials, n), spending(look, CONFIDENCE))
        passed += int((looking & (words == "pass")).sum())
        looking &= words == "undecided"
        more_lost, more_gained = rates.drawn(np.full(trials, step), rng)
        lost += more_lost
        gained += more_gained
        n += step
    return passed / trials


def who_keeps_the_best(builds: int, n: int, rates: Rates, trials: int, spending: Spending) -> float:
    """The share of trials in which any of ``builds``, judged one after the other on ``n`` images, passes."""
    rng = np.random.default_rng(0)
    passed = np.zeros(trials, np.bool_)
    for look in range(1, builds + 1):
        lost, gained = rates.drawn(np.full(trials, n), rng)
        passed |= verdicts(lost, gained, np.full(trials, n), spending(look, CONFIDENCE)) == "pass"
    return float(passed.mean())


def who_follows_the_advice(looks: int, n: int, rates: Rates, trials: int, spending: Spending) -> list[Counts]:
    """How many of the trials pass, fail and stay undecided at each of ``looks``: (looks, 3) as lists of three.

    Each later look has as many images more as the report says; whoever has none as many stops.
    """
    rng = np.random.default_rng(0)
    images = np.full(trials, n)
    lost, gained = rates.drawn(images, rng)
    counted = []
    for look in range(1, looks + 1):
        words = verdicts(lost, gained, images, spending(look, CONFIDENCE))
        counted.append(np.array([(words == word).sum() for word in ("pass", "fail", "undecided")]))
        open_ones = np.flatnonzero(words == "undecided")
        next_confidence = spending(look + 1, CONFIDENCE)
        advised = list(_advised(lost[open_ones], gained[open_ones], images[open_ones], next_confidence))
        more = np.array(advised, np.int64)
        goes_on = (more > 0) & (more <= AVAILABLE)
        more = more[goes_on]
        open_ones = open_ones[goes_on]
        more_lost, more_gained = rates.drawn(more, rng)
        lost = lost[open_ones] + more_lost
        gained = gained[open_ones] + more_gained
        images = images[open_ones] + more
    return counted


def _advised(lost: Counts, gained: Counts, n: Counts, confidence: float) -> Iterator[int]:
    """The advice of the report for each, 0 where it has none."""
    for counts in zip(lost.tolist(), gained.tolist(), n.tolist(), strict=True):
        yield more_images(*counts, MARGIN, confidence) or 0
