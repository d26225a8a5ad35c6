"""Drift, intervals and verdicts against values that can be worked out by hand."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from scipy.special import gammaln, xlogy

from pipeline.parity import paired
from pipeline.parity.consistency import contradictions
from pipeline.parity.drift import accuracy, drift
from pipeline.parity.judge import judge, overall
from pipeline.stage import Drift, Drop, Tolerance

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
    verdict, reasons = judge(tolerance, NEAR, drift(reference, other), drop(0, 0, 900), 900)
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
    found = accuracy(logits, np.array([5, 0]))
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
    assert upper == pytest.approx(1 - 0.025 ** (1 / 900))
    assert lower == -upper


RATES = [0.0, 0.0005, 0.002, 0.02, 0.2, 0.5]


@pytest.mark.parametrize("n", [30, 360, 900])
def test_each_bound_covers_at_its_level_for_every_pair_of_rates(n: int) -> None:
    """All outcomes of the trinomial, enumerated exactly; the bounds of a pair are differences of those of its rates."""
    counts = np.arange(n + 1)
    most, nothing = np.array([paired.bounds(k, 0, n, 0.95)[1] for k in counts]), paired.bounds(0, 0, n, 0.95)[1]
    least = nothing - np.array([paired.bounds(0, k, n, 0.95)[1] for k in counts])
    lost, gained = np.meshgrid(counts, counts, indexing="ij")
    possible = lost + gained <= n
    lost, gained = lost[possible], gained[possible]
    upper, lower = most[lost] - least[gained], least[lost] - most[gained]
    assert paired.bounds(3, 2, n, 0.95) == pytest.approx((least[3] - most[2], most[3] - least[2]))
    for p in RATES:
        for q in [rate for rate in RATES if p + rate < 1]:
            share = np.exp(
                gammaln(n + 1) - gammaln(lost + 1) - gammaln(gained + 1) - gammaln(n - lost - gained + 1)
                + xlogy(lost, p) + xlogy(gained, q) + xlogy(n - lost - gained, 1 - p - q)
            )  # fmt: skip
            assert share.sum() == pytest.approx(1)
            assert share[upper >= p - q].sum() >= 0.95 - 1e-9, (p, q)
            assert share[lower <= p - q].sum() >= 0.95 - 1e-9, (p, q)


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
    found, reasons = judge(TOLERANCE, NEAR, NEAR, drop(lost, 0, n), n)
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
    verdict, reasons = judge(TOLERANCE, far, NEAR, drop(0, 0, 900), 900)
    assert verdict == "fail"
    assert part in reasons[0]


def test_a_far_step_fails_as_well() -> None:
    far = Drift(**{**NEAR.__dict__, "sqnr_db": 3.0})
    assert judge(TOLERANCE, NEAR, far, drop(0, 0, 900), 900)[0] == "fail"


def test_how_many_images_would_decide() -> None:
    enough = paired.images_that_decide(drop(0, 0, 200), 200, 0.01, 0.95)
    assert enough is not None
    assert paired.bounds(0, 0, enough, 0.95)[1] < 0.01
    assert paired.images_that_decide(drop(1, 0, 100), 100, 0.01, 0.95) is None


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
