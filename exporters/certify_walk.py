"""Two graphs walked together from their outputs, everything on the way compared."""

from __future__ import annotations

from collections import Counter
from itertools import zip_longest
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import onnx_ir as ir

from exporters import onnx_file, pairs
from exporters.certificate import Certificate, Refutation
from exporters.comparable import given_shape, same_shape
from exporters.compared_graph import RESHAPES, ComparedGraph, Source, node_name
from exporters.constant import evaluate_constant
from exporters.dependence import SUBGRAPHS
from exporters.fold_batchnorm import obstacle
from exporters.held_constants import HeldConstants
from exporters.held_pairs import HeldPairs
from exporters.linear_layer import LAYERS, PRODUCTS, as_stored, layer_before, layer_of, linear_layer, take_in_front
from exporters.node_attributes import COMPUTED, OF_THE_TENSORS_TYPE
from exporters.node_rows import row_ending_in
from exporters.opsets import changed, spelt_as_inputs
from exporters.value_numbers import RANDOM

if TYPE_CHECKING:
    from exporters.known_numbers import Constant
    from exporters.linear_layer import LinearLayer
    from exporters.rounding import Bound
    from exporters.stage_changes import Changes

    Attributes = dict[str, Any]

# Operators with an input that tells nothing but the shape of the answer, and its place.
TELLS_SHAPE = {"Reshape": 1, "Expand": 1, "Resize": 3, "ConstantOfShape": 0}
# The name of such an input that never was an attribute.
SHAPE = "shape"
# Of these the operands may change places.
COMMUTATIVE = {"Add", "Mul", "Max", "Min", "Sum", "Mean", "And", "Or", "Xor", "Equal"}
# Operators that make floats of something else, with an attribute for their type.
MAKES_FLOATS = {"Cast", "EyeLike"}
# What may read infinity, and answer numbers.
LIMITS = {"Clip", "Max", "Min", "Pad", "Where"}
# Operators that every stage leaves where they are, by which one branch of a network is told from another.
STAYS = {"Relu", "MaxPool", "AveragePool", "GlobalAveragePool", "Sigmoid", "Clip", "LeakyRelu", "Softmax"}
JOINS = COMMUTATIVE | {"Conv", "Concat"}


class Edge(NamedTuple):
    """Two values that have to be the same, and the node of the new graph that reads them: where a fault is named."""

    old: ir.Value
    new: ir.Value
    reader: ir.Node | None


class Walk:
    """One walk through both graphs, from their outputs to their inputs.

    It starts from the graphs as their callers see them (``_compare_ends``) and from all stored numbers
    (``_refuse_not_finite``). ``todo`` are the edges that are still to compare, at first the outputs. For each edge:

    1. What only hands a value on is stepped over, in both graphs (:meth:`ComparedGraph.source`).
    2. ``_compare_between``: the Casts and Q/DQ pairs there are those that stood there, but for what the stage adds.
    3. Both values are the same input of the graph (``_compare_inputs``), or the same output of two nodes that stand
       for each other. Two nodes of one file may stand for one of the other where they are always equal.
    4. ``_compare_nodes``: such nodes have the same operator, and attributes that mean the same. Their constants are
       compared by value, and what they compute from goes to ``todo``. What a layer took in is compared together with
       it (``_compare_layers``).

    Stages and tools may spell the same otherwise, wherever they like: constants computed or stored, equal nodes merged,
    names, the order of what is added, shapes told or computed, Pad of zeros as pads of a layer, Dropout that drops
    nothing, an If that always goes one way.

    A node is compared once, however many others read it, so the walk ends. What no output depends on is never met,
    and needs no proof.
    """

    def __init__(self, before: ir.Graph, after: ir.Graph, allowed: Changes) -> None:
        self.old = ComparedGraph(before)
        self.new = ComparedGraph(after)
        self.allowed = allowed
        self.certificate = Certificate(stage=allowed.name, operators=_operators(before, after), left=_left(after))
        self.constants = HeldConstants(allowed, self.certificate, self.refute)
        self.pairs = HeldPairs(self.old, self.new, self.constants)
        self.todo: list[Edge] = []
        # Which node stands for which, in both directions.
        self.new_of: dict[ir.Node, ir.Node] = {}
        self.old_of: dict[ir.Node, ir.Node] = {}
        # The values that a subgraph is given: the old one by the new one.
        self.given: dict[ir.Value, ir.Value] = {}

    def run(self) -> None:
        """Compare everything that the outputs depend on."""
        self._compare_ends()
        self._refuse_not_finite()
        for old, new in zip(self.old.graph.outputs, self.new.graph.outputs, strict=False):
            self.todo.append(Edge(old, new, None))
        while self.todo:
            self._compare_edge(self.todo.pop())
        self.pairs.refuse_two_signs()

    def refute(self, node: ir.Node | None, found: str) -> None:
        """Note what was ``found`` at ``node``; None stands for the graph as a whole."""
        self.certificate.refuted.append(Refutation(self._module(node), found))

    def _module(self, node: ir.Node | None) -> str:
        """The name that a person knows ``node`` by: its module, in either graph, else its own."""
        if node is None:
            return ""
        twin = self.old_of.get(node)
        module = onnx_file.module_of(node) or (onnx_file.module_of(twin) if twin is not None else "")
        return module or node.name or str(node.outputs[0].name)

    # --- the graph as its callers see it ------------------------------------------------------------------------------

    def _compare_ends(self) -> None:
        """Inputs and outputs have the same names, types and shapes, in the same order."""
        old_ends = [self._end(value) for value in (*self.old.graph.inputs, *self.old.graph.outputs)]
        new_ends = [self._end(value) for value in (*self.new.graph.inputs, *self.new.graph.outputs)]
        for old, new in zip_longest(old_ends, new_ends):
            if old != new:
                self.refute(None, f"{new or 'nothing'} stands where the graph had {old or 'nothing'}")

    def _end(self, value: ir.Value) -> str:
        """An input or output of a graph as a caller sees it; bytes that are only cast are the same numbers."""
        dtype = value.dtype
        if self.allowed.bytes_in and dtype == ir.DataType.UINT8 and _is_only_cast(value):
            dtype = ir.DataType.FLOAT
        shape = given_shape(value)
        sizes = "of any shape" if shape is None else [size if isinstance(size, int) else "any" for size in shape]
        return f"{value.name} {dtype} {sizes}"

    def _refuse_not_finite(self) -> None:
        """Neither file holds NaN, or infinity but as a limit, not even where no bound is held: in retrained weights."""
        for value in (*self.old.graph.initializers.values(), *self.new.graph.initializers.values()):
            array = onnx_file.initializer_array(value)
            if array is None or array.dtype.kind != "f" or np.isfinite(array).all():
                continue
            readers = list(value.consumers())
            is_limit = bool(readers) and all(node.op_type in LIMITS for node in readers)
            if not is_limit or np.isnan(array).any():
                self.refute(next(iter(readers), None), f"{value.name} holds NaN or infinity")

    # --- edges --------------------------------------------------------------------------------------------------------

    def _compare_edge(self, edge: Edge) -> None:
        old = self.old.source(edge.old)
        new = self.new.source(edge.new)
        self._compare_sources(edge.reader, old, new)

    def _compare_sources(self, reader: ir.Node | None, old: Source, new: Source) -> None:
        self._compare_between(reader, old, new)
        was = self.old.constant(old.value)
        now = self.new.constant(new.value)
        if was is not None and now is not None:
            self._compare_constants(reader, str(new.value.name), was, now)
            return

        old_node = old.value.producer()
        new_node = new.value.producer()
        if old_node is None or new_node is None:
            self._compare_inputs(old.value, new.value, reader)
        elif old.value.index() != new.value.index():
            place = f"output {new.value.index()} of {node_name(new_node)}"
            self.refute(reader, f"{place} stands where output {old.value.index()} stood")
        else:
            self._meet(old_node, new_node, reader)

    def _meet(self, old: ir.Node, new: ir.Node, reader: ir.Node | None) -> None:
        """Both nodes stand for each other, and for no other node that is not always equal to them."""
        known_new = self.new_of.get(old)
        known_old = self.old_of.get(new)
        if known_new is new:
            return
        is_other_new = known_new is not None and not self.new.numbers.equal(known_new.outputs[0], new.outputs[0])
        is_other_old = known_old is not None and not self.old.numbers.equal(known_old.outputs[0], old.outputs[0])
        if is_other_new or is_other_old:
            self.refute(reader, f"{node_name(new)} stands where {node_name(old)} stood")
            return

        self.new_of.setdefault(old, new)
        self.old_of.setdefault(new, old)
        if known_new is None and known_old is None:
            self._compare_nodes(old, new)

    def _compare_between(self, reader: ir.Node | None, old: Source, new: Source) -> None:
        """Casts and pairs stay, and new ones are those that the stage makes."""
        self._compare_casts(reader, old, new)
        self.pairs.compare(reader, old.pairs, new.pairs)

    def _compare_casts(self, reader: ir.Node | None, old: Source, new: Source) -> None:
        casts = new.casts
        is_of_bytes = new.value.dtype == ir.DataType.UINT8 and casts[-1:] == [ir.DataType.FLOAT]
        if self.allowed.bytes_in and is_of_bytes and old.value.dtype != ir.DataType.UINT8:
            casts = casts[:-1]
        if casts == old.casts:
            return
        # From float32 through float16 to float32 is a rounding that nothing asked for.
        through_float16 = new.value.dtype == ir.DataType.FLOAT and ir.DataType.FLOAT16 in casts[1:]
        if not self.allowed.float16 or through_float16:
            now = " and ".join(dtype.name for dtype in reversed(new.casts)) or "nothing"
            was = " and ".join(dtype.name for dtype in reversed(old.casts)) or "nothing"
            self.refute(reader, f"what it reads is cast to {now}, it was cast to {was}")

    def _compare_inputs(self, old: ir.Value, new: ir.Value, reader: ir.Node | None) -> None:
        """At least one of the two is computed by no node: then both are the same input of their graph."""
        if old in self.given:
            is_same = self.given[old] is new
        else:
            old_place = self.old.place_of_input(old)
            is_same = old_place is not None and old_place == self.new.place_of_input(new)
        if not is_same:
            self.refute(reader, f"{new.name} stands where {old.name} stood")

    # --- nodes --------------------------------------------------------------------------------------------------------

    def _compare_nodes(self, old: ir.Node, new: ir.Node) -> None:
        self.certificate.nodes += 1
        if new.op_type in RANDOM or old.op_type in RANDOM:
            self.refute(new, f"{node_name(new)} answers at random, of which nothing can be proven")
        elif old.op_type in RESHAPES and new.op_type in RESHAPES and same_shape(old.outputs[0], new.outputs[0]):
            # The same numbers in the same shape: how they came there does not matter.
            self.todo.append(Edge(self.old.unshaped(old), self.new.unshaped(new), new))
        elif old.op_type != new.op_type or self._took_in(old, new):
            if not self._compare_layers(old, new):
                # By what is missing: what stands there instead may be at home elsewhere.
                self.refute(old, f"{new.op_type} {node_name(new)} stands where {old.op_type} {node_name(old)} stood")
        elif not self._compare_rows(old, new):
            self._compare_same_operator(old, new)

    def _compare_rows(self, old: ir.Node, new: ir.Node) -> bool:
        """Compare what stands in front of rows of unlike length that do the same; False where they are none."""
        was = row_ending_in(self.old, old)
        now = row_ending_in(self.new, new)
        if was is None or now is None or was.length == now.length:
            return False
        self._compared_attributes(old, new)
        if self._differences(new, was.does, now.does):
            return False
        self.todo.append(Edge(was.read, now.read, new))
        return True

    def _compare_same_operator(self, old: ir.Node, new: ir.Node) -> None:
        was, now = self._compared_attributes(old, new)
        sources = self._read_behind_pads(old, new, was, now)
        if sources is not None:
            self.todo.append(Edge(sources[0].value, sources[1].value, new))
        told = self._told(old, new, was, now)
        self._hold_attributes(new, was, now)
        self._compare_subgraphs(old, new)

        old_inputs, new_inputs = self._aligned(old, new)
        old_inputs = _without(old_inputs, _input_names(old.op_type, self.old.opset), told)
        new_inputs = _without(new_inputs, _input_names(new.op_type, self.new.opset), told)
        for place, (old_value, new_value) in enumerate(zip_longest(old_inputs, new_inputs)):
            if place == 0 and sources is not None:
                continue
            if old_value is not None and new_value is not None:
                self._compare_operands(new, old_value, new_value)
            elif old_value is not None and not _is_zero_bias(self.old, old, place):
                self.refute(new, f"{node_name(new)} lost its input {old_value.name}")
            elif new_value is not None and not _is_zero_bias(self.new, new, place):
                self.refute(new, f"{node_name(new)} has a new input {new_value.name}")

    def _compare_operands(self, node: ir.Node, old: ir.Value, new: ir.Value) -> None:
        """What ``node`` reads at one place: followed where it is computed, held within its bound where constant."""
        was = self.old.constant(old)
        now = self.new.constant(new)
        if was is None and now is None:
            self.todo.append(Edge(old, new, node))
        elif was is None or now is None:
            self.refute(node, f"{new.name} of {node_name(node)} is a constant in one file only")
        else:
            self._compare_constants(node, str(new.name), was, now)

    def _compare_constants(self, node: ir.Node | None, name: str, was: Constant, now: Constant) -> None:
        self.constants.compare(node, name, was, now)

    def _compared_attributes(self, old: ir.Node, new: ir.Node) -> tuple[Attributes, Attributes]:
        """What the attributes of both nodes mean; refuted where the operator means something else in either opset."""
        difference = changed(old, self.old.opset, self.new.opset, self.old.constant, new)
        if difference:
            self.refute(new, f"{new.op_type} of {node_name(new)} means something else in another opset: {difference}")
        return self.old.attributes(old, new), self.new.attributes(new, old)

    def _hold_attributes(self, node: ir.Node, old: Attributes, new: Attributes) -> None:
        for name in self._differences(node, old, new):
            was, now = old.get(name), new.get(name)
            self.refute(node, f"{name} of {node_name(node)} is {_plain(now)}, it was {_plain(was)}")

    def _differences(self, node: ir.Node, old: Attributes, new: Attributes) -> list[str]:
        """The names of the attributes of ``node`` that are other ones than the stage may make of ``old``."""
        rounded = OF_THE_TENSORS_TYPE.get(node.op_type, set()) if self.allowed.float16 else set()
        different = []
        for name in sorted(old.keys() | new.keys()):
            was = old.get(name)
            now = new.get(name)
            is_graph = name in node.attributes and node.attributes[name].type in SUBGRAPHS
            if is_graph or _same_attribute(was, now):
                continue
            if name in rounded and was is not None and _same_attribute(_as_float16(was), now):
                continue
            if self.allowed.float16 and _is_halved_type(node, name, was, now):
                continue
            different.append(name)
        return different

    def _told(self, old: ir.Node, new: ir.Node, was: Attributes, now: Attributes) -> set[str]:
        """The attributes, of those that may be inputs, that need no further comparison as inputs.

        Such are constants, which are compared as attributes, and what tells the shape of the answer, where that is the
        same; of the attributes it is taken away then.
        """
        old_places = spelt_as_inputs(old.op_type, self.old.opset)
        new_places = spelt_as_inputs(new.op_type, self.new.opset)
        told = set()
        for name in (*old_places.values(), *new_places.values()):
            if was.get(name) != COMPUTED and now.get(name) != COMPUTED:
                told.add(name)

        place = TELLS_SHAPE.get(old.op_type)
        if place is not None and same_shape(old.outputs[0], new.outputs[0], open_sizes=0):
            for name in (old_places.get(place, SHAPE), new_places.get(place, SHAPE)):
                was.pop(name, None)
                now.pop(name, None)
                told.add(name)
        return told

    def _read_behind_pads(
        self, old: ir.Node, new: ir.Node, was: Attributes, now: Attributes
    ) -> tuple[Source, Source] | None:
        """What both nodes read in front of Pads, which are taken into their own; None where there are no such Pads."""
        old_padding = self.old.padding_before(old, was)
        new_padding = self.new.padding_before(new, now)
        if (old_padding is None and new_padding is None) or old.inputs[0] is None or new.inputs[0] is None:
            return None
        old_source = self.old.source(old.inputs[0])
        new_source = self.new.source(new.inputs[0])
        if old_padding is not None:
            was["pads"] = [own + more for own, more in zip(was["pads"], old_padding.pads, strict=True)]
            old_source = old_padding.source
        if new_padding is not None:
            now["pads"] = [own + more for own, more in zip(now["pads"], new_padding.pads, strict=True)]
            new_source = new_padding.source
        self._compare_between(new, old_source, new_source)
        return old_source, new_source

    def _compare_subgraphs(self, old: ir.Node, new: ir.Node) -> None:
        """The graphs inside an If, a Loop or a Scan: what they are given, and what they answer."""
        for name in sorted(old.attributes.keys() & new.attributes.keys()):
            if old.attributes[name].type not in SUBGRAPHS or old.attributes[name].type != new.attributes[name].type:
                continue
            for old_graph, new_graph in zip(_graphs(old, name), _graphs(new, name), strict=False):
                is_alike = len(old_graph.inputs) == len(new_graph.inputs)
                if not is_alike or len(old_graph.outputs) != len(new_graph.outputs):
                    self.refute(new, f"{name} of {node_name(new)} takes or gives other values than before")
                    continue
                self.given.update(zip(old_graph.inputs, new_graph.inputs, strict=True))
                for old_value, new_value in zip(old_graph.outputs, new_graph.outputs, strict=True):
                    self.todo.append(Edge(old_value, new_value, new))

    # --- operands that may change places ------------------------------------------------------------------------------

    def _aligned(self, old: ir.Node, new: ir.Node) -> tuple[list[ir.Value | None], list[ir.Value | None]]:
        """The inputs of both, those of ``new`` in the order of ``old`` where the operator does not mind."""
        old_inputs = list(old.inputs)
        new_inputs = list(new.inputs)
        if old.op_type not in COMMUTATIVE or len(old_inputs) != 2 or len(new_inputs) != 2:
            return old_inputs, new_inputs
        old_marks = [self._marks(self.old, value) for value in old_inputs]
        new_marks = [self._marks(self.new, value) for value in new_inputs]
        # One kind of mark after the other, the surest first.
        for old_mark, new_mark in zip(zip(*old_marks, strict=True), zip(*new_marks, strict=True), strict=True):
            if old_mark[0] == old_mark[1]:
                continue
            if old_mark == new_mark[::-1]:
                return old_inputs, new_inputs[::-1]
            if old_mark == new_mark:
                break
        return old_inputs, new_inputs

    def _marks(self, graph: ComparedGraph, value: ir.Value | None) -> tuple[object, ...]:
        """What tells an operand from the other one: its numbers, its twin where that is known, its name, its makers."""
        constant = graph.constant(value)
        if value is None or constant is not None:
            numbers = None if constant is None else constant.array.tobytes()
            return ("constant", numbers, None, None, None)
        source = graph.source(value).value
        node = source.producer()
        twin = self.old_of.get(node) if node is not None and graph is self.new else node
        known = twin if twin in self.new_of else None
        return ("computed", None, known, source.name, _sketch(source))

    # --- layers -------------------------------------------------------------------------------------------------------

    def _took_in(self, old: ir.Node, new: ir.Node) -> bool:
        """Whether ``new`` took in what stands in front of ``old``, or is a Gemm with its weight the other way round."""
        if new.op_type not in LAYERS or old.inputs[0] is None or new.inputs[0] is None:
            return False
        if new.op_type == "Gemm" and _turns(old) != _turns(new):
            return True
        scaling = _behind_pads(self.old, old, self.old.plain_source(old.inputs[0])).producer()
        if scaling is None or scaling.op_type not in {"Mul", "Div"}:
            return False
        behind = _behind_pads(self.new, new, self.new.source(new.inputs[0]).value).producer()
        is_constant = any(self.old.constant(value) is not None for value in scaling.inputs)
        return is_constant and (behind is None or behind.op_type != scaling.op_type)

    def _compare_layers(self, old: ir.Node, new: ir.Node) -> bool:
        """Hold what ``new`` stores against ``old`` and what it took in; False where they are no such layers."""
        computed = linear_layer(old, self.old.plain_source, self.old.memo)
        if computed is None or layer_of(new, self.new.memo) is None or _scales(new):
            return False
        layer = computed.node
        is_product = {layer.op_type, new.op_type} <= PRODUCTS and computed.rank == 2
        if layer.op_type != new.op_type and not is_product:
            return False
        if layer.inputs[0] is None or new.inputs[0] is None:
            return False

        for node in computed.taken_in:
            if node.op_type == "BatchNormalization" and not self.allowed.folds:
                self.refute(new, f"{node_name(node)} was folded into it, which {self.allowed.name} does not do")
        self.certificate.folded += sum(node.op_type == "BatchNormalization" for node in computed.taken_in)
        old_data, new_data = layer.inputs[0], new.inputs[0]
        # Those of a product are in the weights that are compared.
        if new.op_type not in PRODUCTS:
            was, now = self._compared_attributes(layer, new)
            sources = self._read_behind_pads(layer, new, was, now)
            self._hold_attributes(new, was, now)
            if sources is not None:
                old_data, new_data = sources[0].value, sources[1].value
        data = self._take_in_front(computed, old_data, new_data)
        self._hold_layer(new, computed)
        self.todo.append(Edge(data, new_data, new))
        return True

    def _take_in_front(self, computed: LinearLayer, old: ir.Value, new: ir.Value) -> ir.Value:
        """What the layer reads, without the scaling that the new layer does not read any more."""
        twin = self.new.source(new).value.producer()
        while True:
            node = self.old.plain_source(old).producer()
            if node is None or (twin is not None and twin.op_type == node.op_type):
                return old
            if not take_in_front(computed, node, self.old.memo):
                return old
            [old] = [value for value in node.inputs if value is not None and self.old.constant(value) is None]

    def _hold_layer(self, node: ir.Node, computed: LinearLayer) -> None:
        weight = self.new.constant(node.inputs[1])
        bias = self.new.constant(node.inputs[2]) if len(node.inputs) > 2 else None
        assert weight is not None
        exact = as_stored(node, computed.weight, weight.shape)
        if exact is None:
            self.refute(node, f"weight has shape {weight.shape}, which is no form of what it had")
            return
        error: Bound = 0.0
        if np.any(computed.weight_error):
            whole_error = np.broadcast_to(computed.weight_error, computed.weight.shape)
            error = np.asarray(as_stored(node, whole_error, weight.shape))
        self.constants.hold_computed(node, "weight", weight, exact, None, error, computed.rounding)

        if bias is not None:
            terms = computed.bias_terms
            self.constants.hold_computed(
                node, "bias", bias, computed.bias, terms, computed.bias_error, computed.rounding
            )
        elif computed.bias.any():
            self.refute(node, f"{node_name(node)} lacks a constant weight or bias")


class Pairing(Walk):
    """A walk by structure alone, which tells what stands for what and compares no numbers."""

    def twins(self) -> dict[ir.Node, ir.Node]:
        """Which node of the graph after stands for which of the graph before."""
        self.run()
        return self.new_of

    def _refuse_not_finite(self) -> None:
        pass

    def _compare_constants(self, node: ir.Node | None, name: str, was: Constant, now: Constant) -> None:
        pass

    def _compare_layers(self, old: ir.Node, new: ir.Node) -> bool:
        layer = layer_before(old, self.old.plain_source, self.old.memo)
        if layer is None or layer.op_type != new.op_type or layer.inputs[0] is None or new.inputs[0] is None:
            return False
        self.todo.append(Edge(layer.inputs[0], new.inputs[0], new))
        return True


# --- questions to one node ------------------------------------------------------------------------------------------


def _is_only_cast(value: ir.Value) -> bool:
    """Whether all that reads ``value`` casts it first."""
    for node in value.consumers():
        is_handed_on = node.op_type == "Identity" and _is_only_cast(node.outputs[0])
        if node.op_type != "Cast" and not is_handed_on:
            return False
    return True


def _behind_pads(graph: ComparedGraph, node: ir.Node, value: ir.Value) -> ir.Value:
    """What ``node`` reads in front of Pads that its own could do; ``value`` where there are none."""
    padding = graph.padding_before(node, graph.attributes(node))
    return value if padding is None else padding.source.value


def _is_zero_bias(graph: ComparedGraph, node: ir.Node, place: int) -> bool:
    """Whether an input may as well be left out: a bias of zeros."""
    if node.op_type not in {"Conv", "ConvTranspose", "Gemm"} or place != 2:
        return False
    bias = graph.constant(node.inputs[place])
    return bias is not None and not bias.values.any()


def _turns(gemm: ir.Node) -> bool:
    """Whether ``gemm`` turns its weight."""
    return "transB" in gemm.attributes and gemm.attributes["transB"].as_int() != 0


def _scales(node: ir.Node) -> bool:
    """Whether ``node`` is a Gemm that multiplies its product or its bias."""
    factors = [node.attributes[name].as_float() for name in ("alpha", "beta") if name in node.attributes]
    return node.op_type == "Gemm" and any(factor != 1 for factor in factors)


def _graphs(node: ir.Node, name: str) -> list[ir.Graph]:
    attribute = node.attributes[name]
    return [attribute.as_graph()] if attribute.type == ir.AttributeType.GRAPH else list(attribute.as_graphs())


def _sketch(value: ir.Value) -> tuple[str, ...]:
    """The operators that ``value`` comes out of, as far as stages leave them as they are."""
    sketch = []
    for node in pairs.makers(value):
        if node.op_type in JOINS:
            sketch.append(node.op_type)
            break
        if node.op_type in STAYS:
            sketch.append(node.op_type)
    return tuple(sketch)


def _input_names(operator: str, opset: int) -> dict[int, str]:
    """The names of the inputs that may be compared otherwise than as values, by their places."""
    names = spelt_as_inputs(operator, opset)
    if operator in TELLS_SHAPE:
        names.setdefault(TELLS_SHAPE[operator], SHAPE)
    return names


def _without(inputs: list[ir.Value | None], names: dict[int, str], told: set[str]) -> list[ir.Value | None]:
    """``inputs`` but for those that were compared otherwise, by their names."""
    return [value for place, value in enumerate(inputs) if names.get(place) not in told]


def _same_attribute(was: Any, now: Any) -> bool:
    """The same numbers, lists, text or tensors."""
    if isinstance(was, ir.TensorProtocol) and isinstance(now, ir.TensorProtocol):
        return was.dtype == now.dtype and bool(np.array_equal(was.numpy(), now.numpy()))
    return bool(was == now)


def _as_float16(value: Any) -> Any:
    return np.asarray(value).astype(np.float16).tolist()


def _is_halved_type(node: ir.Node, name: str, was: Any, now: Any) -> bool:
    """Whether ``node`` makes float16 of what was no float before, where it made float32."""
    types = (ir.DataType.FLOAT.value, ir.DataType.FLOAT16.value)
    return node.op_type in MAKES_FLOATS and name in {"to", "dtype"} and (was, now) == types


def _plain(value: Any) -> str:
    return f"{value.numpy().tolist()}" if isinstance(value, ir.TensorProtocol) else f"{value}"


def _operators(before: ir.Graph, after: ir.Graph) -> dict[str, tuple[int, int]]:
    """How many nodes of each operator there are, before and after."""
    old_counts = Counter(node.op_type for node in before)
    new_counts = Counter(node.op_type for node in after)
    return {operator: (old_counts[operator], new_counts[operator]) for operator in sorted(old_counts | new_counts)}


def _left(graph: ir.Graph) -> dict[str, str]:
    """The BatchNormalizations that ``graph`` still has, by module, and what stands in the way of folding each."""
    left = {}
    for node in graph:
        if node.op_type == "BatchNormalization" and evaluate_constant(node.outputs[0]) is None:
            module = onnx_file.module_of(node) or str(node.name)
            left[module] = obstacle(node) or "it could be folded"
    return left
