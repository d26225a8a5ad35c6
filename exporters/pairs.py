"""What a Q/DQ pair keeps of the values that pass it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir

from exporters import onnx_file

if TYPE_CHECKING:
    from numpy.typing import NDArray

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
    zero = onnx_file.weight(quantise.inputs[2]) if len(quantise.inputs) > 2 else None
    if zero is None or len({*zero.ravel().tolist()}) != 1:
        return None
    kind = (str(zero.dtype), int(zero.ravel()[0]))
    return UNSIGNED.get(kind) if kind in UNSIGNED and never_negative(quantise.inputs[0]) else SYMMETRIC.get(kind)


def never_negative(value: ir.Value | None) -> bool:
    """Whether ``value`` comes out of a ReLU, however it was pooled since."""
    node = value.producer() if value is not None else None
    while node is not None and node.op_type in PASSING and node.inputs[0] is not None:
        node = node.inputs[0].producer()
    return node is not None and node.op_type == "Relu"


def zero_point(top: int, *, unsigned: bool = False) -> NDArray[Any]:
    """The zero point of the format whose largest level is ``top``."""
    name, zero = next(kind for kind, held in WHOLE.items() if held == top and kind[0].startswith("u") == unsigned)
    return np.array(zero, ir.DataType[NAMES.get(name, name.upper())].numpy())
