"""Powers of two by which the channels of one graph differ from those of another, read off their layers.

A guess that needs no trust: the graph before is rescaled by it, which provably changes nothing, and the comparison
goes on from there. Where the guess is wrong, that comparison refutes it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from exporters import channel_space
from exporters.constant import evaluate_constant
from exporters.node_attributes import attributes

if TYPE_CHECKING:
    from collections.abc import Mapping

    import onnx_ir as ir
    from numpy.typing import NDArray

    from exporters.channel_space import Space

    Rows = NDArray[np.float64]

# No guess goes beyond 2^±64.
LIMIT = 64


class _Layer(NamedTuple):
    """What a layer and the normalisation behind it do together.

    ``weight`` is (outputs, inputs / groups, positions), ``bias`` (outputs,).
    """

    weight: Rows
    bias: Rows


def follow(before: ir.Graph, twins: Mapping[ir.Node, ir.Node]) -> int:
    """Rescale ``before`` to the channels of the graph after; the number of channel spaces that this changed.

    ``twins`` are the nodes of the graph after that stand for those of ``before``.
    """
    changed = {space: exponents for space, exponents in _exponents(before, twins).items() if exponents.any()}
    channel_space.rescale(before, changed)
    return len(changed)


def _exponents(before: ir.Graph, twins: Mapping[ir.Node, ir.Node]) -> dict[Space, NDArray[np.int64]]:
    """For each channel space of ``before`` the powers of two by which the graph after divides its channels."""
    read_space: dict[ir.Node, Space] = {}
    written_space: dict[ir.Node, Space] = {}
    # NaN until a writer tells: in a residual stream, a channel that one writer leaves at 0 another one may fill.
    exponents: dict[Space, Rows] = {}
    for space in channel_space.spaces(before):
        read_space.update(dict.fromkeys(space.readers, space))
        written_space.update(dict.fromkeys(space.writers, space))
        exponents[space] = np.full(space.channels, np.nan)

    # In the order of the graph: what a layer reads has been told by the time that the layer is reached.
    for node in before:
        space_behind = written_space.get(node)
        if space_behind is None:
            continue
        twin = twins.get(node)
        if twin is None:
            continue
        space_before = read_space.get(_layer_before(node))
        input_exponents = exponents[space_before] if space_before is not None else None
        output_exponents = _output_exponents(node, twin, input_exponents)
        if output_exponents is not None:
            known = exponents[space_behind]
            known[:] = np.where(np.isnan(known), output_exponents, known)

    return {space: np.nan_to_num(values, nan=0.0).astype(np.int64) for space, values in exponents.items()}


def _output_exponents(node: ir.Node, twin: ir.Node, input_exponents: Rows | None) -> Rows | None:
    """The exponent of each output channel, (C,), by its weights and by its bias; NaN where both are 0, 0 in dispute.

    ``twin`` is the node of the graph after that computes the same tensor. None where the two cannot be compared.
    """
    old = _effective(node)
    new = _effective(twin)
    if old is None or new is None or old.weight.shape != new.weight.shape or old.bias.shape != new.bias.shape:
        return None

    old_weight = old.weight
    new_weight = new.weight
    if input_exponents is not None and input_exponents.any():
        # Rescaled inputs are taken back first, and those that nothing is known of are left out on both sides.
        power = channel_space.to_outputs(_layer_before(node), input_exponents)[:, :, None]
        known = ~np.isnan(power)
        old_weight = old_weight * np.exp2(np.nan_to_num(power)) * known
        new_weight = new_weight * known

    by_weight = _ratio(old_weight, new_weight)
    by_bias = _ratio(old.bias[:, None], new.bias[:, None])
    agreed = np.isnan(by_bias) | (by_weight == by_bias)
    bias_alone = np.isnan(by_weight)
    return np.where(agreed, by_weight, np.where(bias_alone, by_bias, 0.0))


def _ratio(old: Rows, new: Rows) -> Rows:
    """The whole exponent of two next to the ratio of the norms of each row; NaN where a norm is 0 or not finite."""
    old_norm = _norm(old)
    new_norm = _norm(new)
    comparable = np.isfinite(old_norm) & np.isfinite(new_norm) & (old_norm > 0) & (new_norm > 0)
    logarithms = np.log2(np.where(comparable, old_norm, 1.0)) - np.log2(np.where(comparable, new_norm, 1.0))
    return np.where(comparable, np.clip(np.rint(logarithms), -LIMIT, LIMIT), np.nan)


def _norm(rows: Rows) -> Rows:
    """The Euclidean norm of each row."""
    flat = rows.reshape(len(rows), -1)
    squares: Rows = np.einsum("ij,ij->i", flat, flat)
    return np.sqrt(squares)


def _layer_before(node: ir.Node) -> ir.Node:
    """The layer whose outputs ``node`` scales: itself, or what stands before a BatchNormalization."""
    if node.op_type != "BatchNormalization" or node.inputs[0] is None:
        return node
    layer = node.inputs[0].producer()
    return layer if layer is not None and layer.op_type in channel_space.LAYERS else node


def _effective(node: ir.Node) -> _Layer | None:
    """Weight and bias of a layer with the normalisation behind it; None where they are no constants."""
    layer = _layer_before(node)
    if layer.op_type not in {*channel_space.LAYERS, "BatchNormalization"}:
        return None
    operands = [evaluate_constant(value) for value in layer.inputs[1:3]]
    if not operands or operands[0] is None:
        return None

    weight = channel_space.by_output(layer, operands[0].values)
    bias = np.zeros(len(weight))
    if len(operands) > 1 and operands[1] is not None:
        bias = operands[1].values
    if layer is node or len(bias) != len(weight):
        return _Layer(weight, bias)

    statistics = []
    for value in node.inputs[1:5]:
        constant = evaluate_constant(value)
        if constant is None or len(constant.values) != len(weight):
            return None
        statistics.append(constant.values)
    gamma, beta, mean, var = statistics
    gain = gamma / np.sqrt(var + attributes(node)["epsilon"])
    return _Layer(weight * gain[:, None, None], gain * (bias - mean) + beta)
