"""A scale is wrong where its noise reaches more than a rare tail: no method of ours is, and eight times of one is."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest
from faults import array

from calibration import excess_noise, ranges
from calibration.histogram import Histogram

if TYPE_CHECKING:
    from pathlib import Path

GROSS_DB = 15.0
TENSOR = "/layer2/layer2.0/relu/Relu_output_0"


def seen(tail: float, images: int, seed: int, rare: float = 0.01) -> Histogram:
    """Behind a ReLU; one image in a hundred is ``tail`` times as bright as the others."""
    rng = np.random.default_rng(seed)
    found = Histogram()
    for _ in range(images):
        brightness = tail if rng.random() < rare else rng.uniform(0.5, 1)
        found.add(np.maximum(0, brightness * rng.standard_normal((1, 2000))).astype(np.float32))
    return found


def excess_db(built: Path, where: Path, amax: float, histogram: Histogram) -> excess_noise.ExcessNoise:
    """That of the pair of ``TENSOR`` with this range."""
    model = onnx.load(built / "05-int8.onnx")
    array(f"{TENSOR.strip('/')}_scale", lambda _: np.array(amax / 127))(model)
    onnx.save(model, where / "other.onnx")
    found = excess_noise.excess_noises(built / "04-fold_batchnorm.onnx", where / "other.onnx", {TENSOR: histogram})
    return next(noise for noise in found if noise.activation == TENSOR)


@pytest.mark.parametrize("method", ranges.METHODS)
@pytest.mark.parametrize("tail", [1.0, 3.0, 6.0])
def test_no_method_of_ours_is_wrong_by_its_own_range(built: Path, tmp_path: Path, method: str, tail: float) -> None:
    """Also where one image in a hundred carries a quarter of all energy, as six times as bright."""
    amax = ranges.METHODS[method](seen(tail, 400, 0), ranges.INT8)
    assert excess_db(built, tmp_path, amax, seen(tail, 400, 1)).excess_db < GROSS_DB


# Eight times a range that leaves out images six times as bright is the range that covers them.
@pytest.mark.parametrize(("tail", "factor"), [(1.0, 8), (3.0, 8), (1.0, 1 / 8), (3.0, 1 / 8), (6.0, 1 / 8)])
def test_a_scale_eight_times_too_large_or_too_small_is_wrong(
    built: Path, tmp_path: Path, tail: float, factor: float
) -> None:
    amax = factor * ranges.mse(seen(tail, 400, 0))
    assert excess_db(built, tmp_path, amax, seen(tail, 400, 1)).excess_db > GROSS_DB


def test_a_tail_excuses_a_range_as_far_as_it_reaches(built: Path, tmp_path: Path) -> None:
    histogram = seen(6.0, 400, 1)
    as_far = excess_db(built, tmp_path, histogram.amax, histogram)
    beyond = excess_db(built, tmp_path, 2 * histogram.amax, histogram)
    assert as_far.excess_db < GROSS_DB < beyond.excess_db
    # On few images nobody knows how far it reaches: that is what makes it suspect.
    assert as_far.suspect_db > as_far.excess_db


def test_weights_are_suspect_by_what_they_are_wrong_by(built: Path) -> None:
    src = built / "04-fold_batchnorm.onnx"
    of_weights = [
        noise for noise in excess_noise.excess_noises(src, built / "05-int8.onnx", {}) if noise.activation is None
    ]
    assert len(of_weights) == 14
    assert all(noise.suspect_db == noise.excess_db < 4.8 for noise in of_weights)
