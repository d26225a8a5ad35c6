"""Quantisation into the graph: QuantizeLinear/DequantizeLinear pairs where the runtime fuses them.

For TensorRT the rules are those of its developer guide, "Explicit Quantization": symmetric INT8 with zero point 0, one
scale per activation tensor, one per output channel of a weight, bias in float; every input of a convolution or Gemm;
of a residual Add the shortcut only, so that Conv + Add + ReLU fuse; nothing between a convolution and its ReLU;
one pair per tensor, shared by all its consumers. ONNX Runtime computes a node in integers where all that it reads and
writes has a pair, and takes UINT8 activations: both inputs of an Add, the mean over space too, and behind a ReLU 255
levels in place of 127.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from exporters import dependence, onnx_file, pairs
from exporters.constant import evaluate_constant
from exporters.number_formats import INT8
from exporters.raise_opset import raise_opset
from exporters.rounding import SMALLEST_SCALE

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from exporters.number_formats import NumberFormat

WEIGHTED = {"Conv", "Gemm"}
# Operators that hand on some of the numbers that they read, and those that hand on all of them.
PARTS = {"Split", "Slice", "Gather"}
MOVES = {"Identity", "Dropout", "Flatten", "Reshape", "Squeeze", "Unsqueeze", "Transpose"}


@dataclass(frozen=True)
class Placement:
    """Where pairs go: on ``both`` inputs of a residual Add, around a ``mean``, and on ``unsigned`` activations."""

    both: bool
    mean: bool
    unsigned: bool


PLACEMENTS = {
    "tensorrt": Placement(both=False, mean=False, unsigned=False),
    "onnxruntime": Placement(both=True, mean=True, unsigned=True),
}


def tensors(src: Path, placement: str = "tensorrt", number_format: NumberFormat = INT8) -> dict[str, NumberFormat]:
    """The activations of ``src`` whose range :func:`quantise` needs, in graph order, and the format of each."""
    rules = PLACEMENTS[placement]
    formats = {}
    for value in _placed(onnx_file.read(src).graph, rules):
        formats[str(value.name)] = _format_of_activation(value, rules, number_format)
    return formats


def quantise(
    src: Path,
    dst: Path,
    amax: Mapping[str, float],
    placement: str = "tensorrt",
    number_format: NumberFormat = INT8,
) -> str:
    """Write ``src`` with Q/DQ pairs to ``dst``; ``amax`` is the magnitude of each tensor that becomes its top level.

    Weights get ``number_format``, activations too or the one that stands in for it under the rules of ``placement``.
    """
    model = onnx_file.read(src)
    rules = PLACEMENTS[placement]
    raise_opset(model, number_format.opset)

    # All before any pair stands: a pair takes the place of what a MaxPool reads, and it would not be found again.
    placed = []
    for value in _placed(model.graph, rules):
        # A pooled maximum needs no range of its own: under the scale of its input, quantising again is exact.
        ranged = _pooled(value) or value
        placed.append((value, amax[str(ranged.name)], _format_of_activation(value, rules, number_format)))
    for value, magnitude, activation_format in placed:
        raise_opset(model, activation_format.opset)
        _pair(model.graph, value, magnitude, activation_format)

    # A layer that is called twice has one weight, which is quantised once.
    done: dict[tuple[ir.Value, int], ir.Value] = {}
    weighted = [node for node in model.graph if node.op_type in WEIGHTED]
    for node in weighted:
        _quantise_weight(model.graph, node, number_format, done)

    onnx_file.drop_unread(model.graph)
    onnx_file.write(model, dst)
    return summary(dst, number_format)


def summary(path: Path, number_format: NumberFormat = INT8) -> str:
    """``10 of 10 convolutions with INT8 operands, 13 activation pairs``."""
    done, convolutions = quantised(path)
    activation_pairs = onnx_file.count(onnx_file.read(path), "QuantizeLinear")
    operands = f"{number_format.name.upper()} operands"
    return f"{done} of {convolutions} convolutions with {operands}, {activation_pairs} activation pairs"


def quantised(path: Path) -> tuple[int, int]:
    """How many convolutions of ``path`` read both operands from DequantizeLinear, and how many there are."""
    done = 0
    convolutions = list(onnx_file.convolutions(onnx_file.read(path)))
    for convolution in convolutions:
        activation, weight = convolution.inputs[:2]
        if _operator(activation) == _operator(weight) == "DequantizeLinear":
            done += 1
    return done, len(convolutions)


def _format_of_activation(value: ir.Value, rules: Placement, number_format: NumberFormat) -> NumberFormat:
    """The format of one activation beside weights of ``number_format``.

    Raises ValueError where the rules ask for an unsigned one, and the table has none.
    """
    signed = number_format.activations or number_format
    if not rules.unsigned:
        return signed
    unsigned = signed.unsigned_behind_relu if pairs.never_negative(value) else signed.unsigned
    if unsigned is None:
        raise ValueError(f"there is no unsigned format in place of {signed.name}")
    return unsigned


def _placed(graph: ir.Graph, rules: Placement) -> list[ir.Value]:
    """The activations that get a pair, in graph order."""
    # What is computed from shapes or constants alone is no activation.
    computed = dependence.dependent(graph, graph.inputs)
    depths = _depths(graph)
    wanted: dict[str, ir.Value] = {}

    def want(value: ir.Value) -> None:
        # A MaxPool runs in 8 bits where what it reads has a pair as well.
        pooled = _pooled(value)
        if pooled is not None:
            wanted.setdefault(str(pooled.name), pooled)
        wanted.setdefault(str(value.name), value)

    for node in graph:
        inputs = [value for value in node.inputs if value is not None]
        if node.op_type in WEIGHTED and inputs[0] in computed and _weight(node) is not None:
            want(inputs[0])
        if node.op_type == "Add" and all(value in computed for value in inputs):
            # The shortcut is the branch with less work behind it.
            inputs.sort(key=lambda value: depths.get(str(value.name), 0))
            for value in inputs if rules.both else inputs[:1]:
                want(value)
        if node.op_type == "GlobalAveragePool" and rules.mean:
            want(inputs[0])
            want(node.outputs[0])
    return [value for value in wanted.values() if not _is_part_of(value, wanted)]


def _is_part_of(value: ir.Value, wanted: Mapping[str, ir.Value]) -> bool:
    """Whether ``value`` is a part of a wanted one: a pair of its own would round again, under another scale."""
    is_part = False
    for node in pairs.makers(value):
        if node.op_type not in MOVES | PARTS or node.inputs[0] is None:
            return False
        is_part = is_part or node.op_type in PARTS
        if is_part and str(node.inputs[0].name) in wanted:
            return True
    return False


def _depths(graph: ir.Graph) -> dict[str, int]:
    """How many nodes stand one behind the other on the longest way to each value; inputs and constants have none."""
    depths: dict[str, int] = {}
    for node in graph:
        deepest_input = 0
        for value in node.inputs:
            if value is not None:
                deepest_input = max(deepest_input, depths.get(str(value.name), 0))
        for output in node.outputs:
            depths[str(output.name)] = 1 + deepest_input
    return depths


def _operator(value: ir.Value | None) -> str:
    """The operator that computes ``value``, empty where none does."""
    node = value.producer() if value is not None else None
    return "" if node is None else node.op_type


def _pooled(value: ir.Value) -> ir.Value | None:
    """What a MaxPool computes ``value`` from; None where none does."""
    node = value.producer()
    if node is None or node.op_type != "MaxPool":
        return None
    return node.inputs[0]


def _pair(graph: ir.Graph, value: ir.Value, amax: float, number_format: NumberFormat) -> None:
    """Q and DQ after ``value``, for all that read it."""
    # Before the pair is there: it reads ``value`` as well, and goes on reading it.
    readers = [(use.node, use.idx) for use in value.uses()]

    scale = np.array(_scale(amax, number_format), np.float32)
    scale_value = onnx_file.add_initializer(graph, f"{value.name}_scale", scale)
    zero_point = onnx_file.add_initializer(graph, f"{value.name}_zero_point", number_format.zero_points())
    levels_type = ir.DataType[number_format.onnx_type]
    quantise = _node(graph, "QuantizeLinear", value, scale_value, zero_point, levels_type)
    dequantise = _node(graph, "DequantizeLinear", value, scale_value, zero_point, ir.DataType.FLOAT)

    dequantise.replace_input_with(0, quantise.outputs[0])
    for node, index in readers:
        node.replace_input_with(index, dequantise.outputs[0])


def _node(
    graph: ir.Graph,
    operator: str,
    value: ir.Value,
    scale: ir.Value,
    zero_point: ir.Value,
    dtype: ir.DataType,
    axis: int | None = None,
) -> ir.Node:
    """A Quantize- or DequantizeLinear of ``value``, named after it, with an output of ``dtype``."""
    attributes = {} if axis is None else {"axis": axis}
    node = ir.node(operator, [value, scale, zero_point], attributes, name=f"{value.name}_{operator}")
    output = node.outputs[0]
    output.name = f"{value.name}_{operator}_output"
    output.type = ir.TensorType(dtype)
    output.shape = value.shape
    graph.append(node)
    return node


def _scale(amax: float, number_format: NumberFormat = INT8) -> float:
    # A tensor that is always 0 still needs a positive scale; any will do, and this is what its line in a table says.
    magnitude = amax or INT8.largest_level
    return max(magnitude / number_format.largest_level, SMALLEST_SCALE)


def _weight(node: ir.Node) -> NDArray[np.float32] | None:
    """The float weight of ``node``, however it is spelt; None where it is computed, or quantised already."""
    constant = evaluate_constant(node.inputs[1])
    if constant is None or constant.quantised is not None:
        return None
    return constant.array


def _quantise_weight(
    graph: ir.Graph, node: ir.Node, number_format: NumberFormat, done: dict[tuple[ir.Value, int], ir.Value]
) -> None:
    """Levels and their DQ, one scale per output channel, in place of the float weight of ``node``.

    ``done`` are the weights that have them already, by the axis of their channels.
    """
    value = node.inputs[1]
    weight = _weight(node)
    if value is None or weight is None:
        return
    axis = channel_axis(node)
    if (value, axis) in done:
        node.replace_input_with(1, done[value, axis])
        return

    scales = channel_scales(weight, axis, number_format)
    levels = number_format.to_levels(weight / _along(scales, axis, weight.ndim))
    zero_points = number_format.zero_points(scales.shape)

    stored = onnx_file.add_initializer(graph, f"{value.name}_{levels.dtype.name}", levels)
    scale_value = onnx_file.add_initializer(graph, f"{value.name}_scale", scales)
    zero_point = onnx_file.add_initializer(graph, f"{value.name}_zero_point", zero_points)
    dequantise = _node(graph, "DequantizeLinear", stored, scale_value, zero_point, ir.DataType.FLOAT, axis)
    done[value, axis] = dequantise.outputs[0]
    node.replace_input_with(1, dequantise.outputs[0])


def _along(scales: NDArray[np.float32], axis: int, rank: int) -> NDArray[np.float32]:
    """``scales`` (n,) with ``rank`` axes, of which ``axis`` has n and all others 1."""
    shape = [1] * rank
    shape[axis] = -1
    return scales.reshape(shape)


def rounded(values: NDArray[np.float32], axis: int | None = None) -> NDArray[np.float32]:
    """``values`` after a Q/DQ pair with the scale amax / 127, of all of them or of each channel along ``axis``."""
    if axis is None:
        scale = np.array(_scale(float(np.abs(values).max())), np.float32)
    else:
        scale = _along(channel_scales(values, axis), axis, values.ndim)
    levels = np.clip(np.rint(values / scale), -INT8.largest_level, INT8.largest_level)
    return np.asarray(levels * scale, np.float32)


def channel_axis(node: ir.Node) -> int:
    """The axis of the weight of ``node`` that runs over its output channels."""
    # A Conv has (outputs, inputs, height, width), a Gemm (inputs, outputs) unless it transposes its weight.
    transposed = "transB" in node.attributes and node.attributes["transB"].as_int() == 1
    return 1 if node.op_type == "Gemm" and not transposed else 0


def channel_scales(weight: NDArray[np.float32], axis: int, number_format: NumberFormat = INT8) -> NDArray[np.float32]:
    """One positive scale per channel along ``axis``: the channel's largest magnitude over the largest level."""
    other_axes = tuple(dim for dim in range(weight.ndim) if dim != axis)
    amax = np.abs(weight).max(axis=other_axes)
    scales = amax / np.float32(number_format.largest_level)
    # A channel that is always 0 gets a scale all the same: a scale must be above 0.
    return np.where(amax > 0, np.maximum(scales, SMALLEST_SCALE), np.float32(1)).astype(np.float32)
