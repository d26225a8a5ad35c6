"""Drift, intervals and verdicts against values that can be worked out by hand."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from scipy.stats import beta, binom

from pipeline.parity import paired, per_image
from pipeline.parity.consistency import contradictions
from pipeline.parity.drift import drift
from pipeline.parity.figures import accuracy, agreement
from pipeline.parity.judge import judge, overall
from pipeline.parity.unconditional import lies_below, upper_bounds
from pipeline.stage import Accuracy, Drift, Drop, StageRow, Tolerance

SAME = Drift(0.0, 0.0, 1.0, None, 1.0)


def test_identical_answers_have_no_ratio() -> None:
    logits = np.eye(4, dtype=np.float32)
    assert drift(logits, logits.copy()) == SAME


def test_the_same_bits_are_those_of_every_image() -> None:
    reference = np.random.default_rng(0).normal(size=(1000, 10)).astype(np.float32)
    other = reference.copy()
    other[:490] += np.float32(0.5)
    found = drift(reference, other)
    assert found.sqnr_db is not None
    assert found.sqnr_db < 60
    other = reference.copy()
    other[3, 0] = np.nextafter(other[3, 0], np.float32(np.inf))
    tolerance = Tolerance(sqnr_db=20, step_sqnr_db=300, agreement=0.97)
    verdict, reasons = judged(tolerance, NEAR, drift(reference, other), drop(0, 0, 900), 900)
    assert verdict == "fail"
    assert "and the same bits are asked for" in reasons[-1]


def test_drift_by_hand() -> None:
    before = np.array([[3.0, 4.0], [0.0, 2.0]], np.float32)
    after = np.array([[3.0, 4.5], [2.5, 2.0]], np.float32)
    found = drift(before, after)
    assert found.max_abs == 2.5
    assert found.max_rel == 2.5 / 4
    assert found.top1_agreement == 0.5
    ratios = [10 * np.log10(25 / 0.25), 10 * np.log10(4 / 6.25)]
    assert found.sqnr_db == pytest.approx(np.mean(ratios))
    assert found.cosine == pytest.approx(4 / (2 * np.hypot(2.5, 2)))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_answers_that_are_no_numbers_are_an_error(bad: float) -> None:
    before, after = np.ones((3, 2), np.float32), np.ones((3, 2), np.float32)
    after[1, 0] = bad
    with pytest.raises(ValueError, match="1 of 3 images are answered with NaN"):
        drift(before, after)


def test_accuracy_by_hand() -> None:
    logits = np.arange(12, dtype=np.float32).reshape(2, 6)
    labels = np.array([5, 0])
    found = accuracy(per_image.answers(logits, labels), labels)
    assert (found.top1, found.top5, found.n) == (0.5, 0.5, 2)


def test_the_drop_counts_flips_on_the_same_images() -> None:
    before = np.array([True] * 90 + [False] * 10)
    after = before.copy()
    after[:3] = False
    after[95] = True
    found = paired.paired_drop(before, after, 0.95)
    assert (found.lost, found.gained, found.value) == (3, 1, pytest.approx(0.02))
    assert found.lower < 0.02 < found.upper


def test_no_flip_still_leaves_room_for_a_drop() -> None:
    lower, upper = paired.bounds(0, 0, 900, 0.95)
    # No bound that holds is lower: so many images lose none with a chance of 5 % under a rate of this.
    assert upper == pytest.approx(1 - 0.05 ** (1 / 900), rel=2e-3)
    assert upper >= 1 - 0.05 ** (1 / 900)
    assert lower == -upper


RATES = [0.0, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.2, 0.45]


@pytest.mark.parametrize(("n", "most"), [(30, 0.45), (360, 0.05), (900, 0.02), (10_000, 0.002)])
@pytest.mark.parametrize("margin", [0.001, 0.005, 0.01, 0.02, 0.05])
def test_a_loss_of_the_margin_passes_with_the_nominal_chance_at_most(n: int, most: float, margin: float) -> None:
    """Not simulated: the chance of every outcome that passes, summed for each rate of images gained."""
    gained = np.arange(min(n, int(n * most + 8 * np.sqrt(n * most))) + 1)
    passing = most_that_pass(n, gained, margin, 0.05)
    for rate in [rate for rate in RATES if rate <= most]:
        chance = binom.pmf(gained, n, rate)
        lost_chance = (rate + margin) / (1 - rate)
        passed = (chance * np.where(passing >= 0, binom.cdf(passing, n - gained, lost_chance), 0)).sum()
        assert passed <= 0.05, (rate, passed)


def most_that_pass(n: int, gained: np.ndarray, margin: float, error: float) -> np.ndarray:
    """For each number gained the most images lost of which the bound still lies below the margin; -1: none."""
    low = np.full(len(gained), -1)
    high = np.minimum(gained + int(margin * n), n)
    while (low < high).any():
        middle = (low + high + 1) // 2
        passes = lies_below(np.maximum(middle, 0), gained, np.full(len(gained), n), margin, error) & (middle >= 0)
        low = np.where(passes, middle, low)
        high = np.where(passes, high, middle - 1)
    return low


@pytest.mark.parametrize("error", [0.5, 0.05, 1e-4, 1e-16])
def test_the_short_cut_says_what_the_bound_says(error: float) -> None:
    rng = np.random.default_rng(0)
    n = rng.integers(1, 400, 60)
    lost = rng.binomial(n, 0.1)
    gained = rng.binomial(n - lost, 0.05)
    upper = upper_bounds(lost, gained, n, error)
    assert (upper >= (lost - gained) / n).all() or error == 0.5
    for margin in (-0.02, 0.01, 0.1, 0.3):
        apart = np.abs(upper - margin) > 1e-4 + 1e-3 * np.abs(upper)
        assert (lies_below(lost, gained, n, margin, error) == (upper < margin))[apart].all()


def test_where_nothing_was_gained_and_everything_else_the_ends_are_right() -> None:
    upper = upper_bounds([0, 7, 0, 0], [0, 0, 7, 0], [7, 7, 7, 1], 0.05)
    assert upper[0] == pytest.approx(1 - 0.05 ** (1 / 7), rel=2e-3)
    assert upper[1] == 1
    assert -1 < upper[2] < 0
    assert upper[3] == pytest.approx(0.95, rel=2e-3)


@pytest.mark.parametrize(("rate", "share"), [(0.002, 0.8), (0.005, 0.65), (0.01, 0.6)])
@pytest.mark.parametrize("margin", [0.01])
def test_a_fifth_fewer_images_than_two_exact_intervals_need(rate: float, share: float, margin: float) -> None:
    """For a pass in 4 of 5 trials where as many are lost as gained: next to half of the error for either rate."""

    def power(n: int, passing: np.ndarray) -> float:
        gained = np.arange(len(passing))
        chance = binom.pmf(gained, n, rate) * binom.cdf(passing, n - gained, rate / (1 - rate))
        return float(np.where(passing >= 0, chance, 0).sum())

    def of_two_intervals(n: int, gained: np.ndarray) -> np.ndarray:
        lost = np.arange(int(gained[-1] + margin * n) + 2)
        least = np.where(gained > 0, beta.ppf(0.025, np.maximum(gained, 1), n - gained + 1), 0)
        upper = beta.ppf(0.975, lost + 1, n - lost)[:, None] - least
        return (upper < margin).sum(axis=0) - 1

    def enough(passing: Callable[[int, np.ndarray], np.ndarray]) -> int:
        for n in range(400, 6000, 40):
            gained = np.arange(int(n * rate + 8 * np.sqrt(n * rate) + 8))
            if power(n, passing(n, gained)) >= 0.8:
                return n
        raise AssertionError

    here = enough(lambda n, gained: most_that_pass(n, gained, margin, 0.05))
    assert here <= share * enough(of_two_intervals)


def judged(
    tolerance: Tolerance, near: Drift, step: Drift, change: Drop, n: int, refuted: list[str] | None = None
) -> tuple[str, list[str]]:
    """The verdict on a row with these figures."""
    row = StageRow("engine", "engine", "int8", tolerance=tolerance, drift=near, step=step, drop=change)
    row.accuracy = Accuracy(0.9, 1.0, n)
    row.agreement = agreement(round(n * near.top1_agreement), n, 0.95)
    row.refuted = refuted or []
    return judge(row)


def drop(lost: int, gained: int, n: int) -> Drop:
    lower, upper = paired.bounds(lost, gained, n, 0.95)
    return Drop((lost - gained) / n, lower, upper, lost, gained)


Run = Callable[[np.ndarray], np.ndarray]
TOLERANCE = Tolerance(sqnr_db=20, step_sqnr_db=20, agreement=0.97, drop=0.01)
NEAR = Drift(0.1, 0.1, 0.99, 30.0, 1.0)


@pytest.mark.parametrize(
    ("lost", "n", "verdict"), [(0, 900, "pass"), (0, 200, "undecided"), (9, 900, "undecided"), (40, 900, "fail")]
)
def test_verdicts_follow_the_interval(lost: int, n: int, verdict: str) -> None:
    found, reasons = judged(TOLERANCE, NEAR, NEAR, drop(lost, 0, n), n)
    assert found == verdict
    assert bool(reasons) == (verdict != "pass")


@pytest.mark.parametrize(
    ("change", "part"),
    [
        ({"sqnr_db": 12.0}, "SQNR in dB against PyTorch is 12, below its bound of 20"),
        ({"top1_agreement": 0.9}, "is 0.9, below its bound of 0.97"),
        ({"sqnr_db": float("nan")}, "is nan"),
    ],
)
def test_every_bound_can_fail(change: dict[str, float], part: str) -> None:
    far = Drift(**{**NEAR.__dict__, **change})
    verdict, reasons = judged(TOLERANCE, far, NEAR, drop(0, 0, 900), 900)
    assert verdict == "fail"
    assert part in reasons[0]


def test_a_far_step_fails_as_well() -> None:
    far = Drift(**{**NEAR.__dict__, "sqnr_db": 3.0})
    assert judged(TOLERANCE, NEAR, far, drop(0, 0, 900), 900)[0] == "fail"


def test_the_worst_row_decides() -> None:
    assert overall(["pass", "not_run"]) == "pass"
    assert overall(["pass", "undecided", "fail"]) == "fail"
    assert overall(["pass", "undecided"]) == "undecided"
    assert overall([]) == overall(["not_run"]) == "undecided"


def answering(images: np.ndarray) -> np.ndarray:
    """A runtime without fault: each row by itself."""
    return np.asarray(images.reshape(len(images), -1)[:, :5] ** 2, np.float32)


def mixes_rows(images: np.ndarray) -> np.ndarray:
    return answering(images) + 0.1 * answering(images).mean(0)


def only_batch_one(images: np.ndarray) -> np.ndarray:
    return answering(images) * (1.0 if len(images) == 1 else 1.2)


def depends_on_place(images: np.ndarray) -> np.ndarray:
    return answering(images) * (1 + 0.01 * np.arange(len(images))[:, None]).astype(np.float32)


def loses_ragged_rows(images: np.ndarray) -> np.ndarray:
    logits = answering(images)
    if len(images) == 3:
        logits[-1] = 0
        logits[-2] = 0
    return logits


def never_the_same(images: np.ndarray) -> np.ndarray:
    noise = np.random.default_rng().normal(size=(len(images), 5)).astype(np.float32)
    return answering(images) + 1e-6 * noise


@pytest.mark.parametrize("run", [mixes_rows, only_batch_one, depends_on_place, loses_ragged_rows, never_the_same])
def test_a_runtime_that_contradicts_itself_is_caught(run: Run) -> None:
    images = np.random.default_rng(0).uniform(1, 9, (16, 1, 4, 4)).astype(np.float32)
    assert contradictions(run, images, 30)


SAMPLE = np.random.default_rng(0).uniform(1, 9, (16, 1, 4, 4)).astype(np.float32)
# Each is wrong in one row, and for one kind of batch only.
KINDS: dict[str, Callable[[np.ndarray], bool]] = {
    "permuted rows": lambda x: len(x) == 16 and not np.array_equal(x, SAMPLE) and not np.array_equal(x[0], x[1]),
    "one image in every row": lambda x: len(x) == 16 and np.array_equal(x[0], x[1]),
    **{f"a batch of {size}": lambda x, size=size: len(x) == size for size in (1, 3, 8)},  # type: ignore[misc]
}


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_of_batch_is_asked_for_and_one_wrong_row_is_enough(kind: str) -> None:
    def run(images: np.ndarray) -> np.ndarray:
        logits = answering(images)
        if KINDS[kind](images):
            logits[0] = -logits[0]
        return logits

    found = contradictions(run, SAMPLE, 30)
    assert found
    assert all(sentence.startswith(f"{kind}: ") for sentence in found)


def test_a_sound_runtime_does_not_contradict_itself() -> None:
    images = np.random.default_rng(0).uniform(1, 9, (16, 1, 4, 4)).astype(np.float32)
    assert not contradictions(answering, images, 90)
