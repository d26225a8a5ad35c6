"""How often a class is failed wrongly, and how often rightly: 10,000 builds for each number of classes.

`python -m benchmarks.subsets` prints the tables of docs/parity.md, section "By class and by group".
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

import numpy as np

from pipeline.parity.unconditional import lies_below

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Counts = NDArray[np.int64]

CONFIDENCE = 0.95
CLASSES = (10, 100, 1000)
# Images of every class where all lose just what is allowed, and the share of answers that turn right in each.
SIZES = (50, 500)
GAINED = (0.0, 0.01, 0.05)
# The class at fault, all images, and what other classes lose and gain.
AT_FAULT = 1200
IMAGES = 120_000
LOSS = 0.1
OTHERS = 0.005
# As --max-class-drop asks, and as --max-drop does by default.
ALLOWED = 0.05
MAX_DROP = 0.01


def least_that_fails(n: int, most_gained: int, allowed: float, error: float) -> Counts:
    """For each number of images gained the fewest lost that fail a class of ``n``; n + 1 where none do."""
    gained = np.arange(most_gained + 1)
    size = np.full(len(gained), n)
    low = np.zeros(len(gained), np.int64)
    high = np.full(len(gained), n + 1)
    while (low < high).any():
        middle = (low + high) // 2
        fails = lies_below(gained, np.minimum(middle, n), size, -allowed, error) & (middle <= n)
        high = np.where(fails, middle, high)
        low = np.where(fails, low, middle + 1)
    return low


def wrongly_failed(classes: int, n: int, gained_rate: float, allowed: float, builds: int) -> float:
    """The share of builds of which some class fails, where every class loses just what is allowed."""
    rng = np.random.default_rng(0)
    rates = [allowed + gained_rate, gained_rate, 1 - allowed - 2 * gained_rate]
    least = least_that_fails(n, n, allowed, (1 - CONFIDENCE) / classes)
    wrong = 0
    for _ in range(builds):
        lost, gained, _ = rng.multinomial(n, rates, classes).T
        wrong += bool((lost >= least[gained]).any())
    return wrong / builds


def rightly_failed(classes: int, builds: int) -> tuple[float, float]:
    """The shares of builds whose class at fault fails, and of these the share that passes on the average alone."""
    rng = np.random.default_rng(0)
    size = AT_FAULT
    least = least_that_fails(size, size // 10, ALLOWED, (1 - CONFIDENCE) / classes)
    all_lost = []
    all_gained = []
    for _ in range(builds):
        lost, gained, _ = rng.multinomial(size, [LOSS + OTHERS, OTHERS, 1 - LOSS - 2 * OTHERS])
        others_lost, others_gained, _ = rng.multinomial(IMAGES - size, [OTHERS, OTHERS, 1 - 2 * OTHERS])
        if lost >= least[gained]:
            all_lost.append(lost + others_lost)
            all_gained.append(gained + others_gained)
    failed = len(all_lost)
    passes = lies_below(all_lost, all_gained, [IMAGES] * failed, MAX_DROP, 1 - CONFIDENCE)
    return failed / builds, float(passes.mean())


def main() -> None:
    """Both tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--builds", type=int, default=10_000)
    arguments = parser.parse_args()
    for classes in CLASSES:
        for n in SIZES:
            shares = [wrongly_failed(classes, n, gained, 10 * MAX_DROP, arguments.builds) for gained in GAINED]
            print(f"| {classes} | {n} | {' | '.join(f'{100 * share:.2f}' for share in shares)} |", flush=True)
    for classes in CLASSES:
        failed, passes = rightly_failed(classes, arguments.builds)
        print(f"| {classes} | {100 * failed:.1f} | {100 * passes:.1f} |", flush=True)


if __name__ == "__main__":
    main()
