"""Powers of two by which the channels of one graph differ from those of another, read off their layers.

A guess that needs no trust: the graph before is rescaled by it, which provably changes nothing, and the comparison
goes on from there. Where the guess is wrong, that comparison refutes it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from exporters import channel_space, onnx_file
from exporters.constant import attributes, evaluate_constant

if TYPE_CHECKING:
    import onnx_ir as ir
    from numpy.typing import NDArray

    from exporters.channel_space import Space

    Rows = NDArray[np.float64]

LIMIT = 64


def follow(before: ir.Graph, after: ir.Graph) -> int:
    """Rescale ``before`` to the channels of ``after``; the number of channel spaces that this changed."""
    for node in list(before):
        # The exporter keeps weights of the same values once, and hands them on through Identity.
        held = node.inputs[0] if node.op_type == "Identity" else None
        if held is not None and onnx_file.initializer_array(held) is not None and not node.outputs[0].is_graph_output():
            node.outputs[0].replace_all_uses_with(held)
    exponents = {space: found for space, found in _exponents(before, after).items() if found.any()}
    channel_space.rescale(before, exponents)
    return len(exponents)


def _exponents(before: ir.Graph, after: ir.Graph) -> dict[Space, NDArray[np.int64]]:
    spaces = channel_space.spaces(before)
    twins = {node.outputs[0].name: node for node in after if node.outputs}
    read = {node: space for space in spaces for node in space.readers}
    written = {node: space for space in spaces for node in space.writers}
    # NaN until a writer tells: in a residual stream, a channel that one writer leaves at 0 another one may fill.
    found = {space: np.full(space.channels, np.nan) for space in spaces}
    for node in before:
        twin = twins.get(node.outputs[0].name) if node in written else None
        if twin is None:
            continue
        layer = _layer(node)
        told = _told(node, twin, found[read[layer]] if layer in read else None)
        unknown = found[written[node]]
        if told is not None:
            unknown[:] = np.where(np.isnan(unknown), told, unknown)
    return {space: np.nan_to_num(values, nan=0.0).astype(np.int64) for space, values in found.items()}


def _told(node: ir.Node, twin: ir.Node, into: Rows | None) -> Rows | None:
    """The exponent of each output channel, (C,), by its weights and by its bias; NaN where both are 0, 0 in dispute."""
    was, now = _effective(node), _effective(twin)
    if was is None or now is None or any(one.shape != other.shape for one, other in zip(was, now, strict=True)):
        return None
    if into is None or not into.any():
        rows = _ratio(was[0], now[0])
    else:
        power = channel_space.to_outputs(_layer(node), into)
        seen = ~np.isnan(power)[:, :, None]
        rows = _ratio(was[0] * np.exp2(np.nan_to_num(power))[:, :, None] * seen, now[0] * seen)
    bias = _ratio(was[1][:, None], now[1][:, None])
    return np.where(np.isnan(bias) | (rows == bias), rows, np.where(np.isnan(rows), bias, 0.0))


def _ratio(was: Rows, now: Rows) -> Rows:
    flat = (values.reshape(len(values), -1) for values in (was, now))
    one, other = (np.sqrt(np.einsum("ij,ij->i", values, values)) for values in flat)
    live = np.isfinite(one) & np.isfinite(other) & (one > 0) & (other > 0)
    logarithms = np.log2(np.where(live, one, 1.0)) - np.log2(np.where(live, other, 1.0))
    return np.where(live, np.clip(np.rint(logarithms), -LIMIT, LIMIT), np.nan)


def _layer(node: ir.Node) -> ir.Node:
    """The layer whose outputs ``node`` scales: itself, or what stands before a BatchNormalization."""
    before = node.inputs[0].producer() if node.op_type == "BatchNormalization" and node.inputs[0] is not None else None
    return before if before is not None and before.op_type in channel_space.LAYERS else node


def _effective(node: ir.Node) -> tuple[Rows, Rows] | None:
    """Weight (outputs, inputs / groups, positions) and bias (outputs,) of a layer and the normalisation behind it."""
    layer = _layer(node)
    operands = [evaluate_constant(value) for value in layer.inputs[1:3]]
    if layer.op_type not in {*channel_space.LAYERS, "BatchNormalization"} or not operands or operands[0] is None:
        return None
    weight = channel_space.by_output(layer, operands[0].values)
    bias = operands[1].values if len(operands) > 1 and operands[1] is not None else np.zeros(len(weight))
    if layer is node or len(bias) != len(weight):
        return weight, bias
    numbers = [evaluate_constant(value) for value in node.inputs[1:5]]
    if any(found is None or len(found.values) != len(weight) for found in numbers):
        return None
    gamma, beta, mean, var = (found.values for found in numbers if found is not None)
    gain = gamma / np.sqrt(var + attributes(node)["epsilon"])
    return weight * gain[:, None, None], gain * (bias - mean) + beta
