"""How fast several things run, side by side: a machine is never the same twice, so only ratios of one run count."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from pipeline.parity.paired import median_bounds

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

CONFIDENCE = 0.95
# In every round each runs for about as long, and what was in the caches is warmed up again first.
ROUND_SECONDS, MOST_RUNS, WARM_UP = 0.05, 200, 2
LEAST_ROUNDS = 10
# Settled: every ratio is known to this share of itself, either way.
WIDTH = 0.02


@dataclass
class Timing:
    """Seconds of each run, and the median of each round."""

    runs: list[float] = field(default_factory=list)
    rounds: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class Ratio:
    """The median over rounds of one time by another, and the bounds that hold it with CONFIDENCE."""

    value: float
    lower: float
    upper: float

    @property
    def settled(self) -> bool:
        """Whether it is known to WIDTH of itself."""
        return self.upper - self.lower <= 2 * WIDTH * self.value

    def decided(self, at: float) -> bool:
        """Whether it is surely above ``at``, or surely below; at 1 one of the two is surely the faster."""
        return self.lower > at or self.upper < at


def race(
    runs: Sequence[Callable[[], object]], seconds: float, *, decide: float | None = None
) -> tuple[list[Timing], bool]:
    """The timings of all, which take turns, and whether their ratios to the first one settled within ``seconds``.

    ``decide``: it is enough to know whether a ratio is above or below this.
    """
    timings = [Timing() for _ in runs]
    counts = [_count(run) for run in runs]
    until, settled = time.perf_counter() + seconds, False
    while not settled and (time.perf_counter() < until or len(timings[0].rounds) < LEAST_ROUNDS):
        # Whoever is first in one round is last in the next.
        order = range(len(runs)) if len(timings[0].rounds) % 2 else reversed(range(len(runs)))
        for index in order:
            for _ in range(WARM_UP):
                runs[index]()
            timed = [_timed(runs[index]) for _ in range(counts[index])]
            timings[index].runs += timed
            timings[index].rounds.append(float(np.median(timed)))
        enough = len(timings[0].rounds) >= LEAST_ROUNDS
        found = [ratio(each, timings[0]) for each in timings[1:]] if enough else []
        settled = enough and all(each.settled or (decide is not None and each.decided(decide)) for each in found)
    return timings, settled


def ratio(slow: Timing, fast: Timing) -> Ratio:
    """How many times as long one takes as the other, round by round.

    The bounds hold whatever the times are distributed like.
    """
    shares = np.array(slow.rounds) / np.array(fast.rounds)
    return Ratio(float(np.median(shares)), *median_bounds(shares, (1 - CONFIDENCE) / 2))


def _count(run: Callable[[], object]) -> int:
    for _ in range(WARM_UP):
        run()
    return min(max(int(ROUND_SECONDS / _timed(run)), 1), MOST_RUNS)


def _timed(run: Callable[[], object]) -> float:
    begun = time.perf_counter()
    run()
    return time.perf_counter() - begun
