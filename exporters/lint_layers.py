"""What can be wrong between Q/DQ pairs and the layers that read them: one question to one node each."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from exporters.lint_pairs import asymmetric, is_a, scales
from exporters.pairs import held, made_by, makers

if TYPE_CHECKING:
    import onnx_ir as ir
    from numpy.typing import NDArray

WEIGHTED = ("Conv", "Gemm")
PER_GROUP = 4  # channels of an INT8 convolution's group are a multiple of it in TensorRT


def _paired(node: ir.Node, index: int) -> ir.Node | None:
    """The DequantizeLinear that ``node`` reads at ``index``."""
    maker = made_by(node, index)
    return maker if is_a(maker, "DequantizeLinear") else None


def _pairs(node: ir.Node, *operators: str) -> list[ir.Node | None]:
    """Those of its first two inputs; nothing of other operators."""
    return [_paired(node, index) for index in (0, 1)] if is_a(node, *operators) else []


def _quantised(node: ir.Node | None) -> bool:
    return node is not None and all(pairs := _pairs(node, *WEIGHTED)) and bool(pairs)


def _weights(node: ir.Node) -> tuple[ir.Node, NDArray[Any], int] | None:
    """The DequantizeLinear of a layer's weights, what is stored of them, and the axis of their output channels."""
    pair = _paired(node, 1) if is_a(node, *WEIGHTED) else None
    chain = makers(node.inputs[1]) if pair is not None else ()
    stored = next((array for each in chain if (array := held(each, 0)) is not None), None)
    if pair is None or stored is None or stored.ndim < 2:
        return None
    return pair, stored, int(is_a(node, "Gemm") and not _number(node, "transB", 0))


def _number(node: ir.Node, attribute: str, default: int) -> int:
    return node.attributes[attribute].as_int() if attribute in node.attributes else default


def weights_under_one_scale(node: ir.Node) -> bool:
    """Whether all output channels share one scale."""
    found = _weights(node)
    return found is not None and scales(found[0]) == 1 < found[1].shape[found[2]]


def weights_along_another_axis(node: ir.Node) -> bool:
    """Whether the scales of the weights belong to other than their output channels."""
    found = _weights(node)
    if found is None or scales(found[0]) == 1:
        return False
    pair, stored, axis = found
    return _number(pair, "axis", 1) % stored.ndim != axis


def weights_asymmetric(node: ir.Node) -> bool:
    """Whether the zero point of the weights is not one that TensorRT reads."""
    found = _weights(node)
    return found is not None and asymmetric(found[0])


def weights_stored(node: ir.Node) -> bool:
    """Whether the weights are stored quantised, with no QuantizeLinear in the file."""
    found = _weights(node)
    return found is not None and held(found[0], 0) is not None


def bias_paired(node: ir.Node) -> bool:
    """Whether the bias is quantised."""
    return is_a(node, *WEIGHTED) and _paired(node, 2) is not None


def uneven_groups(node: ir.Node) -> bool:
    """Whether an INT8 convolution's groups have channels that are no multiple of 4, on either side."""
    found, groups = _weights(node), _number(node, "group", 1) if is_a(node, "Conv") else 1
    if found is None or groups < 2 or not _quantised(node):
        return False
    stored = found[1]
    return any(size % PER_GROUP for size in (len(stored) // groups, stored.shape[1]))


def half_quantised(node: ir.Node) -> bool:
    """Whether one of activation and weights has a pair; a layer with none is left in float, which is no fault."""
    pairs = _pairs(node, *WEIGHTED)
    return any(pairs) and not all(pairs)


def mixed_types(node: ir.Node) -> bool:
    """Whether activation and weights are dequantised to different types."""
    found = [held(pair, 1) for pair in _pairs(node, *WEIGHTED) if pair is not None]
    return len({scale.dtype for scale in found if scale is not None}) > 1


def after_pair(node: ir.Node) -> bool:
    """Whether a ReLU reads its convolution through a pair."""
    pair = _paired(node, 0) if is_a(node, "Relu") else None
    quantise = made_by(pair, 0) if pair is not None else None
    return quantise is not None and is_a(made_by(quantise, 0), *WEIGHTED)


def pooled_to_float(node: ir.Node) -> bool:
    """Whether a MaxPool reads a pair and anything but a QuantizeLinear reads the MaxPool."""
    readers = [use.node for value in node.outputs for use in value.uses()]
    floats = not all(is_a(reader, "QuantizeLinear") for reader in readers)
    return is_a(node, "MaxPool") and _paired(node, 0) is not None and floats


def _residual(node: ir.Node) -> bool:
    return is_a(node, "Add") and held(node, 0) is None and held(node, 1) is None


def both_paired(node: ir.Node) -> bool:
    """Whether both inputs of a residual Add have a pair."""
    return _residual(node) and all(_pairs(node, "Add"))


def none_paired(node: ir.Node) -> bool:
    """Whether a residual Add reads an INT8 convolution, and no pair."""
    convolved = any(_quantised(made_by(node, index)) for index in (0, 1))
    return convolved and _residual(node) and not any(_pairs(node, "Add"))
