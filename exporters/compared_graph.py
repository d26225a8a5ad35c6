"""One of two graphs that are compared: what its values are, and what in it only hands values on."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import onnx_ir as ir

from exporters import pairs
from exporters.comparable import same_shape
from exporters.constant import Memo, chosen_branch, evaluate_constant
from exporters.node_rows import filled_in, handed_on, row_ending_in
from exporters.opsets import canonical_attributes
from exporters.value_numbers import ValueNumbers

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from exporters.known_numbers import Constant

FLOATS = {ir.DataType.FLOAT, ir.DataType.FLOAT16}
# The same numbers in another shape: what they answer is told by the shape alone.
RESHAPES = {"Reshape", "Flatten", "Squeeze", "Unsqueeze"}
# Operators with pads of their own, which may stand for a Pad before them.
PADDED = {"Conv", "MaxPool", "AveragePool"}


class Pair(NamedTuple):
    """A whole Q/DQ pair on an activation: its scale, its zero point as stored, its axis where that matters."""

    quantise: ir.Node
    dequantise: ir.Node
    scale: Constant | None
    zero_point: NDArray[Any] | None
    axis: int | None

    @property
    def unsigned(self) -> bool:
        """Whether its levels are."""
        return self.zero_point is not None and self.zero_point.dtype.kind == "u"


@dataclass
class Source:
    """A ``value``, and what stands between it and its reader: Casts, by what they cast to, and Q/DQ pairs.

    Those next to the reader come first.
    """

    value: ir.Value
    casts: list[ir.DataType] = field(default_factory=list)
    pairs: list[Pair] = field(default_factory=list)


class Padding(NamedTuple):
    """Pads in a row as pads of what reads them: what they pad, and how wide."""

    source: Source
    pads: list[int]


class ComparedGraph:
    """A graph of :mod:`exporters.comparable`, which does not change meanwhile."""

    def __init__(self, graph: ir.Graph) -> None:
        self.graph = graph
        # The domain of ONNX's own operators has two names.
        self.opset = graph.opset_imports.get("", graph.opset_imports.get("ai.onnx", 0))
        self.memo = Memo(shapes_known=True)
        self.numbers = ValueNumbers(self.memo)

    def constant(self, value: ir.Value | None) -> Constant | None:
        """The constant behind ``value``; None where it is computed."""
        return evaluate_constant(value, self.memo)

    def attributes(self, node: ir.Node, like: ir.Node | None = None) -> dict[str, Any]:
        """What the attributes of ``node`` mean; ``like`` is its twin in the other graph."""
        return canonical_attributes(node, self.opset, partial(evaluate_constant, memo=self.memo), like)

    def place_of_input(self, value: ir.Value) -> int | None:
        """Which input of the graph has the name of ``value``; None where none has."""
        for place, graph_input in enumerate(self.graph.inputs):
            if graph_input.name == value.name:
                return place
        return None

    # --- what hands a value on ----------------------------------------------------------------------------------------

    def source(self, value: ir.Value) -> Source:
        """The value behind everything that hands a value on, and the Casts and pairs on the way."""
        source = Source(value)
        behind = self._behind(source)
        while behind is not None:
            source.value = behind
            behind = self._behind(source)
        return source

    def plain_source(self, value: ir.Value) -> ir.Value:
        """The same, as far as there is no Cast and no pair in between."""
        source = Source(value)
        behind = self._behind(source)
        while behind is not None and not source.casts and not source.pairs:
            source.value = behind
            behind = self._behind(source)
        return source.value

    def _behind(self, source: Source) -> ir.Value | None:
        """The value behind ``source``, which notes a Cast or a pair on the way; None where nothing hands one on."""
        node = source.value.producer()
        if node is None or self.constant(source.value) is not None:
            return None
        step = STEPS.get(node.op_type)
        return None if step is None or node.domain != "" else step(self, node, source)

    def unshaped(self, node: ir.Node) -> ir.Value:
        """What ``node`` reshapes, before any other reshaping."""
        value = node.inputs[0]
        assert value is not None
        while True:
            before = self.plain_source(value).producer()
            if before is None or before.op_type not in RESHAPES or before.inputs[0] is None:
                return value
            if self.constant(before.outputs[0]) is not None:
                return value
            value = before.inputs[0]

    def padding_before(self, node: ir.Node, attributes: dict[str, Any]) -> Padding | None:
        """The Pads in front of ``node`` where its own could do the same; ``attributes`` are those of ``node``."""
        if node.op_type not in PADDED or node.inputs[0] is None or attributes.get("auto_pad", "NOTSET") != "NOTSET":
            return None
        source = self.source(node.inputs[0])
        pad = source.value.producer()
        if pad is None or pad.op_type != "Pad" or pad.inputs[0] is None or not attributes.get("pads"):
            return None

        row = row_ending_in(self, pad)
        if row is None or row.does["mode"] != "constant" or min(row.does["pads"]) < 0:
            return None
        rank = len(attributes["pads"]) // 2 + 2
        before = row.does["pads"][:rank]
        behind = row.does["pads"][rank:]
        # Images and channels cannot be padded by a layer.
        if any(before[:2]) or any(behind[:2]) or not _pads_alike(node, attributes, filled_in(row.does), row.read):
            return None
        further = self.source(row.read)
        whole = Source(further.value, source.casts + further.casts, source.pairs + further.pairs)
        return Padding(whole, before[2:] + behind[2:])


# --- the steps ------------------------------------------------------------------------------------------------------


def _behind_identity(_: ComparedGraph, node: ir.Node, source: Source) -> ir.Value | None:
    return node.inputs[0] if source.value.index() == 0 else None


def _behind_dropout(graph: ComparedGraph, node: ir.Node, source: Source) -> ir.Value | None:
    """A Dropout of inference drops nothing."""
    is_told = len(node.inputs) > 2 and node.inputs[2] is not None
    training = graph.constant(node.inputs[2]) if is_told else None
    if is_told and (training is None or training.array.any()):
        return None
    return _behind_identity(graph, node, source)


def _behind_if(graph: ComparedGraph, node: ir.Node, source: Source) -> ir.Value | None:
    """An If whose condition is constant always takes the same branch."""
    branch = chosen_branch(node, graph.memo)
    place = source.value.index()
    return None if branch is None or place is None else branch.outputs[place]


def _behind_cast(_: ComparedGraph, node: ir.Node, source: Source) -> ir.Value | None:
    value = node.inputs[0]
    wanted = ir.DataType(node.attributes["to"].as_int())
    if value is None or wanted == value.dtype:
        return value
    if wanted in FLOATS and (value.dtype in FLOATS or _is_input(value)):
        source.casts.append(wanted)
        return value
    return None


def _behind_reshape(_: ComparedGraph, node: ir.Node, __: Source) -> ir.Value | None:
    """A reshaping that leaves the shape as it was."""
    value = node.inputs[0]
    return value if value is not None and same_shape(value, node.outputs[0]) else None


def _behind_pair(graph: ComparedGraph, dequantise: ir.Node, source: Source) -> ir.Value | None:
    """What a whole Q/DQ pair quantises; None where no QuantizeLinear stands before it."""
    levels = dequantise.inputs[0]
    quantise = levels.producer() if levels is not None else None
    if quantise is None or quantise.op_type != "QuantizeLinear":
        return None
    scale = graph.constant(quantise.inputs[1])
    axis = axis_of(quantise) if scale is not None and scale.numbers.size > 1 else None
    source.pairs.append(Pair(quantise, dequantise, scale, pairs.zero_of(quantise, graph.memo), axis))
    return quantise.inputs[0]


def _behind_neutral(graph: ComparedGraph, node: ir.Node, _: Source) -> ir.Value | None:
    """What a node reads that does nothing to it."""
    return handed_on(graph, node)


def _behind_relu(_: ComparedGraph, node: ir.Node, __: Source) -> ir.Value | None:
    """A ReLU behind a ReLU changes nothing."""
    before = pairs.made_by(node, 0)
    return node.inputs[0] if before is not None and before.op_type == "Relu" else None


# How each operator that may hand a value on is stepped over; None where this node does not.
STEPS = {
    "Identity": _behind_identity,
    "Dropout": _behind_dropout,
    "If": _behind_if,
    "Cast": _behind_cast,
    "DequantizeLinear": _behind_pair,
    "Relu": _behind_relu,
    **dict.fromkeys(RESHAPES, _behind_reshape),
    **dict.fromkeys(("Add", "Sub", "Mul", "Div", "Pad", "Slice", "Transpose"), _behind_neutral),
}


def _is_input(value: ir.Value) -> bool:
    """Whether ``value`` is an input of the graph, handed on or not."""
    node = value.producer()
    while node is not None and node.op_type == "Identity" and node.inputs[0] is not None:
        value = node.inputs[0]
        node = value.producer()
    return value.is_graph_input()


def axis_of(node: ir.Node) -> int:
    """The axis of the scales of a Quantize- or DequantizeLinear, counted from the front where the rank is known."""
    axis = node.attributes["axis"].as_int() if "axis" in node.attributes else 1
    shape = node.inputs[0].shape if node.inputs[0] is not None else None
    return axis + len(shape) if axis < 0 and shape is not None else axis


def _pads_alike(node: ir.Node, attributes: dict[str, Any], number: float, value: ir.Value) -> bool:
    """Whether ``node`` pads by itself with what a Pad before it fills in, the ``number``, around ``value``."""
    if node.op_type == "Conv":
        return number == 0
    if node.op_type == "AveragePool":
        return number == 0 and attributes.get("count_include_pad") == 1 and attributes.get("ceil_mode") == 0
    # A MaxPool leaves its padding out. Zeros are never larger than what a ReLU answers, and a window of a pool with
    # less padding than its kernel is wide is never all padding.
    kernel = attributes["kernel_shape"]
    is_narrow = all(pad < size for pad, size in zip(attributes["pads"], kernel * 2, strict=True))
    if attributes.get("ceil_mode") != 0 or not is_narrow or len(node.outputs) > 1:
        return False
    return number == -np.inf or (number == 0 and pairs.never_negative(value))


def node_name(node: ir.Node) -> str:
    """What a sentence calls ``node``."""
    return node.name or f"the {node.op_type} that makes {node.outputs[0].name}"
