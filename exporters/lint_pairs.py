"""What can be wrong with a Q/DQ pair itself: one question to one node each, in whatever graph it stands."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from exporters.pairs import ZERO, held, levels, made_by, zero_of

if TYPE_CHECKING:
    import onnx_ir as ir
    from numpy.typing import NDArray

PAIR = ("QuantizeLinear", "DequantizeLinear")
SYMMETRIC = {"int8", "float8_e4m3fn"}
FLOATS = {"float16", "float32", "float64", "bfloat16"}
ROUNDED = 2**-10  # the most that float16 changes a scale


def is_a(node: ir.Node | None, *operators: str) -> bool:
    """Whether ``node`` is one of these operators of ONNX itself."""
    return node is not None and node.domain == "" and node.op_type in operators


def on_activation(node: ir.Node) -> bool:
    """Whether it quantises what is computed."""
    return is_a(node, "QuantizeLinear") and held(node, 0) is None


def quantise_of(node: ir.Node) -> ir.Node | None:
    """The QuantizeLinear that a DequantizeLinear reads."""
    maker = made_by(node, 0) if is_a(node, "DequantizeLinear") else None
    return maker if is_a(maker, "QuantizeLinear") else None


def scales(node: ir.Node | None) -> int:
    """How many scales a Quantize- or DequantizeLinear has; 1 where they are not known."""
    scale = held(node, 1) if node is not None else None
    return 1 if scale is None else int(scale.size)


def asymmetric(node: ir.Node) -> bool:
    """Whether its zero point is not one that TensorRT reads, or not known."""
    zero = zero_of(node)
    return zero is None or zero.dtype.name not in SYMMETRIC or bool(zero.any())


def activation_asymmetric(node: ir.Node) -> bool:
    """The same of a pair on an activation."""
    return on_activation(node) and asymmetric(node)


def cuts(node: ir.Node) -> bool:
    """Whether its zero point cuts off values that can arrive."""
    return on_activation(node) and levels(node) is None


def activation_by_channel(node: ir.Node) -> bool:
    """Whether an activation has several scales."""
    return on_activation(node) and scales(node) > 1


def not_positive(node: ir.Node) -> bool:
    """Whether a scale is 0, negative, infinite or no number at all."""
    scale = held(node, 1) if is_a(node, *PAIR) else None
    if scale is None:
        return False
    numbers = scale.size > 0 and scale.dtype.name in FLOATS
    return not numbers or not bool((np.isfinite(scale) & (scale > 0)).all())


def computed(node: ir.Node) -> bool:
    """Whether the scale, or a zero point that is there, is no constant."""
    told = [1, ZERO] if len(node.inputs) > ZERO and node.inputs[ZERO] is not None else [1]
    return is_a(node, *PAIR) and any(held(node, index) is None for index in told)


def unlike(node: ir.Node) -> bool:
    """Whether a DequantizeLinear has another scale or zero point than its QuantizeLinear."""
    quantise = quantise_of(node)
    if quantise is None:
        return False
    return _differ(held(quantise, 1), held(node, 1)) or _differ(zero_of(quantise), zero_of(node))


def ill_typed(node: ir.Node) -> bool:
    """Whether the zero point has another type than the levels; one left out of QuantizeLinear makes them UINT8."""
    zero, quantise = zero_of(node) if is_a(node, *PAIR) else None, quantise_of(node)
    levels_type = held(node, 0) if quantise is None else zero_of(quantise)
    return (
        is_a(node, "DequantizeLinear")
        and zero is not None
        and levels_type is not None
        and zero.dtype != levels_type.dtype
    )


def miscounted(node: ir.Node) -> bool:
    """Whether there are not as many scales as zero points, or as channels of the constant that they scale."""
    scale = held(node, 1) if is_a(node, *PAIR) and "block_size" not in node.attributes else None
    zero, values = held(node, ZERO), held(node, 0)
    if scale is None or zero is None or zero.size != scale.size:
        return scale is not None and zero is not None
    if values is None or scale.size == 1:
        return False
    axis = node.attributes.get_int("axis", 1)
    return not -values.ndim <= axis < values.ndim or values.shape[axis] != scale.size


def under_two_scales(node: ir.Node) -> bool:
    """Whether another QuantizeLinear reads the same activation and scales it otherwise."""
    read = node.inputs[:1] if on_activation(node) else ()
    readers = [use.node for value in read if value is not None for use in value.uses()]
    return any(is_a(reader, "QuantizeLinear") and _differ(held(node, 1), held(reader, 1)) for reader in readers)


def _differ(one: NDArray[Any] | None, other: NDArray[Any] | None) -> bool:
    if one is None or other is None:
        return False
    mine, yours = one.ravel().astype(np.float64), other.ravel().astype(np.float64)
    return mine.size != yours.size or not np.allclose(mine, yours, rtol=ROUNDED, atol=0, equal_nan=True)
