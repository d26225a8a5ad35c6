"""A float graph that PyTorch computes and trains through, with the rounding of INT8 where its pairs will stand."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from calibration.qdq import WEIGHTED, channel_axis
from exporters import constant, onnx_file
from exporters.number_formats import INT8

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import onnx_ir as ir
    import torch

    from exporters.number_formats import NumberFormat

    Tensors = dict[str, torch.Tensor]


class Student:
    """A float graph in PyTorch; ``pairs`` has the amax and the number format of each tensor that is rounded.

    ``teacher`` are its constants, ``weights`` those of its layers, to be trained.
    """

    def __init__(self, graph: ir.Graph, pairs: Mapping[str, tuple[float, NumberFormat]]) -> None:
        import torch

        self.nodes, self.pairs, self.output = list(graph), pairs, str(graph.outputs[0].name)
        self.input = str(graph.inputs[0].name)
        self.teacher: Tensors = {
            name: torch.from_numpy(np.array(onnx_file.initializer_array(value)))
            for name, value in graph.initializers.items()
        }
        unknown = sorted({node.op_type for node in self.nodes} - OPERATORS.keys())
        if unknown:
            raise ValueError(f"the graph holds {', '.join(unknown)}, which cannot be trained through")
        weighted = [value for node in self.nodes if node.op_type in WEIGHTED for value in node.inputs[1:]]
        names = {str(value.name) for value in weighted if value is not None} & self.teacher.keys()
        self.weights = {name: self.teacher[name].clone().requires_grad_() for name in sorted(names)}

    def __call__(self, pixels: torch.Tensor, weights: Tensors, *, rounded: bool = False) -> torch.Tensor:
        """The logits (N, classes) of ``pixels`` (N, C, H, W)."""
        values: Tensors = {**self.teacher, **weights, self.input: pixels}
        if rounded:
            values |= {self.input: self._paired(self.input, pixels)}
        for node in self.nodes:
            inputs = [None if value is None else values[str(value.name)] for value in node.inputs]
            if rounded and node.op_type in WEIGHTED:
                inputs[1] = _rounded_weight(inputs[1], channel_axis(node))
            found = OPERATORS[node.op_type](constant.attributes(node), *inputs)
            name = str(node.outputs[0].name)
            # A maximum of what is rounded is rounded already: under the scale of its input.
            values[name] = self._paired(name, found) if rounded and node.op_type != "MaxPool" else found
        return values[self.output]

    def _paired(self, name: str, value: torch.Tensor) -> torch.Tensor:
        if name not in self.pairs:
            return value
        amax, number_format = self.pairs[name]
        largest = number_format.largest_level
        smallest = 0 if number_format.never_negative else -largest
        return _rounded(value, amax / largest if amax > 0 else 1.0, smallest, largest)


def _rounded_weight(weight: Any, axis: int) -> Any:
    import torch

    amax = weight.detach().abs().amax(tuple(dim for dim in range(weight.ndim) if dim != axis), keepdim=True)
    largest = INT8.largest_level
    return _rounded(weight, torch.where(amax > 0, amax / largest, torch.ones_like(amax)), -largest, largest)


def _rounded(value: torch.Tensor, scale: Any, least: int, top: int) -> torch.Tensor:
    """``value`` behind a pair; the gradient goes straight through, but for what the range cuts off.

    By division, as the runtimes do: torch.fake_quantize multiplies by 1 / scale, and pixels often lie between levels.
    """
    inside: torch.Tensor = value.clamp(least * scale, top * scale)
    found: torch.Tensor = inside + ((value.detach() / scale).round().clamp(least, top) * scale - inside).detach()
    return found


def _conv(told: dict[str, Any], images: Any, weight: Any, bias: Any = None) -> Any:
    from torch.nn import functional

    padded = functional.pad(images, _pads(told))
    return functional.conv2d(padded, weight, bias, told["strides"], 0, told["dilations"], told["group"])


def _max_pool(told: dict[str, Any], images: Any) -> Any:
    from torch.nn import functional

    padded = functional.pad(images, _pads(told), value=-math.inf)
    shape = told["kernel_shape"], told["strides"], 0, told["dilations"], bool(told["ceil_mode"])
    return functional.max_pool2d(padded, *shape)


def _pads(told: dict[str, Any]) -> list[int]:
    """ONNX has top, left, bottom, right; PyTorch left, right, top, bottom."""
    if told["auto_pad"] != "NOTSET":
        raise ValueError(f"auto_pad {told['auto_pad']} cannot be trained through")
    top, left, bottom, right = told["pads"]
    return [left, right, top, bottom]


def _gemm(told: dict[str, Any], one: Any, weight: Any, bias: Any = None) -> Any:
    product = told["alpha"] * (one.T if told["transA"] else one) @ (weight.T if told["transB"] else weight)
    return product if bias is None else product + told["beta"] * bias


# What each operator of a residual network computes, from its attributes and inputs.
OPERATORS: dict[str, Callable[..., Any]] = {
    "Conv": _conv,
    "Gemm": _gemm,
    "MaxPool": _max_pool,
    "Relu": lambda _, one: one.relu(),
    "Add": lambda _, one, other: one + other,
    "Sub": lambda _, one, other: one - other,
    "Div": lambda _, one, other: one / other,
    "GlobalAveragePool": lambda _, one: one.mean((2, 3), keepdim=True),
    "Flatten": lambda told, one: one.flatten(told["axis"]),
    "Identity": lambda _, one: one,
}
