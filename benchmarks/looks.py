"""Users who look again: how often a build passes wrongly, and how good the advice of the report is.

    python -m benchmarks.looks [--trials 10000]

Prints Markdown tables: wrong passes of builds whose true drop is exactly the margin, with the error spent over the
looks and without; then what becomes of those who take as many more images as they are told to; then what looks cost.
The users are those of tests/pipeline/parity/users.py.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from pathlib import Path
from typing import Any

from pipeline.parity.advice import images_needed
from pipeline.parity.looks import confidence_of

TESTS = Path(__file__).resolve().parent.parent / "tests" / "pipeline" / "parity"
GAINED = (0.0, 0.002, 0.01)
DROPS = (0.001, 0.003, 0.005, 0.008, 0.012, 0.015, 0.02)
SIZES = (360, 900, 3000)
# Of those who follow advice there is one for so many others.
FEWER = 10


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--trials", type=int, default=10_000)
    trials = parser.parse_args().trials

    # The tests are no package.
    sys.path.insert(0, str(TESTS))
    users = importlib.import_module("users")
    print_wrong_passes(users, trials)
    print_advice(users, trials // FEWER)
    print_costs()


def print_wrong_passes(users: Any, trials: int) -> None:
    """Of builds on the margin itself, by the rate of gained images."""
    print("| wrong passes, % | gained, % | error spent over the looks | every look as the first |\n|---|---|---|---|")
    for gained in GAINED:
        rates = users.Rates(users.MARGIN + gained, gained)
        for who, share_of in USERS.items():
            cells = []
            for spending in (confidence_of, users.unspent):
                share = share_of(users, rates, trials, spending)
                cells.append(f"{100 * share:.2f}")
            print(f"| {who} | {100 * gained:g} | {cells[0]} | {cells[1]} |", flush=True)


def as_advised(users: Any, rates: Any, trials: int, spending: Any) -> float:
    """The share that passes at any of three looks, of fewer trials: each outcome has advice of its own."""
    looks = users.who_follows_the_advice(3, 900, rates, trials // FEWER, spending)
    return float(sum(words[0] for words in looks) / looks[0].sum())


def a_hundred_more(users: Any, rates: Any, trials: int, spending: Any) -> float:
    """The share that passes at any of twenty looks."""
    return float(users.who_adds(100, 20, 360, rates, trials, spending))


def the_best_of_twenty(users: Any, rates: Any, trials: int, spending: Any) -> float:
    """The share in which any of twenty builds passes."""
    return float(users.who_keeps_the_best(20, 900, rates, trials, spending))


USERS = {
    "100 more each time, 20 looks from 360": a_hundred_more,
    "the best of 20 builds on 900": the_best_of_twenty,
    "as advised, 3 looks from 900": as_advised,
}


def print_advice(users: Any, trials: int) -> None:
    """Of those undecided at the first look, how many have a verdict after the second."""
    print("\n| images | true drop, points | undecided at first, % | of these then decided, % |\n|---|---|---|---|")
    for n in SIZES:
        for drop in DROPS:
            rates = users.Rates(drop + 0.002, 0.002)
            first, second = users.who_follows_the_advice(2, n, rates, trials, confidence_of)
            told = second.sum()
            decided = f"{100 * second[:2].sum() / told:.0f} of {told}" if told else "–"
            print(f"| {n} | {100 * drop:g} | {100 * first[2] / trials:.1f} | {decided} |", flush=True)


def print_costs() -> None:
    """How many images could show a drop below one point where none is lost."""
    print("\n| look | images that could show one point | alone |\n|---|---|---|")
    alone = images_needed(1, 0.01, 0.95)
    for look in (1, 2, 3, 5, 10, 20):
        print(f"| {look} | {images_needed(1, 0.01, confidence_of(look, 0.95))} | {alone} |")


if __name__ == "__main__":
    main()
