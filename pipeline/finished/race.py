"""How fast several things run, side by side: a machine is never the same twice, so only ratios of one run count."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from pipeline.parity.paired import median_bounds

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    Run = Callable[[], object]

CONFIDENCE = 0.95
# In every round each runs for about so long, in no more runs than this.
ROUND_SECONDS = 0.05
MOST_RUNS = 200
# What was in the caches of the one before is warmed up again first.
WARM_UP = 2
# Rounds before the first look at the bounds.
LEAST_ROUNDS = 10
# The same file loaded twice differs by up to 3 %, by where its memory lies, as long as both copies live: every round
# takes a new one, but of what takes longer than this to be loaded (a compiler at work).
LOAD_SECONDS = 1.0
# Settled: every ratio is known to this share of itself, either way.
WIDTH = 0.02


@dataclass
class Timing:
    """Seconds of each run, and the median of each round; ``one_copy``: it was loaded once, not in each of them."""

    runs: list[float] = field(default_factory=list)
    rounds: list[float] = field(default_factory=list)
    one_copy: bool = False


@dataclass(frozen=True)
class Ratio:
    """The median over rounds of one time by another, and the bounds that hold it with the confidence asked for."""

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
    loads: Sequence[Callable[[], Run]],
    seconds: float,
    *,
    decide: float | None = None,
    confidence: float = CONFIDENCE,
) -> tuple[list[Timing], bool]:
    """The timings of all, which take turns, and whether their ratios to the first one settled within ``seconds``.

    ``loads``: each gives what is timed, loaded anew.
    ``decide``: it is enough to know whether a ratio is above or below this, with ``confidence``. It is looked after 10,
    20, 40, 80 … rounds and when the time is up, each time with less of the error (see ratio).
    """
    entrants = [_entrant(load) for load in loads]
    timings = [entrant.timing for entrant in entrants]
    deadline = time.perf_counter() + seconds
    next_look = LEAST_ROUNDS
    settled = False
    while True:
        round_number = 1 + len(timings[0].rounds)
        # Whoever is first in one round is last in the next.
        order = entrants if round_number % 2 else entrants[::-1]
        for entrant in order:
            entrant.round()

        # With fewer rounds not even their extremes are bounds that hold.
        bounds_hold = round_number >= LEAST_ROUNDS and 0.5**round_number <= _error(round_number, confidence)
        time_is_up = bounds_hold and time.perf_counter() >= deadline
        if bounds_hold and (round_number == next_look or time_is_up):
            ratios = [ratio(timing, timings[0], confidence) for timing in timings[1:]]
            settled = all(_enough(ratio_so_far, decide) for ratio_so_far in ratios)
        if settled or time_is_up:
            return timings, settled
        if round_number == next_look:
            next_look *= 2


def _enough(ratio_so_far: Ratio, decide: float | None) -> bool:
    """Whether the ratio is known as well as was asked for."""
    return ratio_so_far.settled or (decide is not None and ratio_so_far.decided(decide))


def ratio(slow: Timing, fast: Timing, confidence: float = CONFIDENCE) -> Ratio:
    """How many times as long one takes as the other, round by round.

    The bounds hold whatever the times are distributed like, and however often ``race`` looked before: of the error
    1 - ``confidence`` look k has the share 1/2^k, and all looks together no more than the whole (Bonferroni).
    """
    ratios = np.array(slow.rounds) / np.array(fast.rounds)
    lower, upper = median_bounds(ratios, _error(len(ratios), confidence))
    return Ratio(float(np.median(ratios)), lower, upper)


def _error(rounds: int, confidence: float) -> float:
    """The chance that either bound may be wrong after so many rounds; between two looks it is that of the next one."""
    look = 1 + ((rounds - 1) // LEAST_ROUNDS).bit_length()
    return (1 - confidence) / 2 * 0.5**look


@dataclass(frozen=True)
class _Entrant:
    """``count`` runs in every round of a new copy, or of the one that is ``kept``."""

    load: Callable[[], Run]
    count: int
    kept: Run | None
    timing: Timing

    def round(self) -> None:
        """One round of it, added to its timing."""
        run = self.kept if self.kept is not None else self.load()
        for _ in range(WARM_UP):
            run()
        seconds = [_timed(run) for _ in range(self.count)]
        self.timing.runs += seconds
        self.timing.rounds.append(float(np.median(seconds)))


def _entrant(load: Callable[[], Run]) -> _Entrant:
    """What ``load`` gives, with as many runs a round as ROUND_SECONDS hold."""
    load()()  # what Python imports for it is no part of loading it

    # torch.compile compiles at the first run: that counts as loading, but for the time of a plain run.
    begun = time.perf_counter()
    run = load()
    run()
    loaded_and_ran = time.perf_counter() - begun
    one_run = _timed(run)
    loading = loaded_and_ran - one_run

    kept = run if loading > LOAD_SECONDS else None
    count = min(max(int(ROUND_SECONDS / one_run), 1), MOST_RUNS)
    return _Entrant(load, count, kept, Timing(one_copy=kept is not None))


def _timed(run: Run) -> float:
    """Seconds that one run takes."""
    begun = time.perf_counter()
    run()
    return time.perf_counter() - begun
