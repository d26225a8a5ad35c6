"""Is one ONNX file the honest successor of another? Every weight, attribute and edge, with a bound that proves it.

The two graphs are walked together from their outputs. What a stage may add is stepped over (Identity, Cast between
float types, activation Q/DQ pairs, a BatchNormalization folded away) and what it must keep is compared:

* float32 next to float32: the same bits;
* float16: the nearest float16 of the float32;
* INT8 behind DequantizeLinear: at most half a scale away, channel by channel; next to INT8, the same levels under the
  same scales or their nearest float16 (see rounding);
* a folded pair: recomputed in float64 from the unfolded one, at most a float32 rounding away;
* channels that are a power of two apart: in all that writes and reads them (see channel_space), then as above.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import onnx_ir as ir

from exporters import onnx_file, pairs
from exporters.certify_rescale import follow
from exporters.constant import Constant, attributes, evaluate_constant, operator_version
from exporters.fold_batchnorm import FOLDABLE, along_outputs, obstacle
from exporters.rounding import SMALLEST32, U32, U64, scale_as, storage

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from numpy.typing import NDArray

    from exporters.rounding import Bound

# gamma / sqrt(var + eps), times W: four float64 operations; the bias has three more. Sixteen covers both generously.
FOLD_ROUNDING = 16 * U64
# What has weights that training changes.
LAYERS = {"Conv", "Gemm"}
FLOATS = {ir.DataType.FLOAT, ir.DataType.FLOAT16}


@dataclass(frozen=True)
class Refutation:
    """What is not proven: the PyTorch ``module`` and what was ``found`` there."""

    module: str
    found: str


@dataclass
class Certificate:
    """What was compared, and everything that was refuted.

    ``largest`` is the greatest share of its bound that any constant used up (1 is the bound itself); ``left`` are the
    BatchNormalizations that were not folded, each with what stands in its way. The channels of ``rescaled`` channel
    spaces are powers of two apart: proven exactly, for writers and readers together. ``retrained`` weights and biases
    are others, which was allowed, and of which nothing is proven. ``operators`` counts the nodes of each kind, before
    and after.
    """

    constants: int = 0
    nodes: int = 0
    folded: int = 0
    rescaled: int = 0
    retrained: int = 0
    largest: float = 0.0
    left: dict[str, str] = field(default_factory=dict)
    refuted: list[Refutation] = field(default_factory=list)
    operators: dict[str, tuple[int, int]] = field(default_factory=dict)

    @property
    def proven(self) -> bool:
        """Whether every comparison held."""
        return not self.refuted


def certify(before: Path, after: Path, *, retrained: bool = False) -> Certificate:
    """Walk both files; raises ValueError where one cannot be read, or where they are the same file.

    ``retrained`` layers may have other weights and biases, of the same shapes; everything else is proven as ever.
    """
    if before.exists() and after.exists() and before.samefile(after):
        raise ValueError(f"{before.name} would be compared with itself; give the file before and the file after")
    old_graph = onnx_file.read(before).graph
    new_graph = onnx_file.read(after).graph
    # Retrained weights are no powers of two apart, so there is nothing that could be followed.
    rescaled = 0 if retrained else follow(old_graph, new_graph)

    walk = _Walk(old_graph, new_graph, retrained=retrained)
    walk.run()
    walk.certificate.rescaled = rescaled
    return walk.certificate


class _Edge(NamedTuple):
    """Two values that have to be the same, and the node of the new graph that reads them: where a fault is named."""

    old: ir.Value
    new: ir.Value
    reader: ir.Node | None


class _Folded(NamedTuple):
    """A folded weight or bias in float64, and the sum of the magnitudes of the terms that it was computed from."""

    exact: NDArray[np.float64]
    terms: NDArray[np.float64]


class _Walk:
    """One walk through both graphs, from their outputs to their inputs.

    It starts from the graphs as their callers see them (``_compare_ends``) and from all stored numbers
    (``_refuse_not_finite``). ``todo`` are the edges that are still to compare, at first the outputs. For each edge:

    1. ``_source``: what a stage may put on an edge is stepped over, in both graphs.
    2. ``_compare_pairs``: Q/DQ pairs that stood on the edge stand there still.
    3. Both values are the same input of the graph (``_compare_inputs``), or the same output of two nodes that stand
       for each other, and for no other node.
    4. ``_compare_nodes``: such nodes have the same operator and attributes. Their constants are compared by how they
       are stored (``_compare_operands``), and what they compute from goes to ``todo``. A BatchNormalization that was
       folded is compared together with the layer before it (``_compare_fold``).

    A node is compared once, however many others read it, so the walk ends. What no output depends on is never met,
    and needs no proof.
    """

    def __init__(self, before: ir.Graph, after: ir.Graph, *, retrained: bool) -> None:
        self.before = before
        self.after = after
        self.retrained = retrained
        self.certificate = Certificate(operators=_operators(before, after), left=_left(after))
        self.todo: list[_Edge] = []
        # Which node stands for which, in both directions.
        self.new_of: dict[ir.Node, ir.Node] = {}
        self.old_of: dict[ir.Node, ir.Node] = {}

    def run(self) -> None:
        self._compare_ends()
        self._refuse_not_finite()
        for old, new in zip(self.before.outputs, self.after.outputs, strict=False):
            self.todo.append(_Edge(old, new, None))
        while self.todo:
            self._compare_edge(self.todo.pop())

    def refute(self, node: ir.Node | None, found: str) -> None:
        """Note what was ``found`` at ``node``; None stands for the graph as a whole."""
        module = "" if node is None else onnx_file.module_of(node)
        self.certificate.refuted.append(Refutation(module, found))

    def _compare_ends(self) -> None:
        """Inputs and outputs have the same names, types and shapes, in the same order."""
        old_ends = [_end(value) for value in (*self.before.inputs, *self.before.outputs)]
        new_ends = [_end(value) for value in (*self.after.inputs, *self.after.outputs)]
        for old, new in zip_longest(old_ends, new_ends):
            if old != new:
                self.refute(None, f"{new or 'nothing'} stands where the graph had {old or 'nothing'}")

    def _refuse_not_finite(self) -> None:
        """Neither file holds NaN or infinity, not even where no bound is held, as in retrained weights."""
        for value in (*self.before.initializers.values(), *self.after.initializers.values()):
            array = onnx_file.initializer_array(value)
            if array is None or array.dtype.kind != "f" or np.isfinite(array).all():
                continue
            reader = next(iter(value.consumers()), None)
            self.refute(reader, f"{value.name} holds NaN or infinity")

    def _compare_edge(self, edge: _Edge) -> None:
        old, old_scales = self._source(edge.old)
        new, new_scales = self._source(edge.new)
        self._compare_pairs(edge.reader, old_scales, new_scales)

        old_node = old.producer()
        new_node = new.producer()
        if old_node is None or new_node is None:
            self._compare_inputs(old, new, edge.reader)
            return
        if old.index() != new.index():
            place = f"output {new.index()} of {new_node.name}"
            self.refute(edge.reader, f"{place} stands where output {old.index()} stood")
            return

        known_old = self.old_of.setdefault(new_node, old_node)
        known_new = self.new_of.get(old_node, new_node)
        if known_old is not old_node or known_new is not new_node:
            self.refute(edge.reader, f"{new_node.name} stands where {old_node.name} stood")
            return
        if old_node not in self.new_of:
            self.new_of[old_node] = new_node
            self._compare_nodes(old_node, new_node)

    def _source(self, value: ir.Value) -> tuple[ir.Value, list[Constant]]:
        """The value behind everything that a stage may put in between, and the scales of the pairs there."""
        scales: list[Constant] = []
        while True:
            node = value.producer()
            behind = self._behind(node) if node is not None else None
            if node is None or behind is None:
                return value, scales
            if node.op_type == "DequantizeLinear":
                scale = evaluate_constant(node.inputs[1])
                if scale is not None:
                    scales.append(scale)
            value = behind

    def _behind(self, node: ir.Node) -> ir.Value | None:
        """What ``node`` hands on with the same meaning; None where it computes something of its own."""
        value = node.inputs[0] if node.inputs else None
        if value is None or onnx_file.initializer_array(value) is not None:
            return None
        if node.op_type == "DequantizeLinear":
            return self._behind_pair(node, value)
        if node.op_type == "Identity":
            return value
        if node.op_type == "Cast" and ir.DataType(node.attributes["to"].as_int()) in FLOATS:
            return value
        return None

    def _behind_pair(self, dequantise: ir.Node, levels: ir.Value) -> ir.Value | None:
        """What a whole Q/DQ pair on an activation quantises; None where ``levels`` are constant or no pair's.

        A pair is an identity but for its rounding only where both halves have the same scale and zero point, the
        scale is a positive number, and the zero point cuts nothing off.
        """
        quantise = levels.producer()
        if quantise is None or quantise.op_type != "QuantizeLinear" or evaluate_constant(levels) is not None:
            return None

        reader = _reader(dequantise)
        for written, read in zip_longest(quantise.inputs[1:], dequantise.inputs[1:]):
            written_array = onnx_file.initializer_array(written)
            read_array = onnx_file.initializer_array(read)
            if written_array is None or read_array is None or not np.array_equal(written_array, read_array):
                self.refute(reader, f"{quantise.name} and {dequantise.name} differ in scale or zero point")
        if pairs.number_format_of(quantise) is None:
            self.refute(reader, f"{quantise.name} cuts values off: its zero point is not an INT8 0")
        scale = onnx_file.initializer_array(quantise.inputs[1])
        if scale is None or not (np.isfinite(scale) & (scale > 0)).all():
            self.refute(reader, f"{quantise.name} has a scale that is no positive number")
        return quantise.inputs[0]

    def _compare_pairs(self, reader: ir.Node | None, old_scales: list[Constant], new_scales: list[Constant]) -> None:
        """Pairs may be new, but those that stood there stay."""
        if old_scales and len(old_scales) != len(new_scales):
            self.refute(reader, f"{len(new_scales)} Q/DQ pairs stand where {len(old_scales)} stood")
        for old, new in zip(old_scales, new_scales, strict=False):
            self._hold_within(reader, "the scale of its input", new, scale_as(old, new.array.dtype), 0.0)

    def _compare_inputs(self, old: ir.Value, new: ir.Value, reader: ir.Node | None) -> None:
        """At least one of the two is computed by no node: then both are the same input of their graph."""
        old_place = _place_of_input(self.before, old)
        new_place = _place_of_input(self.after, new)
        if old_place is None or old_place != new_place:
            self.refute(reader, f"{new.name} stands where {old.name} stood")

    def _compare_nodes(self, old: ir.Node, new: ir.Node) -> None:
        self.certificate.nodes += 1
        layer = self._folded_layer(old, new)
        if layer is not None:
            self._compare_fold(layer, old, new)
            return
        if old.op_type != new.op_type:
            self.refute(old, f"{new.op_type} {new.name} stands where {old.op_type} {old.name} stood")
            return

        self._compare_attributes(old, new)
        for old_value, new_value in zip_longest(old.inputs, new.inputs):
            if old_value is not None and new_value is not None:
                self._compare_operands(new, old_value, new_value)
            elif old_value is not None:
                self.refute(new, f"{new.name} lost its input {old_value.name}")
            elif new_value is not None:
                self.refute(new, f"{new.name} has a new input {new_value.name}")

    def _folded_layer(self, old: ir.Node, new: ir.Node) -> ir.Node | None:
        """The layer before ``old`` where that is a BatchNormalization that ``new`` has folded into it; else None."""
        if old.inputs[0] is None:
            return None
        layer = self._source(old.inputs[0])[0].producer()
        if old.op_type != "BatchNormalization" or layer is None:
            return None
        return layer if layer.op_type == new.op_type and new.op_type in FOLDABLE else None

    def _compare_operands(self, node: ir.Node, old: ir.Value, new: ir.Value) -> None:
        """What ``node`` reads at one place: followed where it is computed, held within its bound where constant."""
        was = evaluate_constant(old)
        now = evaluate_constant(new)
        if was is None and now is None:
            self.todo.append(_Edge(old, new, node))
            return
        if was is None or now is None:
            self.refute(node, f"{new.name} of {node.name} is a constant in one file only")
            return

        if self.retrained and node.op_type in LAYERS and was.array.dtype == now.array.dtype:
            self._compare_retrained(node, was, now)
        elif was.quantised is not None and now.quantised is not None:
            # INT8 next to INT8: the same levels, under the same scales or their nearest float16.
            old_levels, old_scale = was.quantised
            new_levels, new_scale = now.quantised
            self._hold_within(node, f"levels of {new.name}", new_levels, old_levels.values, 0.0)
            exact_scale = scale_as(old_scale, new_scale.array.dtype)
            self._hold_within(node, f"scale of {new.name}", new_scale, exact_scale, 0.0)
        elif now.dtype == np.float16:
            # Rounding to the nearest is a function: what it gives is compared exactly.
            nearest = was.values.astype(np.float16).astype(np.float64)
            self._hold_within(node, str(new.name), now, nearest, 0.0)
        else:
            # Float32 next to float32, for which storage allows nothing, or INT8 levels next to float32.
            self._hold_within(node, str(new.name), now, was.values, storage(now, was.values))

    def _compare_retrained(self, node: ir.Node, was: Constant, now: Constant) -> None:
        """Other numbers, which are counted, of the same shape."""
        if not np.array_equal(was.array, now.array):
            self.certificate.retrained += 1
        if was.array.shape != now.array.shape:
            self.refute(node, f"a weight of {node.name} has shape {now.array.shape}, it had {was.array.shape}")

    def _compare_fold(self, layer: ir.Node, norm: ir.Node, folded: ir.Node) -> None:
        """``folded`` computes what ``layer`` and ``norm`` behind it computed."""
        reason = obstacle(norm)
        if reason is not None:
            self.refute(folded, f"{norm.name} must not be folded: {reason}")
        self._compare_attributes(layer, folded)

        operands = _all_constants((*layer.inputs[1:3], *norm.inputs[1:5]))
        stored = _all_constants(folded.inputs[1:3])
        if operands is None or stored is None or len(stored) != 2:
            self.refute(folded, f"{folded.name} lacks a constant weight or bias")
            return

        self.certificate.folded += 1
        weight, bias = _fold(layer, norm, operands)
        self._hold_folded(folded, "weight", stored[0], weight)
        self._hold_folded(folded, "bias", stored[1], bias)
        if layer.inputs[0] is not None and folded.inputs[0] is not None:
            self.todo.append(_Edge(layer.inputs[0], folded.inputs[0], folded))

    def _hold_folded(self, node: ir.Node, name: str, stored: Constant, folded: _Folded) -> None:
        """One rounding to float32, the float64 roundings of both computations, and what its storage adds."""
        rounding = U32 * np.abs(folded.exact) + FOLD_ROUNDING * folded.terms + SMALLEST32
        self._hold_within(node, name, stored, folded.exact, rounding + storage(stored, folded.exact))

    def _hold_within(
        self, node: ir.Node | None, name: str, stored: Constant, exact: NDArray[np.float64], bound: Bound
    ) -> None:
        """Refute the constant ``stored`` where any of its values is further than ``bound`` from ``exact``."""
        self.certificate.constants += 1
        if stored.values.shape != exact.shape:
            self.refute(node, f"{name} has shape {stored.values.shape}, it had {exact.shape}")
            return

        error = np.abs(stored.values - exact)
        allowed = np.broadcast_to(bound, error.shape)
        # Where nothing is allowed, an error of 0 uses up nothing and any other infinitely much.
        share = np.divide(error, allowed, out=np.where(error == 0, 0.0, np.inf), where=allowed > 0)
        largest_share = float(share.max(initial=0.0))
        if largest_share <= 1:  # false for NaN as well
            self.certificate.largest = max(self.certificate.largest, largest_share)
            return

        worst = np.unravel_index(int(np.argmax(share)), share.shape)
        place = tuple(int(index) for index in worst)
        found = f"{name}{list(place) or ''} is {stored.values[place]:.9g}, expected {exact[place]:.9g}"
        self.refute(node, f"{found} within {allowed[place]:.3g}")

    def _compare_attributes(self, old: ir.Node, new: ir.Node) -> None:
        """The same attributes, defaults included, of an operator that means the same in both opsets."""
        old_version = operator_version(old, self.before.opset_imports)
        new_version = operator_version(new, self.after.opset_imports)
        if old_version != new_version:
            self.refute(new, f"{new.op_type} of {new.name} means something else in another opset")

        old_attributes = attributes(old)
        new_attributes = attributes(new)
        for name in sorted(old_attributes.keys() | new_attributes.keys()):
            was = old_attributes.get(name)
            now = new_attributes.get(name)
            if was != now:
                self.refute(new, f"{name} of {new.name} is {now}, it was {was}")


def _operators(before: ir.Graph, after: ir.Graph) -> dict[str, tuple[int, int]]:
    """How many nodes of each operator there are, before and after."""
    old_counts = Counter(node.op_type for node in before)
    new_counts = Counter(node.op_type for node in after)
    return {operator: (old_counts[operator], new_counts[operator]) for operator in sorted(old_counts | new_counts)}


def _left(graph: ir.Graph) -> dict[str, str]:
    """The BatchNormalizations that ``graph`` still has, by module, and what stands in the way of folding each."""
    left = {}
    for node in graph:
        if node.op_type == "BatchNormalization":
            module = onnx_file.module_of(node) or str(node.name)
            left[module] = obstacle(node) or "it could be folded"
    return left


def _end(value: ir.Value) -> str:
    """An input or output of a graph as a caller sees it; bytes that are only cast are the same numbers."""
    is_only_cast = all(node.op_type == "Cast" for node in value.consumers())
    dtype = ir.DataType.FLOAT if value.dtype == ir.DataType.UINT8 and is_only_cast else value.dtype
    return f"{value.name} {dtype} {value.shape}"


def _place_of_input(graph: ir.Graph, value: ir.Value) -> int | None:
    """Which input of ``graph`` has the name of ``value``; None where none has."""
    for place, graph_input in enumerate(graph.inputs):
        if graph_input.name == value.name:
            return place
    return None


def _reader(node: ir.Node) -> ir.Node:
    """The node that reads this one, which has the name that a person knows."""
    return next(iter(node.outputs[0].consumers()), node)


def _all_constants(values: Iterable[ir.Value | None]) -> list[Constant] | None:
    """The constants behind ``values``; None where one of them is computed or missing."""
    constants = []
    for value in values:
        constant = evaluate_constant(value)
        if constant is None:
            return None
        constants.append(constant)
    return constants


def _fold(layer: ir.Node, norm: ir.Node, operands: list[Constant]) -> tuple[_Folded, _Folded]:
    """Weight and bias of ``layer`` with ``norm`` folded into it, by the formulas of fold_batchnorm, in float64.

    ``operands`` are the layer's weight, its bias if it has one, and gamma, beta, mean and variance.
    """
    *layer_operands, gamma, beta, mean, var = [operand.values for operand in operands]
    weight = layer_operands[0]
    bias = layer_operands[1] if len(layer_operands) == 2 else np.zeros_like(mean)

    gain = gamma / np.sqrt(var + attributes(norm)["epsilon"])
    folded_weight = weight * along_outputs(layer, gain, weight.ndim)
    folded_bias = gain * (bias - mean) + beta
    # The sum of the bias may cancel, so its float64 error is relative to its terms.
    bias_terms = np.abs(gain) * (np.abs(bias) + np.abs(mean)) + np.abs(beta)
    return _Folded(folded_weight, np.abs(folded_weight)), _Folded(folded_bias, bias_terms)
