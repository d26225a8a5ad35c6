"""What can be wrong with a Q/DQ pair itself: one question to one node each, in whatever graph it stands."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx
import onnx_ir as ir

from exporters import number_formats
from exporters.lint_graph import differ, is_a, is_stored
from exporters.pairs import SCALE, ZERO_POINT, made_by, makers, number_format_of, operand, quantise_of

if TYPE_CHECKING:
    from exporters.lint_graph import LintedGraph

PAIR = ("QuantizeLinear", "DequantizeLinear")
# What a scale may be stored in.
FLOATS = {"float16", "float32", "float64", "bfloat16"}
# What is below it a GPU may take for 0.
SMALLEST_NORMAL = np.finfo(np.float32).smallest_normal
# Operators whose constant result TensorRT's parser does not fold into a scale (measured: TensorRT-RTX 1.7.1).
NOT_FOLDED = {
    "BatchNormalization", "DequantizeLinear", "MatMul", "Pow", "QuantizeLinear", "ReduceL1", "ReduceL2",
    "ReduceMax", "ReduceMean", "ReduceMin", "ReduceSum", "ReduceSumSquare", "Relu", "Tanh",
}  # fmt: skip
# The same of a zero point, whose levels it takes from an initialiser.
NOT_FOLDED_TO_LEVELS = {*NOT_FOLDED, "ConstantOfShape"}


def on_activation(node: ir.Node, graph: LintedGraph) -> bool:
    """Whether it quantises what is computed."""
    return is_a(node, "QuantizeLinear") and not graph.is_constant(operand(node, 0))


def quantised_by(node: ir.Node) -> ir.Node | None:
    """The QuantizeLinear whose levels a DequantizeLinear reads."""
    return quantise_of(node) if is_a(node, "DequantizeLinear") else None


def scales(node: ir.Node, graph: LintedGraph) -> int:
    """How many scales a Quantize- or DequantizeLinear has; 1 where they are not known."""
    scale = graph.scale(node)
    return 1 if scale is None else int(scale.size)


def blocked(node: ir.Node) -> bool:
    """Whether a scale belongs to a block of a channel."""
    return _block_size(node) != 0


def _block_size(node: ir.Node) -> int:
    return node.attributes.get_int("block_size", 0)


def asymmetric(node: ir.Node, graph: LintedGraph) -> bool:
    """Whether its zero point is not one that TensorRT reads; one that is computed is a fault of its own."""
    if _is_computed(node, ZERO_POINT, graph):
        return False
    zero_point = graph.zero_point(node)
    if zero_point is None or number_formats.symmetric_in(zero_point.dtype) is None:
        return True
    return bool(zero_point.any())


def zero_point_refused(node: ir.Node, graph: LintedGraph) -> bool:
    """Whether TensorRT's parser refuses the zero point: UINT8 with 0 left out or written it takes for INT8."""
    if node.attributes.get_int("output_dtype", 0) == ir.DataType.UINT8:
        return True
    zero_point = graph.zero_point(node)
    return zero_point is not None and bool(zero_point.any())


def activation_asymmetric(node: ir.Node, graph: LintedGraph) -> bool:
    """The same of a pair on an activation."""
    return on_activation(node, graph) and asymmetric(node, graph)


def cuts(node: ir.Node, graph: LintedGraph) -> bool:
    """Whether its zero point cuts off values that can arrive."""
    return on_activation(node, graph) and number_format_of(node, graph.memo) is None


def activation_by_channel(node: ir.Node, graph: LintedGraph) -> bool:
    """Whether an activation has several scales."""
    return on_activation(node, graph) and not blocked(node) and scales(node, graph) > 1


def by_block(node: ir.Node, graph: LintedGraph) -> bool:
    """Whether 8-bit levels have a scale for each block of a channel."""
    if not is_a(node, *PAIR) or not blocked(node):
        return False
    zero_point = graph.zero_point(node)
    return zero_point is not None and number_formats.symmetric_in(zero_point.dtype) is not None


def not_positive(node: ir.Node, graph: LintedGraph) -> bool:
    """Whether a scale is 0, negative, infinite or no number at all."""
    scale = graph.scale(node) if is_a(node, *PAIR) else None
    if scale is None:
        return False
    if scale.size == 0 or scale.dtype.name not in FLOATS:
        return True
    positive = np.isfinite(scale) & (scale > 0)
    return not bool(positive.all())


def scale_refused(node: ir.Node, graph: LintedGraph) -> bool:
    """Whether TensorRT's parser refuses a scale that is not positive: all but infinity."""
    scale = graph.scale(node)
    return scale is None or scale.dtype.name not in FLOATS or not bool((scale > 0).all())


def vanishing(node: ir.Node, graph: LintedGraph) -> bool:
    """Whether a scale above 0 is 0 where it is computed with: below the normal numbers, or in a float16 graph."""
    scale = graph.scale(node) if is_a(node, *PAIR) else None
    if scale is None or scale.dtype.name not in FLOATS:
        return False
    # A scale in float16 is widened before it multiplies, and keeps even its subnormal numbers.
    positive = scale[scale > 0].astype(np.float64)
    if bool((positive < SMALLEST_NORMAL).any()):
        return True
    return _becomes_float16(node) and bool((positive.astype(np.float16) == 0).any())


def _becomes_float16(node: ir.Node) -> bool:
    """Whether what is dequantised is float16 at once."""
    if not is_a(node, "DequantizeLinear"):
        return False
    if node.attributes.get_int("output_dtype", 0) == ir.DataType.FLOAT16:
        return True
    readers = [use.node for value in node.outputs for use in value.uses()]
    return any(is_a(reader, "Cast") and reader.attributes.get_int("to", 0) == ir.DataType.FLOAT16 for reader in readers)


def type_not_taken(node: ir.Node, graph: LintedGraph) -> bool:
    """Whether the opset's operator takes no scale of this float type, as none below 19 takes float16."""
    scale = graph.scale(node) if is_a(node, *PAIR) else None
    if scale is None or scale.dtype.name not in FLOATS:
        return False
    if not onnx.defs.has(node.op_type, graph.opset):
        return False
    schema = onnx.defs.get_schema(node.op_type, graph.opset)
    name = ir.DataType.from_numpy(scale.dtype).name.lower()
    return f"tensor({name})" not in schema.inputs[SCALE].types


def computed(node: ir.Node, graph: LintedGraph) -> bool:
    """Whether the scale, or a zero point that is there, depends on an input of the graph."""
    if not is_a(node, *PAIR):
        return False
    if operand(node, SCALE) is None:
        return True
    return _is_computed(node, SCALE, graph) or _is_computed(node, ZERO_POINT, graph)


def _is_computed(node: ir.Node, index: int, graph: LintedGraph) -> bool:
    return operand(node, index) is not None and graph.constant(node, index) is None


def not_folded(node: ir.Node, graph: LintedGraph) -> bool:
    """Whether a constant scale or zero point comes out of an operator that TensorRT's parser does not fold."""
    if not is_a(node, *PAIR) or computed(node, graph):
        return False
    if _operators_behind(operand(node, SCALE)) & NOT_FOLDED:
        return True
    return bool(_operators_behind(operand(node, ZERO_POINT)) & NOT_FOLDED_TO_LEVELS)


def _operators_behind(value: ir.Value | None) -> set[str]:
    """The operators of all nodes that lead to ``value``."""
    operators = set()
    seen = {value}
    values = [value]
    for current in values:
        node = current.producer() if current is not None else None
        if node is None:
            continue
        operators.add(node.op_type)
        for before in node.inputs:
            if before not in seen:
                seen.add(before)
                values.append(before)
    return operators


def moved_levels(node: ir.Node, graph: LintedGraph) -> bool:
    """Whether a DequantizeLinear reads stored 8-bit levels through another node."""
    if not is_a(node, "DequantizeLinear") or not graph.is_constant(operand(node, 0)):
        return False
    for maker in makers(operand(node, 0)):
        if is_a(maker, "QuantizeLinear"):
            return False
        if is_stored(operand(maker, 0)):
            stored = graph.constant(maker, 0)
            return stored is not None and number_formats.symmetric_in(stored.dtype) is not None
    return False


def unlike(node: ir.Node, graph: LintedGraph) -> bool:
    """Whether a DequantizeLinear has another scale or zero point than its QuantizeLinear."""
    quantise = quantised_by(node)
    if quantise is None or blocked(quantise) != blocked(node):
        return False
    if differ(graph.scale(quantise), graph.scale(node)):
        return True
    return differ(graph.zero_point(quantise), graph.zero_point(node))


def told_apart(node: ir.Node, graph: LintedGraph) -> bool:
    """Whether a DequantizeLinear has another axis, block_size or type of scale than its QuantizeLinear."""
    quantise = quantised_by(node)
    if quantise is None:
        return False
    one, other = graph.scale(quantise), graph.scale(node)
    if one is None or other is None:
        return False
    if one.dtype != other.dtype or _block_size(quantise) != _block_size(node):
        return True
    # Of a single scale the axis says nothing, and between the two the axes may have been moved.
    if one.size < 2 or other.size < 2 or made_by(node, 0) is not quantise:
        return False
    return graph.axis_of_scales(quantise) != graph.axis_of_scales(node)


def not_saturating(node: ir.Node, graph: LintedGraph) -> bool:
    """Whether it makes NaN of what is beyond the range of an 8-bit float."""
    if not is_a(node, "QuantizeLinear") or node.attributes.get_int("saturate", 1) != 0:
        return False
    zero_point = graph.zero_point(node)
    number_format = None if zero_point is None else number_formats.symmetric_in(zero_point.dtype)
    return number_format is not None and not number_format.uniform


def ill_typed(node: ir.Node, graph: LintedGraph) -> bool:
    """Whether the zero point has another type than the levels; one left out of QuantizeLinear makes them UINT8."""
    if not is_a(node, "DequantizeLinear"):
        return False

    # What is not stored comes out of a QuantizeLinear, in the type of that one's zero point.
    quantise = quantised_by(node)
    zero_point = graph.zero_point(node)
    if zero_point is None:
        return False
    if quantise is None:
        levels_type = graph.constant_type(operand(node, 0))
        return levels_type is not None and zero_point.dtype != levels_type
    levels = graph.zero_point(quantise)
    return levels is not None and zero_point.dtype != levels.dtype


def miscounted(node: ir.Node, graph: LintedGraph) -> bool:
    """Whether there are not as many scales as zero points, or as channels of the constant that they scale."""
    # With block_size a scale belongs to a block of a channel, and has another shape.
    if not is_a(node, *PAIR) or blocked(node):
        return False
    scale = graph.scale(node)
    zero_point = graph.constant(node, ZERO_POINT)
    if scale is None or zero_point is None:
        return False
    if zero_point.size != scale.size:
        return True

    shape = graph.constant_shape(operand(node, 0))
    if shape is None or scale.size == 1:
        return False
    axis = node.attributes.get_int("axis", 1)
    has_axis = -len(shape) <= axis < len(shape)
    return not has_axis or shape[axis] != scale.size


def under_two_scales(node: ir.Node, graph: LintedGraph) -> bool:
    """Whether another QuantizeLinear reads the same activation and scales it otherwise."""
    activation = operand(node, 0) if on_activation(node, graph) else None
    if activation is None:
        return False
    for use in activation.uses():
        if is_a(use.node, "QuantizeLinear") and differ(graph.scale(node), graph.scale(use.node)):
            return True
    return False


def in_series(node: ir.Node, graph: LintedGraph) -> bool:
    """Whether what it quantises was dequantised before, by another scale."""
    if not is_a(node, "QuantizeLinear"):
        return False
    before = graph.along(operand(node, 0))
    if before is None:
        return False
    return differ(graph.scale(before.dequantise), graph.scale(node))
