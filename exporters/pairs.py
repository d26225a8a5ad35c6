"""What a Q/DQ pair keeps of the values that pass it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

ZERO = 2  # where a Quantize- or DequantizeLinear reads its zero point
# The largest level of each format that is symmetric about 0; its zero point is the second of the key.
SYMMETRIC = {("int8", 0): 127, ("uint8", 128): 127, ("float8_e4m3fn", 0): 448}
# UINT8 with zero point 0 has more, where nothing negative arrives that it could cut off.
UNSIGNED = {("uint8", 0): 255}
WHOLE = {**SYMMETRIC, **UNSIGNED}
NAMES = {"float8_e4m3fn": "FLOAT8E4M3FN"}
# Nodes whose output holds no other values than their first input, or means and maxima of them.
PASSING = {"MaxPool", "GlobalAveragePool", "AveragePool", "Flatten", "Identity", "QuantizeLinear", "DequantizeLinear"}


def levels(quantise: ir.Node) -> int | None:
    """The largest level of this QuantizeLinear; None where its zero point makes it cut off other values."""
    zero = zero_of(quantise)
    if zero is None or len({*zero.ravel().tolist()}) != 1:
        return None
    kind = (str(zero.dtype), int(zero.ravel()[0]))
    value = quantise.inputs[0] if quantise.inputs else None
    return (WHOLE if never_negative(value) else SYMMETRIC).get(kind)


def never_negative(value: ir.Value | None) -> bool:
    """Whether ``value`` comes out of a ReLU, however it was pooled since."""
    node = next((each for each in makers(value) if each.op_type not in PASSING), None)
    return node is not None and node.op_type == "Relu"


def makers(value: ir.Value | None) -> Iterator[ir.Node]:
    """The node that makes ``value``, the one that makes its first input, and so on; each once, in a circle too."""
    seen: set[ir.Node] = set()
    while value is not None and (node := value.producer()) is not None and node not in seen:
        seen.add(node)
        yield node
        value = node.inputs[0] if node.inputs else None


def held(node: ir.Node, index: int) -> NDArray[Any] | None:
    """The constant numbers that ``node`` reads at ``index``, from an initializer or a Constant; None without any."""
    value = node.inputs[index] if index < len(node.inputs) else None
    try:
        tensor = ir.convenience.get_const_tensor(value) if value is not None else None
    except ValueError:  # a Constant that is no dense tensor
        return None
    array = tensor.numpy() if tensor is not None else None
    return None if array is None or array.dtype.kind in "OSU" else array


def zero_of(node: ir.Node) -> NDArray[Any] | None:
    """The zero point of a Quantize- or DequantizeLinear, also where ONNX implies it; None where it is not known."""
    if len(node.inputs) > ZERO and node.inputs[ZERO] is not None:
        return held(node, ZERO)
    if node.op_type == "QuantizeLinear":
        kind = node.attributes.get_int("output_dtype", 0) or ir.DataType.UINT8
        try:
            return np.array(0, ir.DataType(kind).numpy())
        except (ValueError, TypeError):  # no type of numbers
            return None
    stored, quantise = held(node, 0), made_by(node, 0)
    if stored is not None:
        return np.array(0, stored.dtype)
    return zero_of(quantise) if quantise is not None and quantise.op_type == "QuantizeLinear" else None


def made_by(node: ir.Node, index: int) -> ir.Node | None:
    """The node that computes what ``node`` reads at ``index``."""
    value = node.inputs[index] if index < len(node.inputs) else None
    return value.producer() if value is not None else None


def zero_point(top: int, *, unsigned: bool = False) -> NDArray[Any]:
    """The zero point of the format whose largest level is ``top``."""
    name, zero = next(kind for kind, held in WHOLE.items() if held == top and kind[0].startswith("u") == unsigned)
    return np.array(zero, ir.DataType[NAMES.get(name, name.upper())].numpy())
