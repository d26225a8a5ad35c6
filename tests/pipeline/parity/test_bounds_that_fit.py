"""Bounds by what a network that loses nothing may do: its own noise, an interval, logits less their mean."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binom

from pipeline.parity.drift import drift
from pipeline.parity.figures import TestSet, agreement, fill
from pipeline.parity.judge import judge, weigh
from pipeline.parity.own_noise import step_bound
from pipeline.parity.per_image import per_image
from pipeline.precisions import COMPILED, FLOAT16, QUANTISED, REORDERED
from pipeline.stage import SAME_BITS, Drift, StageRow, Tolerance

RNG = np.random.default_rng(0)


@pytest.mark.parametrize(
    ("asked", "own", "bound"),
    [
        (30.0, 45.0, 30.0),
        (30.0, 33.0, 30.0),
        (30.0, 21.6, 18.6),
        (30.0, None, 30.0),
        (15.0, 130.0, 15.0),
        (90.0, 120.0, 90.0),
        (SAME_BITS, 21.6, SAME_BITS),
    ],
)
def test_a_step_is_held_to_what_is_asked_or_to_the_noise_of_the_file_before(
    asked: float, own: float | None, bound: float
) -> None:
    found = step_bound(asked, own)
    assert found.db == pytest.approx(bound)
    assert bool(found.why) == (bound != asked)


def noisy(logits: np.ndarray, ratio_db: float, seed: int) -> np.ndarray:
    """``logits`` with noise of so many dB below each row."""
    noise = np.random.default_rng(seed).standard_normal(logits.shape)
    power = np.linalg.norm(logits, axis=1, keepdims=True) / np.linalg.norm(noise, axis=1, keepdims=True)
    return np.asarray(logits + noise * power * 10 ** (-ratio_db / 20), np.float32)


def answered(tolerance: Tolerance, reference: np.ndarray, before: np.ndarray, logits: np.ndarray) -> StageRow:
    """The row of an engine with these ``logits`` behind a file with those ``before``."""
    labels = reference.argmax(1)
    test_set = TestSet(labels, reference, np.ones(len(labels), np.bool_))
    row = StageRow("engine", "engine", "int8", tolerance=tolerance)
    fill(row, test_set, per_image(logits, labels, reference, before), per_image(before, labels, reference, reference))
    row.verdict, row.reasons = judge(row)
    return row


REFERENCE = np.eye(10, dtype=np.float32)[RNG.integers(0, 10, 1000)] * 30 + RNG.standard_normal((1000, 10)).astype("f4")


@pytest.mark.parametrize("own_db", [17.0, 20.0, 25.0, 31.0])
def test_two_right_roundings_of_one_graph_pass(own_db: float) -> None:
    """Of the same power and independent: there is nothing worse that rounds as well."""
    file, engine = (noisy(REFERENCE, own_db, seed) for seed in (1, 2))
    row = answered(COMPILED, REFERENCE, file, engine)
    assert row.step is not None
    assert row.step.sqnr_db == pytest.approx(own_db - 3, abs=0.3)
    # The bound has no slack at all for noise that is independent throughout; what real engines do is nearer.
    nearer = np.asarray(0.3 * file + 0.7 * engine, np.float32)
    row = answered(COMPILED, REFERENCE, file, nearer)
    assert row.verdict == "pass", row.reasons


@pytest.mark.parametrize("own_db", [17.0, 21.0, 25.0])
def test_an_engine_with_more_noise_than_its_file_fails_and_the_sentence_says_whose_noise(own_db: float) -> None:
    file = noisy(REFERENCE, own_db, 1)
    row = answered(COMPILED, REFERENCE, file, noisy(file, own_db - 4, 2))
    assert row.verdict == "fail"
    assert f"its own noise: it keeps {own_db:.1f} dB of PyTorch" in row.reasons[-1]
    assert f"below its bound of {own_db - 3:.4g} (" in row.reasons[-1]


def test_an_engine_of_a_quiet_file_is_held_to_the_bound_of_ever() -> None:
    file = noisy(REFERENCE, 45, 1)
    assert answered(COMPILED, REFERENCE, file, noisy(file, 31, 2)).verdict == "pass"
    row = answered(COMPILED, REFERENCE, file, noisy(file, 29, 2))
    assert row.verdict == "fail"
    assert "below its bound of 30" in row.reasons[0]


OFFSET = np.full((1000, 1), 300, np.float32)


def test_an_offset_flatters_the_logits_and_not_the_centred_ones() -> None:
    moved = drift(REFERENCE + OFFSET, noisy(REFERENCE, 20, 1) + OFFSET)
    assert moved.sqnr_db is not None
    assert moved.centred_db is not None
    assert moved.sqnr_db > 40
    assert moved.centred_db == pytest.approx(20, abs=1)


def test_what_moves_all_logits_alike_moves_no_answer() -> None:
    moved = drift(REFERENCE, REFERENCE + np.float32(8))
    assert moved.sqnr_db is not None
    assert moved.centred_db is not None
    assert moved.sqnr_db < 5
    assert moved.centred_db > 120
    alike = np.zeros((4, 3), np.float32)
    assert drift(alike, alike + 1).centred_db is None


def test_one_logit_alone_is_held_by_itself() -> None:
    logits = RNG.uniform(1, 2, (100, 1)).astype(np.float32)
    moved = drift(logits, logits * np.float32(1.1))
    assert moved.centred_db == moved.sqnr_db == pytest.approx(20, abs=0.1)


def test_noise_that_only_an_offset_hides_fails() -> None:
    reference = REFERENCE + OFFSET
    file = noisy(REFERENCE, 13, 1) + OFFSET
    row = answered(QUANTISED, reference, reference, file)
    assert row.drift is not None
    assert row.drift.sqnr_db is not None
    assert row.drift.sqnr_db > 30
    assert row.verdict == "fail"
    assert "of the logits less their mean, against PyTorch, is 1" in row.reasons[0]


def test_an_engine_whose_fault_only_an_offset_hides_fails() -> None:
    reference, file = REFERENCE + OFFSET, noisy(REFERENCE, 40, 1) + OFFSET
    row = answered(COMPILED, reference, file, noisy(file - OFFSET, 20, 2) + OFFSET)
    assert row.step is not None
    assert row.step.sqnr_db is not None
    assert row.step.sqnr_db > 30
    assert row.verdict == "fail"
    assert "of the logits less their mean, against the file before, is " in row.reasons[0]


@pytest.mark.parametrize(("tolerance", "ratio_db", "times"), [(REORDERED, 130.0, 10), (FLOAT16, 65.0, 1)])
def test_rounding_in_float_goes_by_the_size_of_the_logits(tolerance: Tolerance, ratio_db: float, times: int) -> None:
    """Ten times larger than what tells the classes apart, an offset takes 20 dB off what is left of it."""
    reference = np.asarray(REFERENCE + times * OFFSET, np.float32)
    row = answered(tolerance, reference, reference, noisy(reference, ratio_db, 1))
    assert row.verdict == "pass", row.reasons


BOUND = 0.97


@pytest.mark.parametrize(
    ("same", "n", "verdict"),
    [
        (900, 900, "pass"),
        (873, 900, "pass"),
        (872, 900, "undecided"),
        (865, 900, "undecided"),
        (850, 900, "fail"),
        (97, 100, "pass"),
        (96, 100, "undecided"),
        (90, 100, "fail"),
        (29, 30, "undecided"),
        (1, 2, "undecided"),
        (9690, 10_000, "undecided"),
        (9650, 10_000, "fail"),
    ],
)
def test_an_agreement_fails_only_where_the_images_prove_it(same: int, n: int, verdict: str) -> None:
    row = StageRow("int8", "quantised", "int8", tolerance=Tolerance(15, 15, BOUND))
    row.drift = row.step = Drift(0.1, 0.1, 0.99, 30.0, same / n, 30.0)
    row.agreement = agreement(same, n, 0.95)
    found, reasons = weigh(row)["agreement"]
    assert found == verdict
    assert bool(reasons) == (verdict != "pass")
    if verdict != "pass":
        assert f"{n - same} of {n} images differ" in reasons[0]


@pytest.mark.parametrize("n", [30, 100, 900, 5000])
def test_what_just_holds_the_agreement_fails_as_often_as_its_confidence_allows(n: int) -> None:
    """Not simulated: the chance of every count that fails, where each image is answered alike with just that chance."""
    same = np.arange(n + 1)
    fails = np.array([agreement(int(count), n, 0.95).upper < BOUND for count in same])
    assert binom.pmf(same, n, BOUND)[fails].sum() <= 0.05


def test_the_bounds_of_a_later_look_are_wider_and_copies_count_once() -> None:
    logits = REFERENCE.copy()
    logits[:40] = np.roll(logits[:40], 1, axis=1)
    labels = REFERENCE.argmax(1)
    distinct = np.ones(1000, np.bool_)
    distinct[500:] = False
    found = []
    for look in (1, 5):
        row = StageRow("int8", "quantised", "int8", tolerance=Tolerance(15, 15, BOUND, look=look))
        fill(row, TestSet(labels, REFERENCE, distinct), per_image(logits, labels, REFERENCE, REFERENCE), None)
        assert row.agreement is not None
        assert (row.agreement.same, row.agreement.n) == (460, 500)
        found.append(row.agreement)
    assert found[1].upper > found[0].upper
    assert found[1].lower < found[0].lower
