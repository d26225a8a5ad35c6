"""What a Q/DQ pair keeps of the values that pass it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir

from exporters import number_formats

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from exporters.number_formats import NumberFormat

# Where a Quantize- or DequantizeLinear reads its scale and its zero point.
SCALE, ZERO_POINT = 1, 2
# Nodes whose output holds no other values than their first input, or means and maxima of them.
PASSING = {"MaxPool", "GlobalAveragePool", "AveragePool", "Flatten", "Identity", "QuantizeLinear", "DequantizeLinear"}


def number_format_of(quantise: ir.Node) -> NumberFormat | None:
    """The format of this QuantizeLinear; None where its zero point makes it cut off other values than its range."""
    zero_point = zero_of(quantise)
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
        yield node
        value = node.inputs[0] if node.inputs else None


def held(node: ir.Node, index: int) -> NDArray[Any] | None:
    """The constant numbers that ``node`` reads at ``index``, from an initializer or a Constant; None without any."""
    value = node.inputs[index] if index < len(node.inputs) else None
    if value is None:
        return None

    try:
        tensor = ir.convenience.get_const_tensor(value)
    except ValueError:  # a Constant that is no dense tensor
        return None
    if tensor is None:
        return None

    array = tensor.numpy()
    is_text = array.dtype.kind in "OSU"
    return None if is_text else array


def zero_of(node: ir.Node) -> NDArray[Any] | None:
    """The zero point of a Quantize- or DequantizeLinear, also where ONNX implies it; None where it is not known."""
    if len(node.inputs) > ZERO_POINT and node.inputs[ZERO_POINT] is not None:
        return held(node, ZERO_POINT)

    if node.op_type == "QuantizeLinear":
        # ONNX: without a zero point the levels are of output_dtype, and without that UINT8.
        levels_type = node.attributes.get_int("output_dtype", 0) or ir.DataType.UINT8
        try:
            return np.array(0, ir.DataType(levels_type).numpy())
        except (ValueError, TypeError):  # no type of numbers
            return None

    # A DequantizeLinear has the type of what it reads, stored or quantised before it.
    levels = held(node, 0)
    if levels is not None:
        return np.array(0, levels.dtype)
    quantise = made_by(node, 0)
    if quantise is not None and quantise.op_type == "QuantizeLinear":
        return zero_of(quantise)
    return None


def made_by(node: ir.Node, index: int) -> ir.Node | None:
    """The node that computes what ``node`` reads at ``index``."""
    value = node.inputs[index] if index < len(node.inputs) else None
    return value.producer() if value is not None else None
