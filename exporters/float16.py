"""Float32 graph to float16: weights, activations and arithmetic; pixels in and logits out stay float32.

Of an INT8 graph the rest: scales, biases and everything between Q/DQ pairs; the levels stay as they are. TensorRT with
strong typing computes what stands around a convolution in the type that its DequantizeLinear gives, and that is the
type of the scale.

Constants are what :mod:`exporters.constant` says, however they are spelt. What is computed from shapes alone stays in
float32 too: the sizes and factors of a Resize have no use for a type of fewer bits.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from exporters import dependence, element_types, onnx_file
from exporters.constant import Memo, evaluate_constant
from exporters.raise_opset import raise_opset

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping
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
SCALE = 1  # where a pair reads it
WEIGHTED = {"Conv", "Gemm"}
# What an infinity stands for no bound, or for nothing at all, in.
UNBOUNDED = {"Clip", "Max", "Min", "Pad", "Where"}
OPSET = 19  # the first whose QuantizeLinear and DequantizeLinear take float16 scales
# A scale below the normal numbers keeps fewer bits, which costs less than any larger scale would: at 3e-5 a value is
# off by 0.1 % of itself, and by 100 % under the smallest normal number. Only 0 is no scale at all.
SMALLEST_NORMAL = np.finfo(np.float16).smallest_normal
SMALLEST_SUBNORMAL = np.finfo(np.float16).smallest_subnormal


@dataclass
class _Network:
    """The ``nodes`` that compute from images, behind the pixel arithmetic, in the order of the graph.

    ``computed`` are all values that they compute, and ``opset`` tells what their operators take.
    """

    nodes: list[ir.Node]
    computed: set[ir.Value]
    opset: int
    memo: Memo = field(default_factory=Memo)

    def constants(self, node: ir.Node) -> Iterator[tuple[int, ir.Value, NDArray[np.float32]]]:
        """The float32 constants that ``node`` reads and that may be float16: where, which, and their numbers."""
        for index, value in enumerate(node.inputs):
            if value is None or value in self.computed or value.dtype != ir.DataType.FLOAT:
                continue
            if element_types.is_fixed(node, index, self.opset):
                continue
            constant = evaluate_constant(value, self.memo)
            if constant is not None:
                yield index, value, constant.array


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
    if onnx_file.count(model, *PAIR):
        raise_opset(model, OPSET)
    element_types.infer(model)
    network = _network(model.graph)
    division = _divide(network, activation_max)
    work = _convert_constants(model.graph, network, division)
    _convert_outputs(division.float16)
    _cast_between(model.graph, network, division)
    _cast_graph_outputs(model.graph)
    onnx_file.drop_unread(model.graph)
    onnx_file.write(model, dst)
    return "; ".join([work, *_kept_in_float32(division)])


# --- which nodes stay in float32 --------------------------------------------------------------------------------------


def _network(graph: ir.Graph) -> _Network:
    """What the conversion is about: neither the pixel arithmetic, nor what is computed from shapes and constants."""
    # The scales of dequantised weights have to be float16 as well, and so what is computed from such weights.
    computed = dependence.dependent(graph, [_normalised(graph)], PAIR)
    nodes = [node for node in graph if any(output in computed for output in node.outputs)]
    pixels = _normalised(graph).producer()
    return _Network([node for node in nodes if node is not pixels], computed, graph.opset_imports[""])


def _normalised(graph: ir.Graph) -> ir.Value:
    """The network's input after the pixel arithmetic at its head, which stays float32 to keep the pixels exact."""
    value = graph.inputs[0]
    while True:
        readers = [node for node in value.consumers() if node.op_type not in dependence.SHAPES]
        if len(readers) != 1 or readers[0].op_type not in PIXEL_ARITHMETIC:
            return value
        for operand in readers[0].inputs:
            if operand is not value and evaluate_constant(operand) is None:
                return value
        value = readers[0].outputs[0]


def _divide(network: _Network, activation_max: Mapping[str, float]) -> _Division:
    """Which nodes stay in float32: those out of range, and those that a Cast would part from them."""
    reasons: dict[ir.Node, str] = {}
    for node in network.nodes:
        # All are asked of every node: two of them raise where a number is not finite.
        found = [
            _reason_of_weights(network, node),
            *_reasons_of_activations(node, activation_max),
            _reason_of_operator(node, network.opset),
        ]
        told = [reason for reason in found if reason]
        if told:
            reasons[node] = told[0]

    # A node that goes along may draw its own neighbours with it, so this goes on until none is added.
    while True:
        going_along = [node for node in network.nodes if node not in reasons and _goes_along(node, reasons)]
        if not going_along:
            return _Division(network.nodes, reasons)
        reasons.update(dict.fromkeys(going_along, ""))


def _reason_of_weights(network: _Network, node: ir.Node) -> str:
    """Why the constants of ``node`` cannot be float16, or nothing."""
    if node.op_type in PAIR:
        return ""  # scales have rules of their own, see _convert_scales
    for _, value, array in network.constants(node):
        exact = array.astype(np.float64)
        if node.op_type in UNBOUNDED:
            exact = exact[~np.isinf(exact)]
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
    reasons = []
    for value in (*node.inputs, *node.outputs):
        if value is None or value.dtype != ir.DataType.FLOAT or str(value.name) not in activation_max:
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


def _reason_of_operator(node: ir.Node, opset: int) -> str:
    """Why the operator of ``node`` cannot compute in float16, or nothing."""
    if dependence.has_subgraph(node):
        return f"{node.op_type} runs a graph of its own"
    for output in node.outputs:
        if any(reader.graph is not node.graph for reader in output.consumers()):
            return "a graph inside the graph reads it"
    return "" if element_types.takes_float16(node, opset) else f"{node.op_type} takes no float16"


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


@dataclass
class _Converted:
    """A float32 constant, and the places where nodes in float16 read it."""

    numbers: NDArray[np.float32]
    places: list[tuple[ir.Node, int]] = field(default_factory=list)

    @property
    def is_scale(self) -> bool:
        """Whether a Q/DQ pair reads it as its scale."""
        return any(node.op_type in PAIR and index == SCALE for node, index in self.places)


def _convert_constants(graph: ir.Graph, network: _Network, division: _Division) -> str:
    """Weights, biases and scales that nodes in float16 read as float16; what that did to them, in words."""
    # All are evaluated before the first is changed: what is remembered of them is that of the float32 graph.
    constants: dict[ir.Value, _Converted] = {}
    for node in division.float16:
        for index, value, numbers in network.constants(node):
            constants.setdefault(value, _Converted(numbers)).places.append((node, index))

    weights = {value: constant for value, constant in constants.items() if not constant.is_scale}
    scales = {value: constant for value, constant in constants.items() if constant.is_scale}
    work = _convert_weights(graph, weights)
    if scales:
        work += _convert_scales(graph, scales)
    return work


def _convert_weights(graph: ir.Graph, weights: Mapping[ir.Value, _Converted]) -> str:
    vanished = sum(_round_to_float16(graph, value, constant) for value, constant in weights.items())
    return f"{len(weights)} weight tensors in float16, {vanished} weights too small for it became 0"


def _convert_scales(graph: ir.Graph, scales: Mapping[ir.Value, _Converted]) -> str:
    coarse = sum(int(np.count_nonzero(scale.numbers < SMALLEST_NORMAL)) for scale in scales.values())
    count = sum(scale.numbers.size for scale in scales.values())
    raised = sum(_round_to_float16(graph, value, scale, SMALLEST_SUBNORMAL) for value, scale in scales.items())
    return (
        f"; of {count} scales {coarse} lie below {SMALLEST_NORMAL:.2g} and lose bits, "
        f"{raised} rose to {SMALLEST_SUBNORMAL:.2g}"
    )


def _round_to_float16(graph: ir.Graph, value: ir.Value, constant: _Converted, least: np.float16 | float = 0.0) -> int:
    """Let nodes in float16 read ``constant`` rounded, and ``least`` for what would vanish; how many numbers that are.

    Where nothing else reads the initialiser it is replaced under its name.
    """
    exact = constant.numbers
    rounded = exact.astype(np.float16)
    vanished = (rounded == 0) & (exact != 0)
    rounded = np.where(vanished, np.float16(least), rounded)

    is_own = value.is_initializer() and not value.is_graph_input() and not value.is_graph_output()
    if is_own and len(value.uses()) == len(constant.places):
        value.const_value = ir.tensor(rounded, name=value.name)
        value.type = ir.TensorType(ir.DataType.FLOAT16)
    else:
        copy = onnx_file.add_initializer(graph, f"{value.name}_float16", rounded)
        for node, index in constant.places:
            node.replace_input_with(index, copy)
    return int(np.count_nonzero(vanished))


def _convert_outputs(nodes: list[ir.Node]) -> None:
    """What ``nodes`` compute is float16 where it was float32; INT8 levels stay, and so does what a Cast says."""
    for node in nodes:
        for output in node.outputs:
            if output.dtype == ir.DataType.FLOAT and node.op_type != "Cast":
                output.type = ir.TensorType(ir.DataType.FLOAT16)


def _cast_between(graph: ir.Graph, network: _Network, division: _Division) -> None:
    """One Cast for all readers of a tensor that want the other type."""
    casts: dict[tuple[str, ir.DataType], ir.Value] = {}
    for node in division.nodes:
        for index, value in enumerate(node.inputs):
            if value is None or value.dtype not in FLOATS:
                continue
            in_float32 = node in division.reasons or element_types.is_fixed(node, index, network.opset)
            wanted = ir.DataType.FLOAT if in_float32 else ir.DataType.FLOAT16
            if value.dtype == wanted:
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
