"""What can be wrong with a Q/DQ pair itself: one question to one node each, in whatever graph it stands."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from exporters import number_formats
from exporters.pairs import SCALE, ZERO_POINT, held, made_by, number_format_of, zero_of

if TYPE_CHECKING:
    import onnx_ir as ir
    from numpy.typing import NDArray

PAIR = ("QuantizeLinear", "DequantizeLinear")
# What a scale may be stored in.
FLOATS = {"float16", "float32", "float64", "bfloat16"}
# The most that float16 changes a scale, as a share of it.
ROUNDED = 2**-10


def is_a(node: ir.Node | None, *operators: str) -> bool:
    """Whether ``node`` is one of these operators of ONNX itself."""
    return node is not None and node.domain == "" and node.op_type in operators


def on_activation(node: ir.Node) -> bool:
    """Whether it quantises what is computed."""
    return is_a(node, "QuantizeLinear") and held(node, 0) is None


def quantise_of(node: ir.Node) -> ir.Node | None:
    """The QuantizeLinear that a DequantizeLinear reads."""
    if not is_a(node, "DequantizeLinear"):
        return None
    maker = made_by(node, 0)
    return maker if is_a(maker, "QuantizeLinear") else None


def scales(node: ir.Node | None) -> int:
    """How many scales a Quantize- or DequantizeLinear has; 1 where they are not known."""
    if node is None:
        return 1
    scale = held(node, SCALE)
    return 1 if scale is None else int(scale.size)


def asymmetric(node: ir.Node) -> bool:
    """Whether its zero point is not one that TensorRT reads, or not known."""
    zero_point = zero_of(node)
    if zero_point is None or number_formats.symmetric_in(zero_point.dtype) is None:
        return True
    return bool(zero_point.any())


def activation_asymmetric(node: ir.Node) -> bool:
    """The same of a pair on an activation."""
    return on_activation(node) and asymmetric(node)


def cuts(node: ir.Node) -> bool:
    """Whether its zero point cuts off values that can arrive."""
    return on_activation(node) and number_format_of(node) is None


def activation_by_channel(node: ir.Node) -> bool:
    """Whether an activation has several scales."""
    return on_activation(node) and scales(node) > 1


def not_positive(node: ir.Node) -> bool:
    """Whether a scale is 0, negative, infinite or no number at all."""
    scale = held(node, SCALE) if is_a(node, *PAIR) else None
    if scale is None:
        return False
    if scale.size == 0 or scale.dtype.name not in FLOATS:
        return True
    positive = np.isfinite(scale) & (scale > 0)
    return not bool(positive.all())


def computed(node: ir.Node) -> bool:
    """Whether the scale, or a zero point that is there, is no constant."""
    if not is_a(node, *PAIR):
        return False
    if held(node, SCALE) is None:
        return True
    has_zero_point = len(node.inputs) > ZERO_POINT and node.inputs[ZERO_POINT] is not None
    return has_zero_point and held(node, ZERO_POINT) is None


def unlike(node: ir.Node) -> bool:
    """Whether a DequantizeLinear has another scale or zero point than its QuantizeLinear."""
    quantise = quantise_of(node)
    if quantise is None:
        return False
    return _differ(held(quantise, SCALE), held(node, SCALE)) or _differ(zero_of(quantise), zero_of(node))


def ill_typed(node: ir.Node) -> bool:
    """Whether the zero point has another type than the levels; one left out of QuantizeLinear makes them UINT8."""
    if not is_a(node, "DequantizeLinear"):
        return False

    # What is not stored comes out of a QuantizeLinear, in the type of that one's zero point.
    quantise = quantise_of(node)
    levels = held(node, 0) if quantise is None else zero_of(quantise)
    zero_point = zero_of(node)
    if levels is None or zero_point is None:
        return False
    return zero_point.dtype != levels.dtype


def miscounted(node: ir.Node) -> bool:
    """Whether there are not as many scales as zero points, or as channels of the constant that they scale."""
    # With block_size a scale belongs to a block of a channel, and has another shape.
    if not is_a(node, *PAIR) or "block_size" in node.attributes:
        return False
    scale = held(node, SCALE)
    zero_point = held(node, ZERO_POINT)
    if scale is None or zero_point is None:
        return False
    if zero_point.size != scale.size:
        return True

    stored = held(node, 0)
    if stored is None or scale.size == 1:
        return False
    axis = node.attributes.get_int("axis", 1)
    has_axis = -stored.ndim <= axis < stored.ndim
    return not has_axis or stored.shape[axis] != scale.size


def under_two_scales(node: ir.Node) -> bool:
    """Whether another QuantizeLinear reads the same activation and scales it otherwise."""
    activation = node.inputs[0] if on_activation(node) and node.inputs else None
    if activation is None:
        return False
    for use in activation.uses():
        if is_a(use.node, "QuantizeLinear") and _differ(held(node, SCALE), held(use.node, SCALE)):
            return True
    return False


def _differ(one: NDArray[Any] | None, other: NDArray[Any] | None) -> bool:
    """Whether two scales or zero points differ by more than float16 rounds; what is not known does not."""
    if one is None or other is None:
        return False
    # In float64, since scales may have been stored in different types.
    numbers = one.ravel().astype(np.float64)
    others = other.ravel().astype(np.float64)
    if numbers.size != others.size:
        return True
    return not np.allclose(numbers, others, rtol=ROUNDED, atol=0, equal_nan=True)
