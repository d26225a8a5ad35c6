"""What a graph holds fixed: constants, however they are stored, and attributes with their defaults."""

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

# The opset whose defaults of attributes hold: the one that export writes.
OPSET = 17
INT8_MIN, INT8_MAX = -128, 127


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
        return _of_array(array)
    node = value.producer() if value is not None else None
    if node is None:
        return None
    evaluate = EVALUATED.get(node.op_type)
    return None if evaluate is None else evaluate(node)


def _of_array(array: NDArray[Any]) -> Constant:
    return Constant(array, array.astype(np.float64))


def _constant_node(node: ir.Node) -> Constant | None:
    """What a Constant holds, in whichever of its attributes; None where that is text."""
    (attribute,) = node.attributes.values()
    # A tensor is in "value"; numbers are as they are in "value_float", "value_ints" and the like.
    numbers = attribute.as_tensor().numpy() if attribute.name == "value" else attribute.value
    array = np.asarray(numbers)
    is_number = array.dtype.kind in "biuf"
    return _of_array(array) if is_number else None


def _identity(node: ir.Node) -> Constant | None:
    return evaluate_constant(node.inputs[0])


def _cast(node: ir.Node) -> Constant | None:
    operand = evaluate_constant(node.inputs[0])
    if operand is None:
        return None
    dtype = ir.DataType(node.attributes["to"].as_int()).numpy()
    return _of_array(operand.array.astype(dtype))


def _transpose(node: ir.Node) -> Constant | None:
    """The exporter hands on the weight of a MatMul this way; of quantised numbers the scale's axis would move too."""
    operand = evaluate_constant(node.inputs[0])
    if operand is None or operand.quantised is not None:
        return None
    return _of_array(np.transpose(operand.array, attributes(node).get("perm")))


def _unsqueeze(node: ir.Node) -> Constant | None:
    """The exporter hands on the slope of a PReLU this way; of quantised numbers the scale's axis would move too."""
    operand = evaluate_constant(node.inputs[0])
    axes = evaluate_constant(node.inputs[1]) if len(node.inputs) > 1 else None
    if operand is None or axes is None or operand.quantised is not None:
        return None
    new_axes = tuple(int(axis) for axis in axes.array.ravel())
    return _of_array(np.expand_dims(operand.array, new_axes))


def _quantise(node: ir.Node) -> Constant | None:
    """INT8 levels of a constant; None under a zero point that is not 0."""
    operand = evaluate_constant(node.inputs[0])
    if operand is None:
        return None
    scale = _scale_along_axis(node, operand.values.ndim)
    if scale is None or _zero_point(node, scale).any():
        return None

    # In float32, as a runtime computes it.
    quotients = operand.array.astype(np.float32) / scale.astype(np.float32)
    levels = np.clip(np.rint(quotients), INT8_MIN, INT8_MAX)
    return Constant(levels.astype(np.int8), levels.astype(np.float64))


def _dequantise(node: ir.Node) -> Constant | None:
    operand = evaluate_constant(node.inputs[0])
    if operand is None:
        return None
    scale = _scale_along_axis(node, operand.values.ndim)
    if scale is None:
        return None

    levels = operand.values - _zero_point(node, scale)
    with np.errstate(invalid="ignore"):  # 0 under an infinite scale is NaN, which no bound lets pass
        values = levels * scale.astype(np.float64)
    return Constant(operand.array, values, quantised=(Constant(operand.array, levels), _of_array(scale)))


def _scale_along_axis(node: ir.Node, rank: int) -> NDArray[Any] | None:
    """The scale of a Quantize- or DequantizeLinear, one a channel shaped to multiply ``rank`` dimensions.

    None where it is computed.
    """
    scale = onnx_file.initializer_array(node.inputs[1])
    if scale is None or scale.ndim == 0:
        return scale
    channel_axis = node.attributes["axis"].as_int() if "axis" in node.attributes else 1
    shape = [-1 if axis == channel_axis else 1 for axis in range(rank)]
    return scale.reshape(shape)


def _zero_point(node: ir.Node, scale: NDArray[Any]) -> NDArray[np.float64]:
    """The zero point in the shape of ``scale``; 0 where none is written."""
    stored = onnx_file.initializer_array(node.inputs[2]) if len(node.inputs) > 2 else None
    if stored is None:
        return np.zeros((), np.float64)
    return stored.astype(np.float64).reshape(scale.shape)


EVALUATED: dict[str, Callable[[ir.Node], Constant | None]] = {
    "Constant": _constant_node,
    "Identity": _identity,
    "Cast": _cast,
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
    "QuantizeLinear": _quantise,
    "DequantizeLinear": _dequantise,
}


def attributes(node: ir.Node) -> dict[str, Any]:
    """The attributes of ``node``, defaults filled in, so that leaving one out and writing it are the same."""
    filled = dict(_defaults(node.op_type, node.domain))
    for name, attribute in node.attributes.items():
        filled[name] = _plain(attribute)

    if node.op_type in {"Conv", "MaxPool"}:
        # Their defaults depend on the number of spatial axes, so no schema can hold them.
        weight = evaluate_constant(node.inputs[1]) if node.op_type == "Conv" else None
        rank = _spatial_rank(filled.get("kernel_shape"), weight)
        filled = {"strides": [1] * rank, "dilations": [1] * rank, "pads": [0] * 2 * rank, **filled}
        if weight is not None:
            filled["kernel_shape"] = list(weight.array.shape[2:])

    return {name: _text(value) for name, value in filled.items()}


def _spatial_rank(kernel_shape: list[int] | None, weight: Constant | None) -> int:
    """The number of axes behind batch and channels; 2, as of an image, where nothing tells it."""
    if kernel_shape:
        return len(kernel_shape)
    if weight is not None:
        return len(weight.array.shape[2:])
    return 2


@cache
def _defaults(operator: str, domain: str) -> dict[str, Any]:
    """The default of every attribute that has one; empty for an operator that ONNX does not know."""
    if not onnx.defs.has(operator, OPSET, domain):
        return {}
    defaults = {}
    for name, attribute in onnx.defs.get_schema(operator, OPSET, domain).attributes.items():
        default = attribute.default_value
        if default.type:  # an attribute without a default has an empty value of no type
            defaults[name] = onnx.helper.get_attribute_value(default)
    return defaults


def _plain(attribute: ir.Attr) -> Any:
    value = attribute.value
    return list(value) if isinstance(value, (list, tuple)) else value


def _text(value: Any) -> Any:
    return value.decode() if isinstance(value, bytes) else value


def operator_version(node: ir.Node, opsets: Mapping[str, int]) -> int | None:
    """The first version of the operator that means what the opset gives; None for operators that ONNX does not know.

    A version that takes more types, and says all else in the same words, means the same: Flatten of opset 21, which
    takes INT4 as well, is that of opset 13.
    """
    opset = opsets.get(node.domain)
    if opset is None or not onnx.defs.has(node.op_type, opset, node.domain):
        return None
    return _first_version(node.op_type, opset, node.domain)


@cache
def _first_version(operator: str, opset: int, domain: str) -> int:
    schema = onnx.defs.get_schema(operator, opset, domain)
    while onnx.defs.has(operator, schema.since_version - 1, domain):
        older = onnx.defs.get_schema(operator, schema.since_version - 1, domain)
        if _meaning(older) != _meaning(schema):
            break
        schema = older
    return schema.since_version


def _meaning(schema: onnx.defs.OpSchema) -> tuple[object, ...]:
    """All that ONNX says of one version of an operator, but for the types that it takes."""
    attributes = {}
    for name, attribute in schema.attributes.items():
        default = attribute.default_value.SerializeToString(deterministic=True)
        attributes[name] = (attribute.type, attribute.required, default)
    inputs = [(value.name, value.option) for value in schema.inputs]
    outputs = [(value.name, value.option) for value in schema.outputs]
    return schema.doc, attributes, inputs, outputs
