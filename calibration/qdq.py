"""INT8 into the graph: QuantizeLinear/DequantizeLinear pairs where the runtime fuses them.

For TensorRT the rules are those of its developer guide, "Explicit Quantization": symmetric INT8 with zero point 0, one
scale per activation tensor, one per output channel of a weight, bias in float; every input of a convolution or Gemm;
of a residual Add the shortcut only, so that Conv + Add + ReLU fuse; nothing between a convolution and its ReLU;
one pair per tensor, shared by all its consumers. ONNX Runtime computes a node in integers where all that it reads and
writes has a pair, and takes UINT8 activations: both inputs of an Add, the mean over space too, and behind a ReLU 255
levels in place of 127.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir

from calibration.ranges import E4M3, LEVELS
from exporters import onnx_file, pairs

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

WEIGHTED = {"Conv", "Gemm"}


@dataclass(frozen=True)
class Placement:
    """Where pairs go: on ``both`` inputs of a residual Add, around a ``mean``, and on ``unsigned`` activations."""

    both: bool
    mean: bool
    unsigned: bool


# The largest level of each format (FP8: E4M3, Micikevicius et al. 2022, arXiv 2209.05433, table 1).
FORMATS = {"int8": LEVELS, "fp8": E4M3}
PLACEMENTS = {"tensorrt": Placement(False, False, False), "onnxruntime": Placement(True, True, True)}


def tensors(src: Path, placement: str = "tensorrt", form: str = "int8") -> dict[str, int]:
    """The activations of ``src`` whose range :func:`quantise` needs, in graph order, and each one's largest level."""
    rules = PLACEMENTS[placement]
    return {str(value.name): _top(value, rules, form) for value in _placed(onnx_file.read(src).graph, rules)}


def quantise(src: Path, dst: Path, amax: Mapping[str, float], placement: str = "tensorrt", form: str = "int8") -> str:
    """Write ``src`` with Q/DQ pairs to ``dst``; ``amax`` is the magnitude of each tensor that becomes its top level."""
    model, rules = onnx_file.read(src), PLACEMENTS[placement]
    if form == "fp8":
        onnx_file.raise_opset(model, 19)
    # A pooled maximum needs no range of its own: under the scale of its input, quantising again is exact.
    placed = [
        (value, amax[str((_pooled(value) or value).name)], _top(value, rules, form))
        for value in _placed(model.graph, rules)
    ]
    for value, magnitude, top in placed:
        _pair(model.graph, value, magnitude, pairs.zero_point(top, unsigned=rules.unsigned), top)
    weighted = [node for node in model.graph if node.op_type in WEIGHTED]
    for node in weighted:
        _quantise_weight(model.graph, node, FORMATS[form])
    onnx_file.drop_unused_initializers(model.graph)
    onnx_file.write(model, dst)
    return summary(dst)


def summary(path: Path) -> str:
    """``10 of 10 convolutions with INT8 operands, 13 activation pairs``."""
    done, convs = quantised(path)
    graph = onnx_file.read(path).graph
    stored = [onnx_file.initializer_array(node.inputs[2]) for node in graph if node.op_type == "QuantizeLinear"]
    form = "FP8" if any(zero is not None and "float8" in zero.dtype.name for zero in stored) else "INT8"
    return f"{done} of {convs} convolutions with {form} operands, {len(stored)} activation pairs"


def quantised(path: Path) -> tuple[int, int]:
    """How many convolutions of ``path`` read both operands from DequantizeLinear, and how many there are."""
    convs = list(onnx_file.convolutions(onnx_file.read(path)))
    done = [conv for conv in convs if all(_operator(value) == "DequantizeLinear" for value in conv.inputs[:2])]
    return len(done), len(convs)


def _top(value: ir.Value, rules: Placement, form: str) -> int:
    return 255 if rules.unsigned and pairs.never_negative(value) else FORMATS[form]


def _placed(graph: ir.Graph, rules: Placement) -> list[ir.Value]:
    """The activations that get a pair, in graph order."""
    graph.sort()
    depths = _depths(graph)
    wanted: dict[str, ir.Value] = {}

    def want(value: ir.Value) -> None:
        pooled = _pooled(value)
        if pooled is not None:
            wanted.setdefault(str(pooled.name), pooled)
        wanted.setdefault(str(value.name), value)

    for node in graph:
        inputs = [value for value in node.inputs if value is not None]
        if node.op_type in WEIGHTED and onnx_file.initializer_array(node.inputs[1]) is not None:
            want(inputs[0])
        if node.op_type == "Add" and all(value.const_value is None for value in inputs):
            # The shortcut is the branch with less work behind it.
            inputs.sort(key=lambda value: depths.get(str(value.name), 0))
            for value in inputs if rules.both else inputs[:1]:
                want(value)
        if node.op_type == "GlobalAveragePool" and rules.mean:
            want(inputs[0])
            want(node.outputs[0])
    return list(wanted.values())


def _depths(graph: ir.Graph) -> dict[str, int]:
    depths: dict[str, int] = {}
    for node in graph:
        depth = 1 + max((depths.get(str(value.name), 0) for value in node.inputs if value is not None), default=0)
        depths.update({str(value.name): depth for value in node.outputs})
    return depths


def _operator(value: ir.Value | None) -> str:
    node = value.producer() if value is not None else None
    return "" if node is None else node.op_type


def _pooled(value: ir.Value) -> ir.Value | None:
    node = value.producer()
    return node.inputs[0] if node is not None and node.op_type == "MaxPool" else None


def _pair(graph: ir.Graph, value: ir.Value, amax: float, zero: NDArray[Any], top: int) -> None:
    """Q and DQ after ``value``, for all that read it."""
    readers = [(use.node, use.idx) for use in value.uses()]
    scale = onnx_file.add_initializer(graph, f"{value.name}_scale", np.array(_scale(amax, top), np.float32))
    point = onnx_file.add_initializer(graph, f"{value.name}_zero_point", zero)
    quantise = _node(graph, "QuantizeLinear", value, scale, point, ir.DataType.from_numpy(zero.dtype))
    dequantise = _node(graph, "DequantizeLinear", value, scale, point, ir.DataType.FLOAT)
    dequantise.replace_input_with(0, quantise.outputs[0])
    for node, index in readers:
        node.replace_input_with(index, dequantise.outputs[0])


def _node(
    graph: ir.Graph,
    operator: str,
    value: ir.Value,
    scale: ir.Value,
    zero: ir.Value,
    dtype: ir.DataType,
    axis: int | None = None,
) -> ir.Node:
    attributes = {} if axis is None else {"axis": axis}
    node = ir.node(operator, [value, scale, zero], attributes, name=f"{value.name}_{operator}")
    node.outputs[0].name = f"{value.name}_{operator}_output"
    node.outputs[0].type = ir.TensorType(dtype)
    node.outputs[0].shape = value.shape
    graph.append(node)
    return node


def _scale(amax: float, top: int = LEVELS) -> float:
    # A tensor that is always 0 still needs a positive scale; any will do, and this is what its line in a table says.
    return (amax or LEVELS) / top


def _quantise_weight(graph: ir.Graph, node: ir.Node, top: int) -> None:
    """Levels and their DQ, one scale per output channel, in place of the float weight of ``node``."""
    value = node.inputs[1]
    weight = onnx_file.initializer_array(value)
    if value is None or weight is None:
        return
    axis = channel_axis(node)
    scales, zero = channel_scales(weight, axis, top), pairs.zero_point(top)
    ratios = np.clip(weight / _along(scales, axis, weight.ndim), -top, top)
    levels = (np.rint(ratios) if zero.dtype == np.int8 else ratios).astype(zero.dtype)
    stored = onnx_file.add_initializer(graph, f"{value.name}_{zero.dtype.name}", levels)
    scale = onnx_file.add_initializer(graph, f"{value.name}_scale", scales)
    points = onnx_file.add_initializer(graph, f"{value.name}_zero_point", np.zeros(len(scales), zero.dtype))
    dequantise = _node(graph, "DequantizeLinear", stored, scale, points, ir.DataType.FLOAT, axis)
    node.replace_input_with(1, dequantise.outputs[0])


def _along(scales: NDArray[np.float32], axis: int, rank: int) -> NDArray[np.float32]:
    return scales.reshape([-1 if dim == axis else 1 for dim in range(rank)])


def rounded(values: NDArray[np.float32], axis: int | None = None) -> NDArray[np.float32]:
    """``values`` after a Q/DQ pair with the scale amax / 127, of all of them or of each channel along ``axis``."""
    if axis is None:
        wide = np.array(_scale(float(np.abs(values).max())), np.float32)
    else:
        wide = _along(channel_scales(values, axis), axis, values.ndim)
    return np.asarray(np.clip(np.rint(values / wide), -LEVELS, LEVELS) * wide, np.float32)


def channel_axis(node: ir.Node) -> int:
    """The axis of the weight of ``node`` that runs over its output channels."""
    turned = "transB" in node.attributes and node.attributes["transB"].as_int() == 1
    return 1 if node.op_type == "Gemm" and not turned else 0


def channel_scales(weight: NDArray[np.float32], axis: int, top: int = LEVELS) -> NDArray[np.float32]:
    """One positive scale per channel along ``axis``: the channel's largest magnitude over the largest level."""
    others = tuple(dim for dim in range(weight.ndim) if dim != axis)
    amax = np.abs(weight).max(axis=others)
    return np.where(amax > 0, amax / np.float32(top), np.float32(1)).astype(np.float32)
