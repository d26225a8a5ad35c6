"""Float32 graph to float16: weights, activations and arithmetic; pixels in and logits out stay float32.

Of an INT8 graph the rest: scales, biases and everything between Q/DQ pairs; the levels stay as they are. TensorRT with
strong typing computes what stands around a convolution in the type that its DequantizeLinear gives, and that is the
type of the scale.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from exporters import onnx_file

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from pathlib import Path

    from numpy.typing import NDArray

NOT_PROVEN = (
    "ONNX Runtime on the CPU rounds to float16 between layers but computes inside them in float32; "
    "float16 sums on a GPU may differ."
)
FLOAT16_MAX = float(np.finfo(np.float16).max)  # 65504
# Images to come may reach further than those that were seen.
MARGIN = 2
# Rounding alone costs weights 2^-23 of their energy at most; what loses a hundred times more has lost bits.
LOST_ENERGY = 1e-5
FLOATS = {ir.DataType.FLOAT, ir.DataType.FLOAT16}
PIXEL_ARITHMETIC = {"Sub", "Div", "Mul", "Add"}
PAIR = {"QuantizeLinear", "DequantizeLinear"}
WEIGHTED = {"Conv", "Gemm"}
OPSET = 19  # the first whose QuantizeLinear and DequantizeLinear take float16 scales
# A scale below the normal numbers keeps fewer bits, which costs less than any larger scale would: at 3e-5 a value is
# off by 0.1 % of itself, and by 100 % under the smallest normal number. Only 0 is no scale at all.
SMALLEST_NORMAL = np.finfo(np.float16).smallest_normal
SMALLEST_SUBNORMAL = np.finfo(np.float16).smallest_subnormal


@dataclass(frozen=True)
class _Division:
    """Which nodes, in the order of the graph, become float16 and which stay in float32.

    ``reasons`` says of each node that stays why it does; empty for one that only stands beside such a node.
    """

    nodes: list[ir.Node]
    reasons: dict[ir.Node, str]

    @property
    def float16(self) -> list[ir.Node]:
        return [node for node in self.nodes if node not in self.reasons]

    @property
    def float32(self) -> list[ir.Node]:
        return [node for node in self.nodes if node in self.reasons]


def float16(src: Path, dst: Path, activation_max: Mapping[str, float]) -> str:
    """Write ``src`` in float16 to ``dst``, but what float16 does not hold: such nodes stay in float32, and are named.

    ``activation_max`` is the largest magnitude seen in each tensor on real images. Raises ValueError where a weight or
    an activation is no finite number.
    """
    model = onnx_file.read(src)
    nodes = _behind_pixels(model.graph)
    _declare_types(nodes)
    division = _divide(nodes, activation_max)
    _part_constants(model.graph, division)
    work = _convert_constants(model, division.float16)
    _convert_outputs(division.float16)
    _cast_between(model.graph, division)
    _cast_graph_outputs(model.graph)
    onnx_file.write(model, dst)
    return "; ".join([work, *_kept_in_float32(division)])


# --- which nodes stay in float32 --------------------------------------------------------------------------------------


def _behind_pixels(graph: ir.Graph) -> list[ir.Node]:
    """All nodes but the pixel arithmetic, which stays float32."""
    pixel_arithmetic = set(_upstream(normalised(graph)))
    return [node for node in graph if node not in pixel_arithmetic]


def normalised(graph: ir.Graph) -> ir.Value:
    """The network's input after the pixel arithmetic at its head, which stays float32 to keep the pixels exact."""
    value = graph.inputs[0]
    while True:
        readers = list(value.consumers())
        if len(readers) != 1 or readers[0].op_type not in PIXEL_ARITHMETIC:
            return value
        for operand in readers[0].inputs:
            if operand is not value and onnx_file.initializer_array(operand) is None:
                return value
        value = readers[0].outputs[0]


def _upstream(value: ir.Value) -> list[ir.Node]:
    """The nodes that lead to ``value``, along the first input of each that is computed."""
    nodes: list[ir.Node] = []
    node = value.producer()
    while node is not None:
        nodes.append(node)
        computed = [operand for operand in node.inputs if operand is not None and operand.const_value is None]
        node = computed[0].producer()
    return nodes


def _declare_types(nodes: list[ir.Node]) -> None:
    """Outputs of no declared type are float32; those of QuantizeLinear have the type of its zero point."""
    for node in nodes:
        if node.op_type == "QuantizeLinear":
            continue
        for output in node.outputs:
            if output.type is None:
                output.type = ir.TensorType(ir.DataType.FLOAT)


def _divide(nodes: list[ir.Node], activation_max: Mapping[str, float]) -> _Division:
    """Which of ``nodes`` stay in float32: those out of range, and those that a Cast would part from them."""
    reasons: dict[ir.Node, str] = {}
    for node in nodes:
        # Both are asked of every node: each raises where a number is not finite.
        of_weights = _reason_of_weights(node)
        of_activations = _reasons_of_activations(node, activation_max)
        if of_weights:
            reasons[node] = of_weights
        elif of_activations:
            reasons[node] = of_activations[0]

    # A node that goes along may draw its own neighbours with it, so this goes on until none is added.
    while True:
        going_along = [node for node in nodes if node not in reasons and _goes_along(node, reasons)]
        if not going_along:
            return _Division(nodes, reasons)
        reasons.update(dict.fromkeys(going_along, ""))


def _reason_of_weights(node: ir.Node) -> str:
    """Why the constants of ``node`` cannot be float16, or nothing."""
    if node.op_type in PAIR:
        return ""  # scales have rules of their own, see _convert_scales
    for value in _float_constants([node]):
        exact = _array(value).astype(np.float64)
        largest = float(np.abs(exact).max(initial=0))
        if not np.isfinite(largest):
            raise ValueError(f"the weights {value.name} are no finite numbers")
        if largest > FLOAT16_MAX:
            return f"weights reach {largest:.3g}"
        noise_power = float(np.sum((exact.astype(np.float16) - exact) ** 2))
        signal_power = float(np.sum(exact**2))
        if noise_power > LOST_ENERGY * signal_power:
            return f"weights as low as {largest:.3g} at most lose their bits"
    return ""


def _reasons_of_activations(node: ir.Node, activation_max: Mapping[str, float]) -> list[str]:
    """Why what ``node`` reads or answers cannot be float16."""
    if _reads_constants_only(node):
        return []
    reasons = []
    for value in (*node.inputs, *node.outputs):
        if value is None or _is_dequantised_weight(value) or str(value.name) not in activation_max:
            continue
        largest = activation_max[str(value.name)]
        if not np.isfinite(largest):
            module = onnx_file.module_of(node) or node.op_type
            raise ValueError(f"the activations of {module} ({node.op_type}) are no finite numbers")
        if largest > FLOAT16_MAX / MARGIN:
            reasons.append(f"activations reach {largest:.3g}")
        elif 0 < largest < SMALLEST_NORMAL:
            reasons.append(f"activations reach no more than {largest:.3g}")
    return reasons


def _goes_along(node: ir.Node, kept: Collection[ir.Node]) -> bool:
    """Whether a Cast would part ``node`` from its pair: a pair goes with its readers, a convolution with its pair."""
    pairs_before = []
    for value in node.inputs:
        producer = value.producer() if value is not None else None
        if producer is not None and producer.op_type in PAIR:
            pairs_before.append(producer)

    if node.op_type in WEIGHTED:
        return any(pair in kept for pair in pairs_before)
    if node.op_type not in PAIR:
        return False
    readers = [reader for value in node.outputs for reader in value.consumers()]
    bound_readers = [reader for reader in readers if reader.op_type in PAIR or reader.op_type in WEIGHTED]
    return any(other in kept for other in (*bound_readers, *pairs_before))


def _reads_constants_only(node: ir.Node) -> bool:
    """Whether all that ``node`` reads is constant, as of a dequantised weight."""
    return all(value is None or value.const_value is not None for value in node.inputs)


def _is_dequantised_weight(value: ir.Value) -> bool:
    node = value.producer()
    return node is not None and _reads_constants_only(node)


def _kept_in_float32(division: _Division) -> list[str]:
    """A sentence that names what stays in float32 for a reason of its own, by module; none where nothing does."""
    reasons = {}
    for node in division.float32:
        if division.reasons[node]:
            module = onnx_file.module_of(node) or node.op_type
            reasons[module] = division.reasons[node]
    if not reasons:
        return []
    return ["float32 kept: " + ", ".join(f"{module} ({reason})" for module, reason in reasons.items())]


# --- the change of type -----------------------------------------------------------------------------------------------


def _part_constants(graph: ir.Graph, division: _Division) -> None:
    """Give every node that is kept a constant of its own where a node in float16 reads the same."""
    shared = {str(value.name) for value in _float_constants(division.float16)}
    for value in _float_constants(division.float32):
        if str(value.name) not in shared:
            continue
        copy = onnx_file.add_initializer(graph, f"{value.name}_float32", _array(value))
        for node in division.float32:
            for index, operand in enumerate(node.inputs):
                if operand is value:
                    node.replace_input_with(index, copy)


def _convert_constants(model: ir.Model, nodes: list[ir.Node]) -> str:
    """Weights, biases and scales that ``nodes`` read as float16; what that did to them, in words."""
    scales = []
    weights = []
    for value in _float_constants(nodes):
        is_scale = any(reader.op_type in PAIR for reader in value.consumers())
        if is_scale:
            scales.append(value)
        else:
            weights.append(value)

    work = _convert_weights(weights)
    if scales:
        work += _convert_scales(scales, model)
    return work


def _convert_weights(weights: list[ir.Value]) -> str:
    vanished = sum(_round_to_float16(value) for value in weights)
    return f"{len(weights)} weight tensors in float16, {vanished} weights too small for it became 0"


def _convert_scales(scales: list[ir.Value], model: ir.Model) -> str:
    coarse = sum(int(np.count_nonzero(_array(value) < SMALLEST_NORMAL)) for value in scales)
    raised = sum(_round_to_float16(value, SMALLEST_SUBNORMAL) for value in scales)
    onnx_file.raise_opset(model, OPSET)
    count = sum(_array(value).size for value in scales)
    return (
        f"; of {count} scales {coarse} lie below {SMALLEST_NORMAL:.2g} and lose bits, "
        f"{raised} rose to {SMALLEST_SUBNORMAL:.2g}"
    )


def _round_to_float16(value: ir.Value, least: np.float16 | float = 0.0) -> int:
    """Round ``value`` to float16, and to ``least`` what would vanish; how many values that are."""
    exact = _array(value)
    rounded = exact.astype(np.float16)
    vanished = (rounded == 0) & (exact != 0)
    rounded = np.where(vanished, np.float16(least), rounded)
    value.const_value = ir.tensor(rounded, name=value.name)
    value.type = ir.TensorType(ir.DataType.FLOAT16)
    return int(np.count_nonzero(vanished))


def _convert_outputs(nodes: list[ir.Node]) -> None:
    """What ``nodes`` compute is float16 where it was float32; INT8 levels stay as they are."""
    for node in nodes:
        for output in node.outputs:
            if output.dtype == ir.DataType.FLOAT:
                output.type = ir.TensorType(ir.DataType.FLOAT16)


def _cast_between(graph: ir.Graph, division: _Division) -> None:
    """One Cast for all readers of a tensor that want the other type."""
    casts: dict[tuple[str, ir.DataType], ir.Value] = {}
    for node in division.nodes:
        wanted = ir.DataType.FLOAT if node in division.reasons else ir.DataType.FLOAT16
        for index, value in enumerate(node.inputs):
            if value is None or value.const_value is not None:
                continue
            if value.dtype not in FLOATS or value.dtype == wanted:
                continue
            key = (str(value.name), wanted)
            if key not in casts:
                casts[key] = _cast(graph, value, wanted, f"{value.name}_{wanted.name.lower()}")
            node.replace_input_with(index, casts[key])


def _cast_graph_outputs(graph: ir.Graph) -> None:
    """The outputs of the graph are float32 under the names that they had."""
    for index, output in enumerate(graph.outputs):
        if output.dtype == ir.DataType.FLOAT:
            continue
        name = str(output.name)
        output.name = f"{name}_float16"
        graph.outputs[index] = _cast(graph, output, ir.DataType.FLOAT, name)


def _cast(graph: ir.Graph, value: ir.Value, dtype: ir.DataType, name: str) -> ir.Value:
    """``value`` as ``dtype``: the output ``name`` of a new Cast."""
    node = ir.node("Cast", [value], {"to": int(dtype)}, name=f"{name}/Cast")
    output = node.outputs[0]
    output.name = name
    output.type = ir.TensorType(dtype)
    output.shape = value.shape
    graph.append(node)
    return output


def _float_constants(nodes: list[ir.Node]) -> list[ir.Value]:
    """The float32 constants that ``nodes`` read, each once, in the order in which they are read."""
    constants: dict[str, ir.Value] = {}
    for node in nodes:
        for value in node.inputs:
            if value is not None and value.const_value is not None and value.dtype == ir.DataType.FLOAT:
                constants[str(value.name)] = value
    return list(constants.values())


def _array(value: ir.Value) -> NDArray[np.float32]:
    array = onnx_file.initializer_array(value)
    assert array is not None
    return array
