"""What can be wrong between Q/DQ pairs and the layers that read them: one question to one node each."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from exporters.lint_pairs import asymmetric, is_a, scales
from exporters.pairs import SCALE, held, made_by, makers

if TYPE_CHECKING:
    import onnx_ir as ir
    from numpy.typing import NDArray

WEIGHTED = ("Conv", "Gemm")
# Where a layer reads them.
WEIGHT, BIAS = 1, 2
# In TensorRT the channels of a group of an INT8 convolution are a multiple of this.
PER_GROUP = 4


class _Weights(NamedTuple):
    """The weights of a layer: their ``dequantise`` node, what is ``stored`` of them, the axis of their outputs."""

    dequantise: ir.Node
    stored: NDArray[Any]
    output_axis: int


def _dequantise_of(node: ir.Node, index: int) -> ir.Node | None:
    """The DequantizeLinear that ``node`` reads at ``index``."""
    maker = made_by(node, index)
    return maker if is_a(maker, "DequantizeLinear") else None


def _operand_pairs(node: ir.Node) -> list[ir.Node | None]:
    """The DequantizeLinear of each of its first two inputs, None where an input has none."""
    return [_dequantise_of(node, 0), _dequantise_of(node, 1)]


def _is_quantised_layer(node: ir.Node | None) -> bool:
    """Whether ``node`` is a layer whose activation and weights both have a pair."""
    return node is not None and is_a(node, *WEIGHTED) and all(_operand_pairs(node))


def _weights(node: ir.Node) -> _Weights | None:
    """The quantised weights of a layer; None of anything else, or where they are computed or have no outputs."""
    dequantise = _dequantise_of(node, WEIGHT) if is_a(node, *WEIGHTED) else None
    if dequantise is None:
        return None
    stored = _stored_behind(node.inputs[WEIGHT])
    if stored is None or stored.ndim < 2:
        return None
    is_outputs_last = is_a(node, "Gemm") and not _int_attribute(node, "transB", 0)
    return _Weights(dequantise, stored, output_axis=1 if is_outputs_last else 0)


def _stored_behind(value: ir.Value | None) -> NDArray[Any] | None:
    """The constant that ``value`` was made from: levels, or float weights before a whole pair."""
    for maker in makers(value):
        stored = held(maker, 0)
        if stored is not None:
            return stored
    return None


def _int_attribute(node: ir.Node, attribute: str, default: int) -> int:
    return node.attributes[attribute].as_int() if attribute in node.attributes else default


def weights_under_one_scale(node: ir.Node) -> bool:
    """Whether all output channels share one scale."""
    weights = _weights(node)
    if weights is None:
        return False
    outputs = weights.stored.shape[weights.output_axis]
    return scales(weights.dequantise) == 1 and outputs > 1


def weights_along_another_axis(node: ir.Node) -> bool:
    """Whether the scales of the weights belong to other than their output channels."""
    weights = _weights(node)
    if weights is None or scales(weights.dequantise) == 1:
        return False
    scaled_axis = _int_attribute(weights.dequantise, "axis", 1)
    return scaled_axis % weights.stored.ndim != weights.output_axis  # a negative axis counts from the end


def weights_asymmetric(node: ir.Node) -> bool:
    """Whether the zero point of the weights is not one that TensorRT reads."""
    weights = _weights(node)
    return weights is not None and asymmetric(weights.dequantise)


def weights_stored(node: ir.Node) -> bool:
    """Whether the weights are stored quantised, with no QuantizeLinear in the file."""
    weights = _weights(node)
    return weights is not None and held(weights.dequantise, 0) is not None


def bias_paired(node: ir.Node) -> bool:
    """Whether the bias is quantised."""
    return is_a(node, *WEIGHTED) and _dequantise_of(node, BIAS) is not None


def uneven_groups(node: ir.Node) -> bool:
    """Whether an INT8 convolution's groups have channels that are no multiple of 4, on either side."""
    if not is_a(node, "Conv") or not _is_quantised_layer(node):
        return False
    weights = _weights(node)
    groups = _int_attribute(node, "group", 1)
    if weights is None or groups < 2:
        return False
    outputs_per_group = len(weights.stored) // groups
    inputs_per_group = weights.stored.shape[1]
    return outputs_per_group % PER_GROUP != 0 or inputs_per_group % PER_GROUP != 0


def half_quantised(node: ir.Node) -> bool:
    """Whether one of activation and weights has a pair; a layer with none is left in float, which is no fault."""
    if not is_a(node, *WEIGHTED):
        return False
    operand_pairs = _operand_pairs(node)
    return any(operand_pairs) and not all(operand_pairs)


def mixed_types(node: ir.Node) -> bool:
    """Whether activation and weights are dequantised to different types."""
    if not is_a(node, *WEIGHTED):
        return False
    # A DequantizeLinear answers in the type of its scale.
    types = set()
    for dequantise in _operand_pairs(node):
        scale = held(dequantise, SCALE) if dequantise is not None else None
        if scale is not None:
            types.add(scale.dtype)
    return len(types) > 1


def after_pair(node: ir.Node) -> bool:
    """Whether a ReLU reads its convolution through a pair."""
    dequantise = _dequantise_of(node, 0) if is_a(node, "Relu") else None
    quantise = made_by(dequantise, 0) if dequantise is not None else None
    return quantise is not None and is_a(made_by(quantise, 0), *WEIGHTED)


def pooled_to_float(node: ir.Node) -> bool:
    """Whether a MaxPool reads a pair and anything but a QuantizeLinear reads the MaxPool."""
    if not is_a(node, "MaxPool") or _dequantise_of(node, 0) is None:
        return False
    readers = [use.node for value in node.outputs for use in value.uses()]
    return not all(is_a(reader, "QuantizeLinear") for reader in readers)


def _is_residual_add(node: ir.Node) -> bool:
    """Whether ``node`` adds two tensors that are both computed."""
    return is_a(node, "Add") and held(node, 0) is None and held(node, 1) is None


def both_paired(node: ir.Node) -> bool:
    """Whether both inputs of a residual Add have a pair."""
    return _is_residual_add(node) and all(_operand_pairs(node))


def none_paired(node: ir.Node) -> bool:
    """Whether a residual Add reads an INT8 convolution, and no pair."""
    if not _is_residual_add(node) or any(_operand_pairs(node)):
        return False
    return _is_quantised_layer(made_by(node, 0)) or _is_quantised_layer(made_by(node, 1))
