"""What a Q/DQ pair keeps of the values that pass it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir

from exporters import number_formats
from exporters.constant import chosen_branch, evaluate_constant

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from exporters.constant import Memo
    from exporters.number_formats import NumberFormat

# Where a Quantize- or DequantizeLinear reads its scale and its zero point.
SCALE, ZERO_POINT = 1, 2
# Nodes whose output holds no other values than their first input: levels pass them as they are. A Pad adds zeros.
MOVING = {
    "DepthToSpace", "Dropout", "Expand", "Flatten", "Gather", "Identity", "MaxPool", "Pad", "Reshape", "Slice",
    "SpaceToDepth", "Split", "Squeeze", "Tile", "Transpose", "Unsqueeze",
}  # fmt: skip
# Nodes behind which nothing is negative where nothing was before them: those, and means and pairs.
PASSING = (MOVING - {"Pad"}) | {"GlobalAveragePool", "AveragePool", "QuantizeLinear", "DequantizeLinear"}


def number_format_of(quantise: ir.Node, memo: Memo | None = None) -> NumberFormat | None:
    """The format of this QuantizeLinear; None where its zero point makes it cut off other values than its range."""
    zero_point = zero_of(quantise, memo)
    if zero_point is None:
        return None

    distinct = set(zero_point.ravel().tolist())
    if len(distinct) != 1:
        return None

    number_format = number_formats.stored_as(zero_point.dtype, distinct.pop())
    if number_format is not None and number_format.never_negative:
        quantised = quantise.inputs[0] if quantise.inputs else None
        return number_format if never_negative(quantised) else None
    return number_format


def never_negative(value: ir.Value | None) -> bool:
    """Whether ``value`` comes out of a ReLU, however it was pooled since."""
    for node in makers(value):
        if node.op_type not in PASSING:
            return node.op_type == "Relu"
    return False


def makers(value: ir.Value | None) -> Iterator[ir.Node]:
    """The node that makes ``value``, the one that makes its first input, and so on; each once, in a circle too."""
    seen: set[ir.Node] = set()
    while value is not None:
        node = value.producer()
        if node is None or node in seen:
            return
        seen.add(node)
        branch = chosen_branch(node) if node.op_type == "If" else None
        place = value.index()
        if branch is not None and place is not None:
            # It always takes the same branch, and only hands on what that one makes.
            value = branch.outputs[place]
            continue
        yield node
        value = node.inputs[0] if node.inputs else None


def constant_operand(node: ir.Node, index: int, memo: Memo | None = None) -> NDArray[Any] | None:
    """The constant numbers that ``node`` reads at ``index``, however they are spelt; None without any."""
    constant = evaluate_constant(operand(node, index), memo)
    return None if constant is None else constant.array


def zero_of(node: ir.Node, memo: Memo | None = None) -> NDArray[Any] | None:
    """The zero point of a Quantize- or DequantizeLinear, also where ONNX implies it; None where it is not known."""
    if operand(node, ZERO_POINT) is not None:
        return constant_operand(node, ZERO_POINT, memo)

    if node.op_type == "QuantizeLinear":
        # ONNX: without a zero point the levels are of output_dtype, and without that UINT8.
        levels_type = node.attributes.get_int("output_dtype", 0) or ir.DataType.UINT8
        try:
            return np.array(0, ir.DataType(levels_type).numpy())
        except (ValueError, TypeError):  # no type of numbers
            return None

    # A DequantizeLinear has the type of what it reads, quantised before it or stored.
    quantise = quantise_of(node)
    if quantise is not None:
        return zero_of(quantise, memo)
    levels = evaluate_constant(operand(node, 0), memo)
    return None if levels is None else np.array(0, levels.dtype)


def quantise_of(dequantise: ir.Node) -> ir.Node | None:
    """The QuantizeLinear whose levels a DequantizeLinear reads, however they were moved since."""
    for maker in makers(operand(dequantise, 0)):
        if maker.domain != "":
            return None
        if maker.op_type == "QuantizeLinear":
            return maker
        if maker.op_type not in MOVING:
            return None
    return None


def operand(node: ir.Node, index: int) -> ir.Value | None:
    """What ``node`` reads at ``index``; None where it reads nothing there."""
    return node.inputs[index] if index < len(node.inputs) else None


def made_by(node: ir.Node, index: int) -> ir.Node | None:
    """The node that computes what ``node`` reads at ``index``."""
    value = operand(node, index)
    return value.producer() if value is not None else None
