"""One pass whose result no order, batch, shard or interruption changes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from calibration import observe, qdq
from calibration.histogram import Histogram
from pipeline.data import digits

if TYPE_CHECKING:
    from pathlib import Path

RNG = np.random.default_rng(0)


def histogram_of(pieces: list[np.ndarray]) -> Histogram:
    histogram = Histogram()
    for piece in pieces:
        histogram.add(piece)
    return histogram


def same(first: Histogram, second: Histogram) -> None:
    assert (first.amax, first.total) == (second.amax, second.total)
    np.testing.assert_array_equal(first.counts, second.counts)


@pytest.mark.parametrize("seed", range(10))
def test_order_batches_and_shards_change_nothing(seed: int) -> None:
    rng = np.random.default_rng(seed)
    values = (rng.standard_t(1, 300_001) * 10.0 ** rng.uniform(-6, 6)).astype(np.float32)
    values[rng.random(len(values)) < 0.3] = -0.0
    whole = histogram_of([values])
    pieces = np.array_split(rng.permutation(values), rng.integers(2, 40))
    same(whole, histogram_of(pieces))
    left, right = histogram_of(pieces[:1]), histogram_of(pieces[1:])
    left.merge(right)
    same(whole, left)


@pytest.mark.parametrize("shape", [(64, 112, 112), (32, 35, 55), (3, 97, 97)])
def test_large_tensors_are_sampled_alike_in_any_order_and_batch(shape: tuple[int, ...]) -> None:
    images = np.random.default_rng(1).standard_normal((6, *shape)).astype(np.float32)
    images[4, -1, -1, -2] = 99
    whole, singly = histogram_of([images]), histogram_of([image[None] for image in images[::-1]])
    same(whole, singly)
    assert whole.reach == singly.reach
    assert whole.reach.total() == 6
    assert whole.amax == 99
    step = np.prod(shape) / (whole.total / 6)
    assert 4.9 < step < 20
    # Every row, column and channel is looked at: no step may share a factor with their numbers.
    counted = [histogram_of([np.where(np.arange(shape[2]) == column, images, 0)[:1]]) for column in range(shape[2])]
    seen = [int(histogram.counts.sum()) for histogram in counted]
    assert min(seen) > 0.9 * np.prod(shape[:2]) / step - 2
    halves = (
        np.percentile(np.abs(images), 99),
        float(whole.edges[np.searchsorted(np.cumsum(whole.counts), 0.99 * whole.total)]),
    )
    assert halves[1] == pytest.approx(halves[0], rel=0.05)


def test_every_value_is_in_its_bin() -> None:
    values = np.concatenate([2.0 ** np.arange(-39, 60, 0.37), [0, 2.0**-41, 3.0, 3.0]]).astype(np.float32)
    histogram = histogram_of([values])
    np.testing.assert_array_equal(histogram.counts, np.histogram(values, histogram.edges)[0])
    assert histogram.total == len(values)
    assert histogram.beyond(3.0) == np.count_nonzero(values > 3.01)
    widths = np.diff(histogram.edges) / histogram.edges[:-1]
    assert widths.max() <= 1 / 1024


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_numbers_that_are_none_are_refused(bad: float) -> None:
    with pytest.raises(ValueError, match="NaN or infinite"):
        histogram_of([np.array([1.0, bad, 2.0], np.float32)])


def test_a_real_network_is_seen_alike_in_any_order_and_batch(built: Path) -> None:
    src = built / "04-fold_batchnorm.onnx"
    part = digits.read().calibration
    images = np.stack([np.asarray(part.decode(i).resize((32, 32)), np.float32)[None] for i in range(60)])
    one, seven = (observe.observe(src, qdq.tensors(src), np.array_split(images, n)) for n in (1, 9))
    shards = [observe.observe(src, qdq.tensors(src), [images[::-1][start::2]]) for start in (0, 1)]
    for name, histogram in one.items():
        same(histogram, seven[name])
        assert histogram.reach == seven[name].reach
        assert histogram.reach.total() == 60
        shards[0][name].merge(shards[1][name])
        same(histogram, shards[0][name])
