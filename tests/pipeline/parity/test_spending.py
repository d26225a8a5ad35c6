"""The error that looks share: what each costs, and that whoever looks again is not wrong more often than asked for."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import pytest
from users import MARGIN, Rates, unspent, who_adds, who_follows_the_advice, who_keeps_the_best

from pipeline.parity.advice import images_needed
from pipeline.parity.looks import MOST, confidence_of, share, spent, spent_next
from pipeline.stage import Tolerance

TRIALS = 2000


def at_most(trials: int) -> float:
    """What one in a thousand honest simulations exceeds, where exactly 5 % are wrong."""
    return 0.05 + 3.09 * (0.05 * 0.95 / trials) ** 0.5


def test_the_shares_of_all_looks_add_up_to_the_whole_error_and_none_is_nothing() -> None:
    shares = [Fraction(share(look)) for look in range(1, 10_001)]
    # What is left after k looks is the 1/k of what the first one left.
    left = Fraction(1) - sum(shares)
    assert 0 < left <= Fraction(1, 100_000)
    assert min(shares) > 0
    assert shares == sorted(shares, reverse=True)


@pytest.mark.parametrize("margin", [0.001, 0.01, 0.05])
@pytest.mark.parametrize("confidence", [0.95, 0.99, 0.999])
def test_the_first_look_costs_at_most_four_percent_more_images(margin: float, confidence: float) -> None:
    from scipy.stats import norm

    spent = confidence_of(1, confidence)
    alone = images_needed(1, margin, confidence)
    at_first = images_needed(1, margin, spent)
    assert alone is not None
    assert at_first is not None
    # One image more is what rounding can cost.
    assert at_first <= 1.04 * alone + 1
    # Where some are, the images grow with the square of the quantile.
    assert (norm.ppf(spent) / norm.ppf(confidence)) ** 2 <= 1.04


@pytest.mark.parametrize("confidence", [0.5, 0.95, 0.999999, 1 - 2**-53])
@pytest.mark.parametrize("look", [1, 2, 20, 10**6])
def test_no_look_is_asked_for_more_than_a_double_can_hold(look: int, confidence: float) -> None:
    assert confidence <= confidence_of(look, confidence) <= MOST < 1


def test_a_tolerance_says_what_this_look_and_the_next_one_hold_with() -> None:
    tolerance = Tolerance(sqnr_db=15, step_sqnr_db=15, agreement=0.97, drop=0.01, confidence=0.9)
    assert (spent(tolerance), spent_next(tolerance)) == (0.9, 0.9)
    second = replace(tolerance, look=2)
    assert (spent(second), spent_next(second)) == (confidence_of(2, 0.9), confidence_of(3, 0.9))


# The true drop is exactly the margin: every pass is wrong.
ON_THE_MARGIN = [Rates(MARGIN, 0.0), Rates(MARGIN + 0.002, 0.002)]


@pytest.mark.parametrize("rates", ON_THE_MARGIN)
def test_whoever_adds_a_hundred_images_until_it_passes_is_wrong_as_seldom_as_asked_for(rates: Rates) -> None:
    assert who_adds(100, 20, 360, rates, TRIALS, confidence_of) <= at_most(TRIALS)
    # Without a count of the looks it is wrong: this test can fail.
    assert who_adds(100, 20, 360, rates, TRIALS, unspent) > 0.1


@pytest.mark.parametrize("rates", ON_THE_MARGIN)
def test_whoever_tries_twenty_builds_on_one_test_set_is_wrong_as_seldom_as_asked_for(rates: Rates) -> None:
    assert who_keeps_the_best(20, 900, rates, TRIALS, confidence_of) <= at_most(TRIALS)
    assert who_keeps_the_best(20, 900, rates, TRIALS, unspent) > 0.2


def test_whoever_follows_the_advice_is_wrong_as_seldom_as_asked_for() -> None:
    looks = who_follows_the_advice(2, 360, ON_THE_MARGIN[1], 400, confidence_of)
    passed = sum(words[0] for words in looks)
    assert 0 < passed / 400 <= at_most(400)
