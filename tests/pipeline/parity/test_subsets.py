"""The verdict by class and by group: next to exact sums of chances, and to what scipy and statsmodels say."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binom, binomtest
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import proportion_confint

from benchmarks.subsets import least_that_fails
from pipeline.data.groups import Grouping
from pipeline.parity import per_image
from pipeline.parity.paired import rate_at_least, rate_at_most
from pipeline.parity.spread import calibration_error, spread
from pipeline.parity.subsets import Counted, allowed, family
from pipeline.parity.unconditional import lies_below
from pipeline.stage import Family, Tolerance

NAMES = [f"class {number}" for number in range(1000)]


def judged(counts: list[tuple[int, int, int]], subset_drop: float | None = None, confidence: float = 0.95) -> Family:
    """The family of classes with these numbers of images, lost and gained."""
    codes = np.repeat(np.arange(len(counts)), [n for n, _, _ in counts])
    lost = np.concatenate([np.arange(n) < fewer for n, fewer, _ in counts])
    gained = np.concatenate([np.arange(n) >= n - more for n, _, more in counts])
    return family(Grouping(NAMES[: len(counts)], codes), lost, gained, confidence, 0.01, subset_drop)


def test_a_dead_class_fails_under_an_average_that_passes() -> None:
    healthy = [(50, 0, 0)] * 989
    found = judged([*healthy, *[(50, 50, 0)] * 11])
    assert found.verdict == "fail"
    assert len(found.failed) == 5
    assert all(subset.value == 1 for subset in found.failed)
    assert found.worst.name == "class 989"
    assert "class 989 fell by 100.00 points" in found.reasons[0]


def test_without_a_margin_what_is_not_proven_does_not_decide() -> None:
    found = judged([(50, 1, 0)] * 10)
    assert (found.verdict, found.reasons, found.allowed, found.asked) == ("pass", [], 0.1, False)
    assert found.at_most > 0.05
    assert (found.least, found.most, found.count) == (50, 50, 10)


@pytest.mark.parametrize(
    ("n", "lost", "verdict"), [(50, 0, "undecided"), (100, 0, "pass"), (1000, 20, "pass"), (1000, 140, "fail")]
)
def test_a_margin_that_was_asked_for_must_be_proven_for_each_class(n: int, lost: int, verdict: str) -> None:
    found = judged([(n, 0, 0)] * 9 + [(n, lost, 0)], subset_drop=0.05)
    assert found.verdict == verdict
    assert bool(found.reasons) == (verdict != "pass")


def test_the_gross_limit_is_ten_times_the_margin_and_five_points_at_least() -> None:
    assert allowed(0.01, None) == pytest.approx(0.1)
    assert allowed(0.001, None) == 0.05
    assert allowed(0.01, 0.02) == 0.02


def test_a_subset_without_images_is_none() -> None:
    grouping = Grouping(["there", "empty", "other"], np.array([0, 0, 2]))
    nothing = np.zeros(3, np.bool_)
    found = family(grouping, nothing, nothing, 0.95, 0.01, None)
    assert (found.count, found.least, found.most) == (2, 1, 2)


@pytest.mark.parametrize(("classes", "n"), [(10, 50), (10, 200), (100, 50), (1000, 50)])
@pytest.mark.parametrize("gained_rate", [0.0, 0.02, 0.2])
def test_wrongly_failed_builds_are_no_more_than_the_error(classes: int, n: int, gained_rate: float) -> None:
    """Every class loses just what is allowed; the chance that one of them fails, summed and not simulated."""
    least = least_that_fails(n, n, 0.1, 0.05 / classes)
    gained = np.arange(n + 1)
    of_rest = np.where(gained < n, (0.1 + gained_rate) / (1 - gained_rate), 0)
    one = (binom.pmf(gained, n, gained_rate) * binom.sf(least - 1, n - gained, of_rest)).sum()
    assert 1 - (1 - one) ** classes <= 0.05


@pytest.mark.parametrize("classes", [10, 100, 1000])
def test_a_class_that_loses_ten_points_is_found(classes: int) -> None:
    """Among 1,200 of its images, where five points are allowed; as in benchmarks/subsets.py."""
    least = least_that_fails(1200, 80, 0.05, 0.05 / classes)
    gained = np.arange(81)
    found = (binom.pmf(gained, 1200, 0.005) * binom.sf(least - 1, 1200 - gained, 0.105 / 0.995)).sum()
    assert found >= 0.95


def test_convicted_as_statsmodels_does_by_holm() -> None:
    rng = np.random.default_rng(0)
    n = rng.integers(40, 120, 60)
    lost = np.concatenate([rng.binomial(n[:50], 0.05), rng.binomial(n[50:], 0.45)])
    gained = rng.binomial(n - lost, 0.02)
    found = judged(list(zip(n.tolist(), lost.tolist(), gained.tolist(), strict=True)), subset_drop=0.1)
    # About the smallest error at which a class by itself is convicted.
    p_values = np.ones(60)
    for error in np.geomspace(0.05, 1e-9, 100):
        p_values[lies_below(gained, lost, n, -0.1, error)] = error
    by_statsmodels, _, _, _ = multipletests(p_values, alpha=0.05, method="holm")
    counted = Counted.of(
        Grouping(NAMES[:60], np.repeat(np.arange(60), n)),
        np.concatenate([np.arange(images) < fewer for images, fewer in zip(n, lost, strict=True)]),
        np.concatenate([np.arange(images) >= images - more for images, more in zip(n, gained, strict=True)]),
        0.05,
    )
    convicted = {subset.name for subset in counted.convicted(0.1)}
    assert convicted == {NAMES[place] for place in np.flatnonzero(by_statsmodels)}
    assert 3 < len(convicted) < 60
    assert found.verdict == "fail"


def test_what_would_show_is_found_four_times_in_five() -> None:
    found = judged([(200, 0, 0)] * 10)
    assert found.shows is not None
    least = int(least_that_fails(200, 0, 0.1, 0.005)[0])
    assert binom.sf(least - 1, 200, found.shows) == pytest.approx(0.8, abs=1e-6)
    assert judged([(3, 0, 0)] * 1000).shows is None


@pytest.mark.parametrize(("count", "n"), [(0, 50), (3, 50), (50, 50), (7, 10_000)])
def test_rates_are_those_of_scipy_and_statsmodels(count: int, n: int) -> None:
    exact = binomtest(count, n).proportion_ci(0.9, method="exact")
    assert (rate_at_least(count, n, 0.05), rate_at_most(count, n, 0.05)) == pytest.approx((exact.low, exact.high))
    assert proportion_confint(count, n, 0.1, method="beta") == pytest.approx((exact.low, exact.high))


@pytest.mark.parametrize("count", [1, 50_000])
def test_any_number_of_groups_and_any_confidence(count: int) -> None:
    codes = np.arange(50_000) % count
    lost = np.arange(50_000) % 100 == 0
    gained = ~lost & (np.arange(50_000) % 200 == 1)
    names = [str(number) for number in range(count)]
    for confidence in (0.5, 0.95, 1 - 2**-53):
        found = family(Grouping(names, codes), lost, gained, confidence, 0.01, None)
        assert found.count == count
        assert found.verdict == "pass"
        assert -1 <= found.worst.lower <= found.worst.value <= found.worst.upper <= 1


def test_what_the_median_hides() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 10, 1000)
    reference = (5 * np.eye(10)[labels] + rng.normal(size=(1000, 10))).astype(np.float32)
    answered = reference + 0.01 * rng.normal(size=(1000, 10)).astype(np.float32)
    answered[:8] += 100 * rng.normal(size=(8, 10)).astype(np.float32)
    kept = per_image.per_image(answered, labels, reference, reference)
    before = per_image.answers(reference, labels)
    tolerance = Tolerance(15, 15, 0.97, 0.01, threshold=0.9)
    found = spread(before, kept.answers, kept.drift.sqnr_db, labels, np.arange(1000), str, tolerance)
    assert np.median(kept.drift.sqnr_db) > 40
    assert found.worst_db is not None
    assert (found.below, found.worst_db > 30) == (8, True)
    assert found.below_upper == pytest.approx(binomtest(8, 1000).proportion_ci(0.9, method="exact").high)
    assert {noisy.image for noisy in found.noisiest} <= set(range(8))
    assert found.noisiest[0].name == str(found.noisiest[0].image)
    assert found.crossing is not None
    assert found.crossing.lost + found.crossing.gained == pytest.approx(1000 * found.crossing.share)


@pytest.mark.parametrize("shrink", [0.5, 0.85])
def test_confidence_that_shrinks_is_seen_though_every_answer_agrees(shrink: float) -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 10, 2000)
    reference = (4 * np.eye(10)[labels] + rng.normal(size=(2000, 10))).astype(np.float32)
    shrunk = (shrink * reference).astype(np.float32)
    kept = per_image.per_image(shrunk, labels, reference, reference)
    before = per_image.answers(reference, labels)
    tolerance = Tolerance(15, 15, 0.97, 0.01, threshold=0.9)
    found = spread(before, kept.answers, kept.drift.sqnr_db, labels, np.arange(2000), str, tolerance)
    assert (kept.answers.top1 == before.top1).all()
    assert found.lead[1] == pytest.approx(shrink * found.lead[0], rel=1e-3)
    assert found.crossing is not None
    assert (found.crossing.gained, found.crossing.lower > 0.02) == (0, True)
    assert found.calibration_error[0] != pytest.approx(found.calibration_error[1], abs=0.01)


def test_thecalibration_error_by_hand_and_as_scikit_learn_bins() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 10, 5000)
    logits = (2 * np.eye(10)[labels] + rng.normal(size=(5000, 10))).astype(np.float32)
    answers = per_image.answers(logits, labels)
    from sklearn.calibration import calibration_curve

    right = answers.top1 == labels
    share_right, promised = calibration_curve(right, answers.probability, n_bins=15)
    sizes = np.histogram(answers.probability, np.linspace(0, 1, 16))[0]
    expected = (np.abs(share_right - promised) * sizes[sizes > 0]).sum() / 5000
    assert calibration_error(answers, labels) == pytest.approx(expected, abs=1e-6)


def test_answers_by_hand() -> None:
    logits = np.array([[1.0, 3.0, 2.0], [5.0, 5.0, -7.0]], np.float32)
    found = per_image.answers(logits, np.array([1, 2]))
    # The first of two that are equal, as argmax has it.
    assert found.top1.tolist() == [1, 0]
    assert found.top5.tolist() == [True, True]
    assert found.lead.tolist() == [1.0, 0.0]
    assert found.magnitude.tolist() == [3.0, 7.0]
    softmax = np.exp(logits.astype(np.float64)).max(axis=1) / np.exp(logits.astype(np.float64)).sum(axis=1)
    assert found.probability == pytest.approx(softmax)
