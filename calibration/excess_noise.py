"""How much more noise each Q/DQ pair makes than 8 bits need there: a wrong scale shows, whatever the logits say."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from calibration.qdq import WEIGHTED, channel_axis, channel_scales
from calibration.ranges import mse, squared_error
from exporters import number_formats, onnx_file, pairs
from exporters.constant import evaluate_constant

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    import onnx_ir as ir
    from numpy.typing import NDArray

    from calibration.histogram import Histogram
    from exporters.number_formats import NumberFormat


@dataclass(frozen=True)
class Waste:
    """A pair of ``module``: what passes it (``operand``), and by how many dB its noise exceeds what 8 bits need.

    ``tensor`` is what the module computes from it.
    """

    module: str
    tensor: str
    operand: str
    decibels: float

    @property
    def sentence(self) -> str:
        """What is wrong, for a person."""
        return f"the scale of {self.operand} makes {self.decibels:.1f} dB more noise than 8 bits need"


def tensors(good: Path, bad: Path) -> list[str]:
    """The activations that pass a Q/DQ pair in ``bad`` and that ``good`` computes as well."""
    computed = {str(value.name) for node in onnx_file.read(good).graph for value in node.outputs}
    quantised = [node.inputs[0] for node in onnx_file.read(bad).graph if node.op_type == "QuantizeLinear"]
    return list(dict.fromkeys(str(value.name) for value in quantised if value is not None and value.name in computed))


def waste(good: Path, bad: Path, seen: Mapping[str, Histogram]) -> list[Waste]:
    """What every pair of ``bad`` wastes, in its order; ``seen`` are the histograms of :func:`tensors` in ``good``.

    The noise that they need: of INT8 weights s^2 / 12 a value with s = amax / 127 of its channel, of which rounding to
    the nearest can cost three times at most (4.8 dB); for activations, that of the best range (see ranges.mse).
    """
    makers = {str(node.outputs[0].name): node for node in onnx_file.read(good).graph}
    found = []
    for node in onnx_file.read(bad).graph:
        twin = makers.get(str(node.outputs[0].name))
        for operand, ratio in _ratios(node, twin, seen):
            # NaN is no ratio: such a scale wastes everything.
            decibels = 10 * np.log10(ratio) if ratio > 0 else -np.inf if ratio == 0 else np.inf
            module, tensor = onnx_file.module_of(node), str(node.outputs[0].name)
            found.append(Waste(module or tensor, tensor, operand, float(decibels)))
    return found


def _ratios(node: ir.Node, twin: ir.Node | None, seen: Mapping[str, Histogram]) -> Iterator[tuple[str, float]]:
    for index, value in enumerate(node.inputs):
        dequantise = value.producer() if value is not None else None
        if dequantise is None or dequantise.op_type != "DequantizeLinear":
            continue
        held = evaluate_constant(value)
        if held is None:
            quantise = dequantise.inputs[0].producer() if dequantise.inputs[0] is not None else None
            source = quantise.inputs[0] if quantise is not None else None
            scale, number_format = (
                onnx_file.initializer_array(dequantise.inputs[1]),
                pairs.number_format_of(quantise) if quantise is not None else None,
            )
            if source is None or source.name not in seen or number_format is None:
                continue
            if scale is not None and scale.size == 1:
                ratio = _of_activation(seen[str(source.name)], float(scale.item()), number_format)
                yield f"its input from {_maker(source)}", ratio
        elif twin is not None and node.op_type in WEIGHTED and node.op_type == twin.op_type and index == 1:
            weight = onnx_file.initializer_array(twin.inputs[1])
            number_format = number_formats.symmetric_in(held.array.dtype)
            # Of FP8, which has no one step, the certificate compares every weight with its nearest.
            if number_format is None or not number_format.uniform:
                continue
            if weight is not None and weight.shape == held.values.shape:
                yield "the weights", _of_weight(weight, held.values, channel_axis(node), number_format)


def _of_weight(
    weight: NDArray[np.float32], stored: NDArray[np.float64], axis: int, number_format: NumberFormat
) -> float:
    """The channel whose noise is the largest multiple of what it needs."""
    others = tuple(dim for dim in range(weight.ndim) if dim != axis)
    noise = ((stored - weight) ** 2).mean(axis=others)
    needed = channel_scales(weight, axis, number_format).astype(np.float64) ** 2 / 12
    return float((noise / needed).max())


def _maker(value: ir.Value) -> str:
    node = value.producer()
    return (onnx_file.module_of(node) if node is not None else "") or str(value.name)


def _of_activation(histogram: Histogram, scale: float, number_format: NumberFormat) -> float:
    if not scale > 0:
        return np.inf
    best = mse(histogram, number_format) / number_format.largest_level
    noise = squared_error(histogram, scale, number_format)
    needed = squared_error(histogram, best, number_format)
    return noise / needed if needed > 0 else 1.0
