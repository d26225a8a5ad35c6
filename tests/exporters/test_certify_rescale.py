"""Channels that are powers of two apart are proven; any other factor, or one that is not followed, is refuted."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from exporters import channel_space, onnx_file
from exporters.certify import certify

if TYPE_CHECKING:
    from pathlib import Path


def rescaled(src: Path, dst: Path) -> int:
    """Every space of ``src`` moved by powers of two from 2^-4 to 2^4; how many there are."""
    model = onnx_file.read(src)
    rng = np.random.default_rng(0)
    spaces = channel_space.spaces(model.graph)
    exponents = {space: rng.integers(-4, 5, space.channels) for space in spaces}
    channel_space.rescale(model.graph, exponents)
    onnx_file.write(model, dst)
    return len(spaces)


@pytest.mark.parametrize("stage", ["02-export", "03-simplify", "04-fold_batchnorm"])
def test_honest_factors_are_proven_over_any_number_of_stages(built: Path, tmp_path: Path, stage: str) -> None:
    count = rescaled(built / "04-fold_batchnorm.onnx", tmp_path / "after.onnx")
    certificate = certify(built / f"{stage}.onnx", tmp_path / "after.onnx")
    assert certificate.proven, certificate.refuted
    assert certificate.rescaled == count


@pytest.mark.parametrize(
    ("name", "place", "factor"),
    [
        ("layer2.0.conv2.weight", (3, 1, 1, 1), -1.0),  # one weight turned
        ("layer2.0.conv2.weight", (3, 1, 1, 1), 1 + 2.0**-23),  # its last bit
        ("layer2.0.conv2.weight", (slice(None), 1), 2.0),  # read with another factor than written
        ("layer2.0.conv2.weight", (3,), 2.0),  # weights and not the bias
        ("layer2.0.conv2.bias", (3,), 2.0),  # the bias and not the weights
        ("layer1.0.conv3.weight", (3,), 1.5),  # no power of two
        ("layer1.0.downsample.0.bias", (0,), 0.5),  # one of two writers
        ("fc.weight", (slice(None), 7), 0.5),
    ],
)
def test_a_factor_that_is_not_followed_is_refuted_and_located(
    built: Path, tmp_path: Path, name: str, place: tuple[int | slice, ...], factor: float
) -> None:
    rescaled(built / "04-fold_batchnorm.onnx", tmp_path / "after.onnx")
    model = onnx.load(tmp_path / "after.onnx")
    tensor = next(tensor for tensor in model.graph.initializer if tensor.name == name)
    array = numpy_helper.to_array(tensor).copy()
    array[place] *= np.float32(factor)
    tensor.CopyFrom(numpy_helper.from_array(array, name))
    onnx.save(model, tmp_path / "planted.onnx")

    certificate = certify(built / "04-fold_batchnorm.onnx", tmp_path / "planted.onnx")
    module = name.rpartition(".")[0]
    assert module in {refutation.module for refutation in certificate.refuted}
