"""What the parts of the trainer do: schedule, order, augmentation, the average, the end."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

from pipeline.data import digits
from pipeline.data.images import Images
from pipeline.models import networks
from pipeline.models.specs import ARCHITECTURES
from pipeline.train import feed, schedule
from pipeline.train.distributed import Team
from pipeline.train.feed import Feed
from pipeline.train.fit import over
from pipeline.train.knobs import Training
from pipeline.train.learner import Learner


@pytest.fixture(scope="module")
def images() -> Images:
    data = digits.read()
    return Images(data.train, data.preprocessing)


def test_the_learning_rate_rises_in_a_line_and_falls_by_a_cosine() -> None:
    training = Training(arch="x", learning_rate=0.4, warmup=0.1)
    rates = [schedule.rate(training, step, 100) for step in range(100)]
    assert rates[:10] == pytest.approx([0.04 * (step + 1) for step in range(10)])
    assert rates[10] == 0.4
    assert rates[55] == pytest.approx(0.2)
    assert 0 < rates[99] < 0.0002
    assert rates[10:] == sorted(rates[10:], reverse=True)
    constant = Training(arch="x", learning_rate=0.4, warmup=0, schedule="constant")
    assert {schedule.rate(constant, step, 100) for step in range(100)} == {0.4}


def test_an_epoch_shows_every_image_once_and_any_step_can_be_made_again(images: Images) -> None:
    plain = Training(arch="x", batch=100, shift=0, seed=3)
    batches = Feed(images, plain, 2)
    shards = [shard for step in batches.ahead(0, batches.steps, range(2)) for shard in step]
    assert (batches.size, batches.steps, len(shards)) == (50, 7, 14)
    seen = {image.tobytes() for shard in shards for image in shard.pixels}
    assert len(seen) == 700
    again = next(batches.ahead(4, 5, range(1, 2)))[0]
    np.testing.assert_array_equal(again.pixels, shards[9].pixels)
    assert again.seed == shards[9].seed
    later = batches.shard(batches.steps, 0)
    assert not np.array_equal(later.labels, shards[0].labels)
    assert len({shard.seed for shard in shards}) == 14


def test_a_shift_moves_an_image_as_a_whole(images: Images) -> None:
    pixels = images.select(np.arange(64))
    moved = feed.shifted(pixels, 0.125, np.random.default_rng(0))
    places = set()
    for before, after in zip(pixels, moved, strict=True):
        padded = np.pad(before[0], 4)
        fits = [(y, x) for y in range(9) for x in range(9) if np.array_equal(padded[y : y + 32, x : x + 32], after[0])]
        assert fits
        places.update(fits)
    assert {0, 8} <= {y for y, _ in places}
    assert {0, 8} <= {x for _, x in places}


def test_half_of_the_images_are_mirrored_and_two_are_mixed(images: Images) -> None:
    pixels = images.select(np.arange(200))
    flipped = feed.flipped(pixels, np.random.default_rng(0))
    mirrored = [np.array_equal(after, before[..., ::-1]) for after, before in zip(flipped, pixels, strict=True)]
    unchanged = [np.array_equal(after, before) for after, before in zip(flipped, pixels, strict=True)]
    assert all(a or b for a, b in zip(mirrored, unchanged, strict=True))
    assert 70 < sum(mirrored) < 130
    shard = Feed(images, Training(arch="x", mixup=1.0, shift=0), 1).shard(0, 0)
    assert 0 < shard.share < 1
    assert shard.pixels.dtype == np.float32
    assert (shard.labels != shard.others).any()


def test_the_average_follows_the_network_and_shards_do_not_matter_to_what_has_no_statistics(images: Images) -> None:
    torch.manual_seed(0)
    network = networks.build(ARCHITECTURES["resnet_tiny"], 10, 1, (0.3,), (0.4,)).eval()
    for module in network.modules():  # without statistics a batch in parts is the batch
        if isinstance(module, torch.nn.BatchNorm2d):
            module.register_forward_pre_hook(lambda module, _: module.eval() and None)
    ends = []
    for shards in (1, 4):
        training = Training(arch="x", shift=0, ema=0.5, batch=64, flip="no", arithmetic="float64")
        learner = Learner(copy.deepcopy(network), training, 10, "cpu", Team())
        start = learner.average.get_parameter("fc.weight").clone()
        batch = Feed(images, training, shards)
        mean, right = learner.step(0, [batch.shard(0, number) for number in range(shards)])
        weight = learner.network.get_parameter("fc.weight")
        assert torch.allclose(learner.average.get_parameter("fc.weight"), 0.1 * start + 0.9 * weight)
        assert not torch.equal(start, weight)
        ends.append((mean, right, weight))
    assert ends[0][0] == pytest.approx(ends[1][0], abs=1e-12)
    assert ends[0][1] == ends[1][1]
    assert torch.allclose(ends[0][2], ends[1][2], atol=1e-12)


def test_patience_ends_after_epochs_that_are_no_better() -> None:
    rows = [{"best": best} for best in (True, True, False, False)]
    assert [over(rows[:count], 2) for count in range(5)] == [False, False, False, False, True]
    assert not over(rows, None)
    assert not over(rows, 3)
