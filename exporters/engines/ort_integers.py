"""Quantised graphs rewritten, value for value, into what ONNX Runtime computes in integers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from exporters import channel_space, onnx_file

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Channels that a group of an INT8 convolution is filled up to; with 8 and with 32 a ResNeXt-50 runs slower.
FULL_GROUP = 16


def stores_int8(graph: ir.Graph) -> bool:
    """Whether a QuantizeLinear gives INT8, as TensorRT wants it; in ONNX Runtime's own form it is UINT8."""
    for node in graph:
        if node.op_type != "QuantizeLinear":
            continue
        zero_point = onnx_file.initializer_array(node.inputs[2])
        assert zero_point is not None
        if zero_point.dtype == np.int8:
            return True
    return False


def to_uint8(graph: ir.Graph) -> None:
    """Rewrite TensorRT's INT8 layout into the one that ONNX Runtime computes in integers, value for value.

    Activations move from INT8 with zero point 0 to UINT8 with zero point 128 (its fast kernels on x86 want that), and
    a ReLU in front of a Q moves behind it, because only Conv → Q becomes an INT8 convolution. Exact: with zero point
    z, max(round(x / s) + z, z) = round(max(x, 0) / s) + z, clipping included.
    """
    zero_point = onnx_file.add_initializer(graph, "uint8_zero_point", np.array(128, np.uint8))
    for node in list(graph):
        # Weights stay INT8: a DequantizeLinear of a constant is left as it is.
        if node.op_type == "DequantizeLinear" and onnx_file.initializer_array(node.inputs[0]) is None:
            node.replace_input_with(2, zero_point)
        if node.op_type == "QuantizeLinear":
            node.replace_input_with(2, zero_point)
            node.outputs[0].type = ir.TensorType(ir.DataType.UINT8)
            _move_relu_behind(graph, node, zero_point)
    onnx_file.drop_unused_initializers(graph)
    graph.sort()


def _move_relu_behind(graph: ir.Graph, quantise_node: ir.Node, zero_point: ir.Value) -> None:
    """Make of ReLU → Q a Q → Max with the zero point, where nobody else reads the ReLU."""
    relu = _producer(quantise_node.inputs[0], "Relu")
    if relu is None:
        return
    rectified = relu.outputs[0]
    if len(rectified.uses()) != 1:
        return

    levels = quantise_node.outputs[0]
    floor = ir.node("Max", [levels, zero_point], name=f"{relu.name}_uint8")
    floor.outputs[0].name = f"{rectified.name}_uint8"
    floor.outputs[0].type = levels.type
    # The new node reads the levels as well, and would be given its own output.
    levels.replace_all_uses_with(floor.outputs[0])
    floor.replace_input_with(0, levels)

    quantise_node.replace_input_with(0, relu.inputs[0])
    graph.append(floor)
    graph.remove(relu, safe=True)


def merge_groups(graph: ir.Graph) -> None:
    """Merge the groups of INT8 convolutions up to FULL_GROUP channels, with weights of 0 between them: the same sums.

    ONNX Runtime multiplies group by group, which at 4 channels takes up to four times as long as in float32.
    """
    for conv in _nodes(graph, "Conv"):
        if not _in_integers(conv):
            continue
        dequantise_node = _producer(conv.inputs[1], "DequantizeLinear")
        assert dequantise_node is not None
        weight_levels = onnx_file.initializer_array(dequantise_node.inputs[0])
        assert weight_levels is not None

        groups = channel_space.groups(conv)
        merged = _groups_to_merge(groups, channels=weight_levels.shape[1])
        if merged == 1:
            continue
        wide_levels = onnx_file.add_initializer(
            graph, f"{dequantise_node.name}_merged", _widened(weight_levels, groups, merged)
        )
        dequantise_node.replace_input_with(0, wide_levels)
        conv.attributes["group"] = ir.AttrInt64("group", groups // merged)
    onnx_file.drop_unused_initializers(graph)


def _groups_to_merge(groups: int, channels: int) -> int:
    """How many of ``groups`` with ``channels`` each become one: the most that fill FULL_GROUP and leave none over."""
    for count in range(FULL_GROUP // channels, 1, -1):
        if groups % count == 0:
            return count
    return 1


def _widened(weight_levels: NDArray[np.generic], groups: int, merged: int) -> NDArray[np.generic]:
    """Weights (filters, channels, …) as (filters, merged x channels, …), 0 for the channels of other groups."""
    filters, channels, *kernel = weight_levels.shape
    filter_numbers = np.arange(filters)
    group_of_filter = filter_numbers // (filters // groups)
    # Filter k is the one of group k // (filters of a group), and reads its place among the merged.
    place = group_of_filter % merged
    wide = np.zeros((filters, merged, channels, *kernel), weight_levels.dtype)
    wide[filter_numbers, place] = weight_levels
    return wide.reshape(filters, merged * channels, *kernel)


def integer_bias(graph: ir.Graph) -> None:
    """Quantise the bias of a Gemm between pairs: ONNX Runtime does that by itself for convolutions only.

    Without it the Gemm runs in float, and dequantises its weights in every run.
    """
    for gemm in _nodes(graph, "Gemm"):
        if len(gemm.inputs) != 3:
            continue
        bias = onnx_file.initializer_array(gemm.inputs[2])
        bias_scale = _product_scale(gemm)
        if bias is None or bias_scale is None or bias.shape != bias_scale.shape:
            continue
        bias_levels = bias / bias_scale
        # ONNX Runtime adds it to the INT32 sums.
        if not (np.abs(bias_levels) < 2**31 - 1).all():
            continue

        stored = onnx_file.add_initializer(graph, f"{gemm.name}_bias_int32", np.rint(bias_levels).astype(np.int32))
        scale = onnx_file.add_initializer(graph, f"{gemm.name}_bias_scale", bias_scale)
        dequantise_node = ir.node("DequantizeLinear", [stored, scale], {"axis": 0}, name=f"{gemm.name}_bias")
        dequantise_node.outputs[0].name = f"{gemm.name}_bias"
        dequantise_node.outputs[0].type = ir.TensorType(ir.DataType.FLOAT)
        gemm.replace_input_with(2, dequantise_node.outputs[0])
        graph.insert_before(gemm, dequantise_node)
    onnx_file.drop_unused_initializers(graph)


def _product_scale(gemm: ir.Node) -> NDArray[np.float32] | None:
    """The scale of the sums: that of the activations times those of the weights. None where one is not dequantised."""
    activation_scale = _scale(gemm.inputs[0])
    weight_scale = _scale(gemm.inputs[1])
    if activation_scale is None or weight_scale is None:
        return None
    return activation_scale * weight_scale


def _scale(value: ir.Value | None) -> NDArray[np.float32] | None:
    dequantise_node = _producer(value, "DequantizeLinear")
    if dequantise_node is None:
        return None
    return onnx_file.initializer_array(dequantise_node.inputs[1])


def _in_integers(conv: ir.Node) -> bool:
    """Whether ONNX Runtime will compute ``conv`` in integers, with symmetric weights that no other node reads."""
    weight = conv.inputs[1]
    dequantise_node = _producer(weight, "DequantizeLinear")
    if dequantise_node is None or _producer(conv.inputs[0], "DequantizeLinear") is None:
        return False

    # Levels of 0 between merged groups stand for 0 only where the zero point is 0.
    weight_levels = onnx_file.initializer_array(dequantise_node.inputs[0])
    zero_point = onnx_file.initializer_array(dequantise_node.inputs[2])
    if weight_levels is None or zero_point is None or zero_point.any():
        return False
    # Another reader of the weights would get those of the merged groups.
    if weight is None or len(weight.uses()) != 1:
        return False
    return all(consumer.op_type == "QuantizeLinear" for consumer in _consumers_behind_relu(conv))


def _consumers_behind_relu(node: ir.Node) -> list[ir.Node]:
    """What reads ``node`` through a ReLU, which ONNX Runtime takes into it; without one what reads it at once."""
    consumers = _consumers(node)
    behind_relu = []
    for consumer in consumers:
        if consumer.op_type == "Relu":
            behind_relu.extend(_consumers(consumer))
    return behind_relu or consumers


def _consumers(node: ir.Node) -> list[ir.Node]:
    return [use.node for use in node.outputs[0].uses()]


def _producer(value: ir.Value | None, operator: str) -> ir.Node | None:
    """The node that computes ``value``, where it is one of this operator."""
    if value is None:
        return None
    node = value.producer()
    if node is None or node.op_type != operator:
        return None
    return node


def _nodes(graph: ir.Graph, operator: str) -> list[ir.Node]:
    """The nodes of one operator, as a list: the graph is changed while they are gone through."""
    return [node for node in graph if node.op_type == operator]
