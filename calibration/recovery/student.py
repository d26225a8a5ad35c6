"""A float graph in PyTorch, to be trained with the rounding of INT8 where its Q/DQ pairs will stand."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from calibration.qdq import WEIGHTED, channel_axis
from exporters import node_attributes, onnx_file
from exporters.number_formats import INT8

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import onnx_ir as ir
    import torch

    from exporters.number_formats import NumberFormat

    Tensors = dict[str, torch.Tensor]


class Student:
    """A float graph in PyTorch.

    ``pairs`` has the amax and the number format of each tensor that is rounded. ``teacher`` holds the constants of the
    graph as they are, ``weights`` copies of those of its layers, to be trained.
    """

    def __init__(self, graph: ir.Graph, pairs: Mapping[str, tuple[float, NumberFormat]]) -> None:
        import torch

        self.nodes = list(graph)
        self.pairs = pairs
        self.input = str(graph.inputs[0].name)
        self.output = str(graph.outputs[0].name)
        self.teacher: Tensors = {}
        for name, value in graph.initializers.items():
            self.teacher[name] = torch.from_numpy(np.array(onnx_file.initializer_array(value)))

        unknown = sorted({node.op_type for node in self.nodes} - OPERATORS.keys())
        if unknown:
            raise ValueError(f"the graph holds {', '.join(unknown)}, which cannot be trained through")

        # Weights and biases of layers; constants of other nodes, as those that normalise the pixels, stay as they are.
        trained: set[str] = set()
        for node in self.nodes:
            if node.op_type in WEIGHTED:
                trained |= {str(value.name) for value in node.inputs[1:] if value is not None}
        trained &= self.teacher.keys()
        self.weights = {name: self.teacher[name].clone().requires_grad_() for name in sorted(trained)}

    def __call__(self, pixels: torch.Tensor, weights: Tensors, *, rounded: bool = False) -> torch.Tensor:
        """The logits (N, classes) of ``pixels`` (N, C, H, W) 0..255; ``rounded`` as the file with pairs has them."""
        values: Tensors = {**self.teacher, **weights, self.input: pixels}
        if rounded:
            values[self.input] = self._paired(self.input, pixels)
        for node in self.nodes:
            inputs = [None if value is None else values[str(value.name)] for value in node.inputs]
            if rounded and node.op_type in WEIGHTED:
                inputs[1] = _rounded_weight(inputs[1], channel_axis(node))
            computed = OPERATORS[node.op_type](node_attributes.attributes(node), *inputs)

            name = str(node.outputs[0].name)
            # A maximum of what is rounded is rounded already: under the scale of its input.
            if rounded and node.op_type != "MaxPool":
                computed = self._paired(name, computed)
            values[name] = computed
        return values[self.output]

    def _paired(self, name: str, value: torch.Tensor) -> torch.Tensor:
        """``value`` behind the pair of the tensor ``name``, where it has one."""
        if name not in self.pairs:
            return value
        amax, number_format = self.pairs[name]
        largest = number_format.largest_level
        # A tensor that is always 0 has any positive scale.
        scale = amax / largest if amax > 0 else 1.0
        smallest = 0 if number_format.never_negative else -largest
        return _rounded(value, scale, smallest, largest)


def _rounded_weight(weight: Any, axis: int) -> Any:
    """``weight`` behind a pair that has one scale for each output channel."""
    import torch

    other_axes = tuple(dim for dim in range(weight.ndim) if dim != axis)
    amax = weight.detach().abs().amax(other_axes, keepdim=True)
    largest = INT8.largest_level
    scales = torch.where(amax > 0, amax / largest, torch.ones_like(amax))
    return _rounded(weight, scales, -largest, largest)


def _rounded(value: torch.Tensor, scale: Any, least: int, top: int) -> torch.Tensor:
    """``value`` behind a pair; the gradient goes straight through, but for what the range cuts off.

    It divides by the scale, as the runtimes do. torch.fake_quantize multiplies by 1 / scale instead, and pixels often
    lie between two levels, where that rounds otherwise.
    """
    inside: torch.Tensor = value.clamp(least * scale, top * scale)
    quantised = (value.detach() / scale).round().clamp(least, top) * scale
    # Its value is that of ``quantised``, its gradient that of ``inside``.
    passed_through: torch.Tensor = inside + (quantised - inside).detach()
    return passed_through


def _conv(attributes: dict[str, Any], images: Any, weight: Any, bias: Any = None) -> Any:
    from torch.nn import functional

    # Padded by itself: ONNX may pad each side differently, conv2d cannot.
    padded = functional.pad(images, _pads(attributes))
    strides, dilations, groups = attributes["strides"], attributes["dilations"], attributes["group"]
    return functional.conv2d(padded, weight, bias, strides, 0, dilations, groups)


def _max_pool(attributes: dict[str, Any], images: Any) -> Any:
    from torch.nn import functional

    padded = functional.pad(images, _pads(attributes), value=-math.inf)
    return functional.max_pool2d(
        padded,
        attributes["kernel_shape"],
        attributes["strides"],
        0,
        attributes["dilations"],
        bool(attributes["ceil_mode"]),
    )


def _pads(attributes: dict[str, Any]) -> list[int]:
    """ONNX has top, left, bottom, right; PyTorch left, right, top, bottom."""
    if attributes["auto_pad"] != "NOTSET":
        raise ValueError(f"auto_pad {attributes['auto_pad']} cannot be trained through")
    top, left, bottom, right = attributes["pads"]
    return [left, right, top, bottom]


def _gemm(attributes: dict[str, Any], features: Any, weight: Any, bias: Any = None) -> Any:
    if attributes["transA"]:
        features = features.T
    if attributes["transB"]:
        weight = weight.T
    product = attributes["alpha"] * features @ weight
    return product if bias is None else product + attributes["beta"] * bias


# What each operator of a residual network computes, from its attributes and inputs.
OPERATORS: dict[str, Callable[..., Any]] = {
    "Conv": _conv,
    "Gemm": _gemm,
    "MaxPool": _max_pool,
    "Relu": lambda _, value: value.relu(),
    "Add": lambda _, left, right: left + right,
    "Sub": lambda _, left, right: left - right,
    "Div": lambda _, left, right: left / right,
    "GlobalAveragePool": lambda _, images: images.mean((2, 3), keepdim=True),
    "Flatten": lambda attributes, value: value.flatten(attributes["axis"]),
    "Identity": lambda _, value: value,
}
