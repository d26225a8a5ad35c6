"""What a graph holds fixed: constants however they are stored, and attributes with their defaults."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnx_ir as ir

from exporters import onnx_file

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray


@dataclass(frozen=True)
class Constant:
    """A constant: the ``array`` as stored and its ``values`` in float64.

    Of INT8 behind DequantizeLinear, ``quantised`` are its levels, counted from the zero point, and its scale.
    """

    array: NDArray[Any]
    values: NDArray[np.float64]
    quantised: tuple[Constant, Constant] | None = None


def evaluate_constant(value: ir.Value | None) -> Constant | None:
    """The constant behind ``value``, through Identity, Cast, Transpose, Unsqueeze, Quantize- and DequantizeLinear.

    None where it is computed.
    """
    array = onnx_file.initializer_array(value)
    if array is not None:
        return Constant(array, array.astype(np.float64))
    node = value.producer() if value is not None else None
    if node is None:
        return None
    if node.op_type == "Constant":
        (attribute,) = node.attributes.values()
        held = np.asarray(attribute.as_tensor().numpy() if attribute.name == "value" else attribute.value)
        return Constant(held, held.astype(np.float64)) if held.dtype.kind in "biuf" else None
    if node.op_type in HANDED_ON:
        return HANDED_ON[node.op_type](node)
    inner = evaluate_constant(node.inputs[0]) if node.op_type in {"Identity", "Cast"} else None
    if inner is not None and node.op_type == "Cast":
        held = inner.array.astype(ir.DataType(node.attributes["to"].as_int()).numpy())
        return Constant(held, held.astype(np.float64))
    return inner


def _laid_out(node: ir.Node) -> Constant | None:
    """The same numbers under other axes, as the exporter hands on the slope of a PReLU or the weight of a MatMul."""
    inner, axes = evaluate_constant(node.inputs[0]), evaluate_constant(node.inputs[1] if len(node.inputs) > 1 else None)
    if inner is None or (axes is None and node.op_type == "Unsqueeze"):
        return None
    if axes is not None:
        held = np.expand_dims(inner.array, tuple(int(axis) for axis in axes.array.ravel()))
    else:
        held = np.transpose(inner.array, attributes(node).get("perm"))
    return Constant(held, held.astype(np.float64)) if inner.quantised is None else None


def _rescaled(node: ir.Node) -> Constant | None:
    inner, scale = evaluate_constant(node.inputs[0]), onnx_file.initializer_array(node.inputs[1])
    if inner is None or scale is None:
        return None
    axis = node.attributes["axis"].as_int() if "axis" in node.attributes else 1
    shape = [-1 if dim == axis else 1 for dim in range(inner.values.ndim)]
    scale = scale.reshape(shape) if scale.ndim else scale
    wide = scale.astype(np.float64)
    stored = onnx_file.initializer_array(node.inputs[2]) if len(node.inputs) > 2 else None
    zero = np.float64(0) if stored is None else stored.astype(np.float64).reshape(wide.shape)
    if node.op_type == "QuantizeLinear":
        if zero.any():
            return None
        levels = np.clip(np.rint(inner.array.astype(np.float32) / wide.astype(np.float32)), -128, 127)
        return Constant(levels.astype(np.int8), levels.astype(np.float64))
    centred = inner.values - zero
    with np.errstate(invalid="ignore"):  # 0 under an infinite scale is NaN, which no bound lets pass
        values = centred * wide
    return Constant(inner.array, values, (Constant(inner.array, centred), Constant(scale, wide)))


HANDED_ON: dict[str, Callable[[ir.Node], Constant | None]] = {
    "Transpose": _laid_out,
    "Unsqueeze": _laid_out,
    "QuantizeLinear": _rescaled,
    "DequantizeLinear": _rescaled,
}


def attributes(node: ir.Node) -> dict[str, Any]:
    """What the node is told, defaults filled in, so that leaving one out and writing it are the same."""
    told = {name: _plain(attribute) for name, attribute in node.attributes.items()}
    told = {**_defaults(node.op_type, node.domain), **told}
    if node.op_type in {"Conv", "MaxPool"}:
        weight = evaluate_constant(node.inputs[1]) if node.op_type == "Conv" else None
        rank = len(told.get("kernel_shape") or (weight.array.shape[2:] if weight else (0, 0)))
        told = {"strides": [1] * rank, "dilations": [1] * rank, "pads": [0] * 2 * rank, **told}
        if weight is not None:
            told["kernel_shape"] = list(weight.array.shape[2:])
    return {name: _text(value) for name, value in told.items()}


@cache
def _defaults(operator: str, domain: str) -> dict[str, Any]:
    """What an operator is told where nothing is said; of one that ONNX does not know, nothing is known."""
    if not onnx.defs.has(operator, 17, domain):
        return {}
    found = onnx.defs.get_schema(operator, 17, domain).attributes.items()
    held = {name: attribute.default_value for name, attribute in found}
    return {name: onnx.helper.get_attribute_value(value) for name, value in held.items() if value.type}


def _plain(attribute: ir.Attr) -> Any:
    value = attribute.value
    return list(value) if isinstance(value, (list, tuple)) else value


def _text(value: Any) -> Any:
    return value.decode() if isinstance(value, bytes) else value


def operator_version(node: ir.Node, opsets: Mapping[str, int]) -> int | None:
    """The version of the operator that the opset gives; None for operators that ONNX does not know."""
    version = opsets.get(node.domain)
    known = version is not None and onnx.defs.has(node.op_type, version, node.domain)
    return onnx.defs.get_schema(node.op_type, version or 0, node.domain).since_version if known else None
