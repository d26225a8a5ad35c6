"""What images can show at best, and how many more settle a verdict, held against the bounds themselves."""

from __future__ import annotations

import time

import numpy as np
import pytest
from users import Rates, verdicts, who_follows_the_advice

from pipeline.parity import advice
from pipeline.parity.advice import images_needed, is_decided, more_images
from pipeline.parity.looks import confidence_of
from pipeline.parity.paired import bounds

SECOND = confidence_of(2, 0.95)


@pytest.mark.parametrize("margin", [0.003, 0.01, 0.2])
@pytest.mark.parametrize("confidence", [0.5, 0.95, SECOND])
def test_so_many_images_could_and_one_fewer_could_not(margin: float, confidence: float) -> None:
    needed = images_needed(1, margin, confidence)
    assert needed is not None
    assert bounds(0, 0, needed, confidence)[1] < margin
    assert bounds(0, 0, needed - 1, confidence)[1] >= margin
    assert images_needed(needed, margin, confidence) == needed
    assert images_needed(needed + 50, margin, confidence) == needed + 50


@pytest.mark.parametrize("margin", [1e-7, 1e-12, 5e-324])
def test_a_margin_that_no_number_of_images_can_prove_is_no_endless_search(margin: float) -> None:
    assert images_needed(360, margin, 0.95) is None


@pytest.mark.parametrize("n", [360, 900, 10_000])
@pytest.mark.parametrize("confidence", [confidence_of(1, 0.95), SECOND, confidence_of(20, 0.95)])
def test_what_is_decided_is_nearly_what_the_bounds_decide(n: int, confidence: float) -> None:
    rng = np.random.default_rng(n)
    rates = rng.uniform(0, 0.04, (2, 400))
    lost, gained = rng.binomial(n, rates)
    words = verdicts(lost, gained, np.full(400, n), confidence)
    nearly = is_decided(lost, gained, n, 0.01, 1 - confidence)
    other = np.flatnonzero(nearly != (words != "undecided"))
    assert len(other) <= 20
    # Where they differ, a few images more or fewer are decided the other way.
    few = np.arange(-8, 9)
    for place in other:
        more_lost = np.maximum(lost[place] + few, 0), np.full(17, gained[place])
        more_gained = np.full(17, lost[place]), np.maximum(gained[place] + few, 0)
        near = np.concatenate([is_decided(*counts, n, 0.01, 1 - confidence) for counts in (more_lost, more_gained)])
        assert 0 < near.sum() < len(near), (n, lost[place], gained[place])


@pytest.mark.parametrize(("lost", "gained", "n"), [(1, 0, 360), (5, 2, 900), (6, 20, 900)])
def test_the_advice_is_that_of_the_bounds_themselves(
    lost: int, gained: int, n: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same search, but each verdict by the bounds: within a tenth, and the twentieth that the search stops at."""

    def decided(lost: np.ndarray, gained: np.ndarray, size: int, margin: float, error: float) -> np.ndarray:
        return verdicts(lost, gained, np.full(len(lost), size), 1 - error, margin) != "undecided"

    monkeypatch.setattr(advice, "DRAWS", 400)
    nearly = more_images.__wrapped__(lost, gained, n, 0.01, SECOND)
    monkeypatch.setattr(advice, "is_decided", decided)
    exactly = more_images.__wrapped__(lost, gained, n, 0.01, SECOND)
    assert nearly is not None
    assert exactly is not None
    assert exactly / 1.15 <= nearly <= 1.15 * exactly


def test_the_advice_is_quick_and_always_the_same() -> None:
    more_images(2, 0, 361, 0.01, SECOND)  # imports
    started = time.perf_counter()
    first = more_images.__wrapped__(2, 0, 360, 0.01, SECOND)
    assert time.perf_counter() - started < 0.5
    assert first == more_images.__wrapped__(2, 0, 360, 0.01, SECOND)


@pytest.mark.parametrize(("lost", "gained", "n"), [(0, 0, 1), (1, 0, 1), (20, 0, 20), (0, 20, 20), (10, 10, 20)])
@pytest.mark.parametrize("margin", [1e-12, 0.01, 0.5, 0.999])
def test_no_counts_are_beyond_advice(lost: int, gained: int, n: int, margin: float) -> None:
    more = more_images(lost, gained, n, margin, SECOND)
    assert more is None or 0 < more <= 10**5


def test_on_the_margin_itself_there_is_no_advice() -> None:
    assert more_images(200, 100, 10_000, 0.01, SECOND) is None


@pytest.mark.parametrize(("drop", "n"), [(0.001, 360), (0.003, 360), (0.005, 360), (0.003, 900), (0.02, 360)])
def test_whoever_follows_the_advice_has_a_verdict_four_times_in_five(drop: float, n: int) -> None:
    first, second = who_follows_the_advice(2, n, Rates(drop + 0.002, 0.002), 300, confidence_of)
    assert first[2] > 50  # of 300 are undecided at first
    assert second[:2].sum() / second.sum() >= 0.8
