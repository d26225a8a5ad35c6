"""Is one ONNX file the honest successor of another? Every weight, attribute and edge, with a bound that proves it.

The two graphs are walked together from their outputs. What only hands values on is stepped over, what a stage may
change is a row in :mod:`exporters.stage_changes`, and everything else is compared:

* constants by their values, however they are spelt (see :mod:`exporters.constant`): float32 next to float32 the same
  bits; float16 the nearest of the float32; weights behind DequantizeLinear at most half a scale away, channel by
  channel; next to quantised weights the same levels under the same scale, or its nearest float16;
* layers that took something in (a BatchNormalization, constants, channels a power of two apart): recomputed in float64
  (see :mod:`exporters.linear_layer` and :mod:`exporters.channel_space`);
* operators by what they mean in the opset of their file (see :mod:`exporters.opsets`);
* Q/DQ pairs by all that they have: scale, zero point, type, axis.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from functools import partial
from itertools import zip_longest
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import onnx_ir as ir

from exporters import comparable, onnx_file, pairs, stage_changes
from exporters.certify_rescale import follow
from exporters.comparable import given_shape
from exporters.constant import Constant, Memo, chosen_branch, evaluate_constant
from exporters.fold_batchnorm import obstacle
from exporters.linear_layer import LAYERS, PRODUCTS, as_stored, layer_before, layer_of, linear_layer, take_in_front
from exporters.node_attributes import COMPUTED, OF_THE_TENSORS_TYPE
from exporters.number_formats import NUMBER_FORMATS
from exporters.opsets import canonical_attributes, changed, spelt_as_inputs
from exporters.rounding import SMALLEST32, U32, U64, scale_as, storage
from exporters.value_numbers import RANDOM, SUBGRAPHS, ValueNumbers

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from exporters.linear_layer import LinearLayer
    from exporters.rounding import Bound
    from exporters.stage_changes import Changes

# gamma / sqrt(var + eps), times W: four float64 operations; the bias has three more. Sixteen covers both generously.
FOLD_ROUNDING = 16 * U64
# What has weights that training changes.
TRAINED = {"Conv", "Gemm"}
FLOATS = {ir.DataType.FLOAT, ir.DataType.FLOAT16}
# The same numbers in another shape: what they answer is told by the shape alone.
RESHAPES = {"Reshape", "Flatten", "Squeeze", "Unsqueeze"}
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
# Metadata that say who made a file, when and of what; all others say what it means.
PROVENANCE = {"versions", "commit", "source"}


@dataclass(frozen=True)
class Refutation:
    """What is not proven: the PyTorch ``module`` and what was ``found`` there."""

    module: str
    found: str


@dataclass
class Certificate:
    """What was compared, and everything that was refuted.

    ``stage`` is what the file was judged as. ``largest`` is the greatest share of its bound that any constant used up
    (1 is the bound itself); ``left`` are the BatchNormalizations that were not folded, each with what stands in its
    way. The channels of ``rescaled`` channel spaces are powers of two apart: proven exactly, for writers and readers
    together. ``retrained`` weights and biases are others, which was allowed, and of which nothing is proven.
    ``operators`` counts the nodes of each kind, before and after. ``metadata`` are differences in who made the file,
    which prove nothing and refute nothing.
    """

    stage: str = ""
    constants: int = 0
    nodes: int = 0
    folded: int = 0
    rescaled: int = 0
    retrained: int = 0
    largest: float = 0.0
    left: dict[str, str] = field(default_factory=dict)
    refuted: list[Refutation] = field(default_factory=list)
    operators: dict[str, tuple[int, int]] = field(default_factory=dict)
    metadata: list[str] = field(default_factory=list)

    @property
    def proven(self) -> bool:
        """Whether every comparison held."""
        return not self.refuted


def certify(before: Path, after: Path, *, stage: str | None = None, retrained: bool = False) -> Certificate:
    """Walk both files; raises ValueError where one cannot be read or compared, or where they are the same file.

    ``stage`` names the stage that made ``after``, or several with commas between; None: what the two files show.
    ``retrained`` layers may have other weights and biases, of the same shapes; everything else is proven as ever.
    """
    if before.exists() and after.exists() and before.samefile(after):
        raise ValueError(f"{before.name} would be compared with itself; give the file before and the file after")
    old_model = comparable.read(before)
    new_model = comparable.read(after)
    names = _shown(old_model.graph, new_model.graph) if stage is None else stage.split(",")
    if retrained and "qat" not in names:
        names.append("qat")
    allowed = stage_changes.together(names)

    rescaled = 0
    # Retrained weights are no powers of two apart, so there is nothing that could be followed.
    if not allowed.retrains and (allowed.rescales or stage is None):
        twins = Walk(old_model.graph, new_model.graph, allowed, pairing=True).twins()
        rescaled = follow(old_model.graph, twins)
        if rescaled > 0 and not allowed.rescales:
            allowed = stage_changes.together([*(name for name in names if name != "simplify"), "equalise"])

    walk = Walk(old_model.graph, new_model.graph, allowed)
    walk.run()
    walk.compare_metadata(old_model.metadata_props, new_model.metadata_props)
    walk.certificate.rescaled = rescaled
    return walk.certificate


def _shown(old: ir.Graph, new: ir.Graph) -> list[str]:
    """The stages that the differences of both graphs speak of; "simplify" where they speak of none."""
    names = []
    if _count(new, "BatchNormalization") < _count(old, "BatchNormalization"):
        names.append("fold_batchnorm")
    gained = _weight_formats(new) - _weight_formats(old)
    for name, row in NUMBER_FORMATS.items():
        family = {NUMBER_FORMATS[other].dtype for other in stage_changes.family(row)}
        if row.symmetric and family & gained.keys():
            names.append(name)
    if _halves(new) and not _halves(old):
        names.append("halve" if _count(old, "DequantizeLinear") or gained else "fp16")
    if any(value.dtype == ir.DataType.UINT8 for value in new.inputs):
        names.append("uint8_input")
    return names or ["simplify"]


def _count(graph: ir.Graph, operator: str) -> int:
    return sum(node.op_type == operator for node in graph)


def _weight_formats(graph: ir.Graph) -> Counter[np.dtype[Any]]:
    """How many constants are stored as levels, by the type of those."""
    formats: Counter[np.dtype[Any]] = Counter()
    for node in graph:
        levels = evaluate_constant(node.inputs[0]) if node.op_type == "DequantizeLinear" else None
        if levels is not None:
            formats[levels.dtype] += 1
    return formats


def _halves(graph: ir.Graph) -> bool:
    """Whether any stored number is float16."""
    return any(value.dtype == ir.DataType.FLOAT16 for value in graph.initializers.values())


class _Edge(NamedTuple):
    """Two values that have to be the same, and the node of the new graph that reads them: where a fault is named."""

    old: ir.Value
    new: ir.Value
    reader: ir.Node | None


@dataclass
class _Source:
    """A ``value``, and what stood between it and its reader: the Casts, by what they cast to, and the Q/DQ pairs."""

    value: ir.Value
    casts: list[ir.DataType] = field(default_factory=list)
    pairs: list[_Pair] = field(default_factory=list)


class _Pair(NamedTuple):
    """A whole Q/DQ pair on an activation: its scale, its zero point as stored, its axis where that matters."""

    quantise: ir.Node
    dequantise: ir.Node
    scale: Constant | None
    zero_point: NDArray[Any] | None
    axis: int | None


class Walk:
    """One walk through both graphs, from their outputs to their inputs.

    It starts from the graphs as their callers see them (``_compare_ends``) and from all stored numbers
    (``_refuse_not_finite``). ``todo`` are the edges that are still to compare, at first the outputs. For each edge:

    1. ``_source``: what only hands a value on is stepped over, in both graphs.
    2. ``_compare_between``: the Casts and Q/DQ pairs there are those that stood there, but for what the stage adds.
    3. Both values are the same input of the graph (``_compare_inputs``), or the same output of two nodes that stand
       for each other. Two nodes of one file may stand for one of the other where they are equal (``ValueNumbers``).
    4. ``_compare_nodes``: such nodes have the same operator, and attributes that mean the same. Their constants are
       compared by value (``_compare_operands``), and what they compute from goes to ``todo``. What a layer took in is
       compared together with it (``_compare_layers``).

    Stages and tools may spell the same otherwise, wherever they like: constants computed or stored, equal nodes merged,
    names, the order of what is added, shapes told or computed, Pad of zeros as pads of a layer, Dropout that drops
    nothing, an If that always goes one way.

    A node is compared once, however many others read it, so the walk ends. What no output depends on is never met,
    and needs no proof.
    """

    def __init__(self, before: ir.Graph, after: ir.Graph, allowed: Changes, *, pairing: bool = False) -> None:
        self.before = before
        self.after = after
        self.allowed = allowed
        self.pairing = pairing
        self.certificate = Certificate(stage=allowed.name, operators=_operators(before, after), left=_left(after))
        self.todo: list[_Edge] = []
        # Which node stands for which, in both directions.
        self.new_of: dict[ir.Node, ir.Node] = {}
        self.old_of: dict[ir.Node, ir.Node] = {}
        # The DequantizeLinear whose pairs were judged by themselves.
        self.judged: set[ir.Node] = set()
        # The pairs that the stage made.
        self.made: list[_Pair] = []
        # The values that a subgraph is given: the old one by the new one.
        self.given: dict[ir.Value, ir.Value] = {}
        self.old_memo = Memo(shapes_known=True)
        self.new_memo = Memo(shapes_known=True)
        self.old_numbers = ValueNumbers(self.old_memo)
        self.new_numbers = ValueNumbers(self.new_memo)
        self.old_opset = _opset(before)
        self.new_opset = _opset(after)

    def run(self) -> None:
        """Compare everything that the outputs depend on."""
        if not self.pairing:
            self._compare_ends()
            self._refuse_not_finite()
        for old, new in zip(self.before.outputs, self.after.outputs, strict=False):
            self.todo.append(_Edge(old, new, None))
        while self.todo:
            self._compare_edge(self.todo.pop())
        self._refuse_two_signs()

    def twins(self) -> dict[ir.Node, ir.Node]:
        """Which node of the graph after stands for which before, by structure alone; nothing is compared."""
        self.run()
        return self.new_of

    def refute(self, node: ir.Node | None, found: str) -> None:
        """Note what was ``found`` at ``node``; None stands for the graph as a whole."""
        self.certificate.refuted.append(Refutation(self._module(node), found))

    def _module(self, node: ir.Node | None) -> str:
        """The name that a person knows ``node`` by: in the graph before where that has one, else its own."""
        if node is None:
            return ""
        twin = self.old_of.get(node)
        module = onnx_file.module_of(node) or (onnx_file.module_of(twin) if twin is not None else "")
        return module or node.name or str(node.outputs[0].name)

    # --- the graph as its callers see it ------------------------------------------------------------------------------

    def _compare_ends(self) -> None:
        """Inputs and outputs have the same names, types and shapes, in the same order."""
        old_ends = [self._end(value) for value in (*self.before.inputs, *self.before.outputs)]
        new_ends = [self._end(value) for value in (*self.after.inputs, *self.after.outputs)]
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
        for value in (*self.before.initializers.values(), *self.after.initializers.values()):
            array = onnx_file.initializer_array(value)
            if array is None or array.dtype.kind != "f" or np.isfinite(array).all():
                continue
            readers = list(value.consumers())
            if not np.isnan(array).any() and readers and all(node.op_type in LIMITS for node in readers):
                continue
            self.refute(next(iter(readers), None), f"{value.name} holds NaN or infinity")

    def compare_metadata(self, old: dict[str, str], new: dict[str, str]) -> None:
        """What the files say of themselves: classes and preprocessing are part of what is shipped."""
        for key in sorted(old):
            if old[key] == new.get(key):
                continue
            was, now = _excerpts(old[key], new.get(key))
            found = f"the metadata {key!r} are {now}, they were {was}"
            if key in PROVENANCE:
                self.certificate.metadata.append(found)
            else:
                self.refute(None, found)
        added = sorted(new.keys() - old.keys())
        if added:
            self.certificate.metadata.append(f"new metadata: {', '.join(added)}")

    # --- edges --------------------------------------------------------------------------------------------------------

    def _compare_edge(self, edge: _Edge) -> None:
        old = self._source(edge.old, self.old_memo)
        new = self._source(edge.new, self.new_memo)
        if not self.pairing:
            self._compare_between(edge.reader, old, new)
        self._compare_values(old.value, new.value, edge.reader)

    def _compare_values(self, old: ir.Value, new: ir.Value, reader: ir.Node | None) -> None:
        """Both are the same, whatever stood between them and their reader."""
        was = evaluate_constant(old, self.old_memo)
        now = evaluate_constant(new, self.new_memo)
        if was is not None and now is not None:
            self._compare_constants(reader, str(new.name), was, now)
            return

        old_node = old.producer()
        new_node = new.producer()
        if old_node is None or new_node is None:
            self._compare_inputs(old, new, reader)
            return
        if old.index() != new.index():
            place = f"output {new.index()} of {new_node.name}"
            self.refute(reader, f"{place} stands where output {old.index()} stood")
            return

        known_old = self.old_of.get(new_node)
        known_new = self.new_of.get(old_node)
        if known_new is new_node:
            return
        if known_new is not None and not self.new_numbers.equal(known_new.outputs[0], new_node.outputs[0]):
            self.refute(reader, f"{_name(new_node)} stands where {_name(old_node)} stood")
            return
        if known_old is not None and not self.old_numbers.equal(known_old.outputs[0], old_node.outputs[0]):
            self.refute(reader, f"{_name(new_node)} stands where {_name(old_node)} stood")
            return
        is_compared = known_old is not None or known_new is not None
        self.new_of.setdefault(old_node, new_node)
        self.old_of.setdefault(new_node, old_node)
        if not is_compared:
            self._compare_nodes(old_node, new_node)

    def _source(self, value: ir.Value, memo: Memo) -> _Source:
        """The value behind everything that hands a value on, and the Casts and pairs on the way."""
        source = _Source(value)
        while True:
            node = source.value.producer()
            if node is None or source.value.const_value is not None:
                return source
            behind = self._behind(node, source, memo)
            if behind is None:
                return source
            source.value = behind

    def _behind(self, node: ir.Node, source: _Source, memo: Memo) -> ir.Value | None:
        """What ``node`` hands on with the same meaning, noted in ``source``; None where it computes something."""
        value = node.inputs[0] if node.inputs else None
        if node.op_type == "If":
            branch = chosen_branch(node)
            place = source.value.index()
            return None if branch is None or place is None else branch.outputs[place]
        if value is None or evaluate_constant(source.value, memo) is not None:
            return None

        if node.op_type == "DequantizeLinear":
            return self._behind_pair(node, value, source, memo)
        if node.op_type == "Identity" or (node.op_type == "Dropout" and _drops_nothing(node, memo)):
            return value if source.value.index() == 0 else None
        if node.op_type == "Cast":
            wanted = ir.DataType(node.attributes["to"].as_int())
            if wanted == value.dtype:
                return value
            if wanted in FLOATS and (value.dtype in FLOATS or _is_input(value)):
                source.casts.append(wanted)
                return value
            return None
        if node.op_type in RESHAPES and _same_shape(value, node.outputs[0]):
            return value
        return None

    def _behind_pair(self, dequantise: ir.Node, levels: ir.Value, source: _Source, memo: Memo) -> ir.Value | None:
        """What a whole Q/DQ pair on an activation quantises; None where ``levels`` are no pair's."""
        quantise = levels.producer()
        if quantise is None or quantise.op_type != "QuantizeLinear":
            return None
        scale = evaluate_constant(quantise.inputs[1], memo)
        axis = None
        if scale is not None and scale.numbers.size > 1:
            axis = _axis(quantise)
        source.pairs.append(_Pair(quantise, dequantise, scale, pairs.zero_of(quantise), axis))
        if not self.pairing and dequantise not in self.judged:
            self.judged.add(dequantise)
            self._judge_pair(source.pairs[-1], memo)
        return quantise.inputs[0]

    def _judge_pair(self, pair: _Pair, memo: Memo) -> None:
        """A pair is an identity but for its rounding: where both halves are alike, and nothing is cut off."""
        quantise, dequantise, scale, zero_point, _ = pair
        reader = _reader(dequantise)
        other_scale = evaluate_constant(dequantise.inputs[1], memo)
        other_zero_point = pairs.zero_of(dequantise)
        if scale is None or other_scale is None:
            self.refute(reader, f"{_name(quantise)} or {_name(dequantise)} has a scale that is computed")
            return
        if not _same_array(scale.array, other_scale.array) or not _same_array(zero_point, other_zero_point):
            self.refute(reader, f"{_name(quantise)} and {_name(dequantise)} differ in scale or zero point")
        for name in sorted(_PAIR_ATTRIBUTES):
            was, now = _pair_attribute(quantise, name), _pair_attribute(dequantise, name)
            if was != now and (name != "axis" or scale.numbers.size > 1):
                self.refute(reader, f"{name} of {_name(dequantise)} is {now}, and {was} of its {_name(quantise)}")
        if "saturate" in quantise.attributes and quantise.attributes["saturate"].as_int() != 1:
            self.refute(reader, f"{_name(quantise)} does not saturate: what is too large becomes NaN")
        if pairs.number_format_of(quantise) is None:
            self.refute(reader, f"{_name(quantise)} cuts values off: its zero point is not an INT8 0")
        if not (np.isfinite(scale.values) & (scale.values > 0)).all():
            self.refute(reader, f"{_name(quantise)} has a scale that is no positive number")

    def _compare_between(self, reader: ir.Node | None, old: _Source, new: _Source) -> None:
        """Casts and pairs stay, and new ones are those that the stage makes."""
        self._compare_casts(reader, old, new)
        if old.pairs and len(old.pairs) != len(new.pairs):
            self.refute(reader, f"{len(new.pairs)} Q/DQ pairs stand where {len(old.pairs)} stood")
        elif not old.pairs and len(new.pairs) > 1:
            self.refute(reader, f"{len(new.pairs)} Q/DQ pairs stand in a row, where one rounds all that is rounded")
        for was, now in zip(old.pairs, new.pairs, strict=False):
            self._compare_kept_pair(reader, was, now)
        if not old.pairs:
            for pair in new.pairs:
                self.made.append(pair)
                number_format = pairs.number_format_of(pair.quantise)
                if number_format is not None and number_format.name not in self.allowed.formats:
                    found = f"{_name(pair.quantise)} is a new Q/DQ pair of {number_format.name}"
                    self.refute(reader, f"{found}, which {self.allowed.name} does not make")

    def _compare_casts(self, reader: ir.Node | None, old: _Source, new: _Source) -> None:
        if old.casts == new.casts:
            return
        if self.allowed.bytes_in and new.value.dtype == ir.DataType.UINT8 and new.casts[-1:] == [ir.DataType.FLOAT]:
            new = _Source(new.value, new.casts[:-1])
        types = [*new.casts, new.value.dtype]
        # From the value to its reader: float32, float16, float32 is a rounding that nothing asked for.
        through_float16 = types[-1] == ir.DataType.FLOAT and ir.DataType.FLOAT16 in types[1:-1]
        if old.casts != new.casts and (not self.allowed.float16 or through_float16):
            cast = " and ".join(dtype.name for dtype in reversed(new.casts)) or "nothing"
            was = " and ".join(dtype.name for dtype in reversed(old.casts)) or "nothing"
            self.refute(reader, f"what it reads is cast to {cast}, it was cast to {was}")

    def _refuse_two_signs(self) -> None:
        """The activations of one file are all signed or all unsigned: a pair of the other kind has another range."""
        signed = [pair for pair in self.made if not _is_unsigned(pair)]
        unsigned = [pair for pair in self.made if _is_unsigned(pair)]
        fewer = min(signed, unsigned, key=len) if signed and unsigned else []
        for pair in fewer:
            kind = "signed" if fewer is signed else "unsigned"
            self.refute(_reader(pair.dequantise), f"{_name(pair.quantise)} is {kind}, unlike most pairs of the file")

    def _compare_kept_pair(self, reader: ir.Node | None, was: _Pair, now: _Pair) -> None:
        if was.axis != now.axis or not _same_array(was.zero_point, now.zero_point):
            self.refute(reader, f"{_name(now.quantise)} has another type, zero point or axis than the pair before")
        if was.scale is not None and now.scale is not None:
            self._compare_scales(reader, "the scale of its input", was.scale, now.scale)

    def _compare_scales(self, node: ir.Node | None, name: str, was: Constant, now: Constant) -> None:
        """The same scale, or its nearest float16 where the stage halves."""
        if was.dtype != now.dtype and not (self.allowed.float16 and now.dtype == np.float16):
            self.refute(node, f"{name} is {now.dtype}, it was {was.dtype}")
            return
        if was.numbers.size == 1 and now.numbers.size == 1:
            was, now = _flat(was), _flat(now)
        self._hold_within(node, name, now, scale_as(was, now.dtype), 0.0)

    def _compare_inputs(self, old: ir.Value, new: ir.Value, reader: ir.Node | None) -> None:
        """At least one of the two is computed by no node: then both are the same input of their graph."""
        if old in self.given:
            if self.given[old] is not new:
                self.refute(reader, f"{new.name} stands where {old.name} stood")
            return
        old_place = _place_of_input(self.before, old)
        new_place = _place_of_input(self.after, new)
        if old_place is None or old_place != new_place:
            self.refute(reader, f"{new.name} stands where {old.name} stood")

    # --- nodes --------------------------------------------------------------------------------------------------------

    def _compare_nodes(self, old: ir.Node, new: ir.Node) -> None:
        self.certificate.nodes += 1
        if new.op_type in RANDOM or old.op_type in RANDOM:
            self.refute(new, f"{_name(new)} answers at random, of which nothing can be proven")
            return
        if old.op_type in RESHAPES and new.op_type in RESHAPES and self._compare_reshapes(old, new):
            return
        if old.op_type != new.op_type or self._took_in(old, new):
            if not self._compare_layers(old, new):
                self.refute(new, f"{new.op_type} {_name(new)} stands where {old.op_type} {_name(old)} stood")
            return

        old_inputs, new_inputs = self._aligned(old, new)
        old_attributes, new_attributes = self._compare_attributes(old, new)
        padded = self._compare_padded(old, new, old_attributes, new_attributes)
        self._compare_subgraphs(old, new)
        told = self._told(old, new, old_attributes, new_attributes)
        self._hold_attributes(new, old_attributes, new_attributes)
        old_inputs = _without(old_inputs, spelt_as_inputs(old.op_type, self.old_opset), told)
        new_inputs = _without(new_inputs, spelt_as_inputs(new.op_type, self.new_opset), told)
        for place, (old_value, new_value) in enumerate(zip_longest(old_inputs, new_inputs)):
            if place == 0 and padded:
                continue
            if old_value is not None and new_value is not None:
                self._compare_operands(new, old_value, new_value)
            elif old_value is not None and not self._adds_nothing(old, place, self.old_memo):
                self.refute(new, f"{_name(new)} lost its input {old_value.name}")
            elif new_value is not None and not self._adds_nothing(new, place, self.new_memo):
                self.refute(new, f"{_name(new)} has a new input {new_value.name}")

    def _adds_nothing(self, node: ir.Node, place: int, memo: Memo) -> bool:
        """Whether an input may as well be left out: a bias of zeros, or a zero point of zeros."""
        is_bias = node.op_type in {"Conv", "ConvTranspose", "Gemm"} and place == 2
        value = node.inputs[place]
        constant = evaluate_constant(value, memo) if is_bias else None
        return constant is not None and not constant.values.any()

    def _compare_attributes(self, old: ir.Node, new: ir.Node) -> tuple[dict[str, Any], dict[str, Any]]:
        """What the attributes of both nodes mean; refuted where the operator means something else in either opset."""
        old_constants = partial(evaluate_constant, memo=self.old_memo)
        new_constants = partial(evaluate_constant, memo=self.new_memo)
        difference = changed(old, self.old_opset, self.new_opset, old_constants, new)
        if difference and not self.pairing:
            self.refute(new, f"{new.op_type} of {_name(new)} means something else in another opset: {difference}")
        old_attributes = canonical_attributes(old, self.old_opset, old_constants, new)
        new_attributes = canonical_attributes(new, self.new_opset, new_constants, old)
        return old_attributes, new_attributes

    def _hold_attributes(self, node: ir.Node, old: dict[str, Any], new: dict[str, Any]) -> None:
        if self.pairing:
            return
        rounded = OF_THE_TENSORS_TYPE.get(node.op_type, set()) if self.allowed.float16 else set()
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
            self.refute(node, f"{name} of {_name(node)} is {_plain(now)}, it was {_plain(was)}")

    def _told(self, old: ir.Node, new: ir.Node, was: dict[str, Any], now: dict[str, Any]) -> set[str]:
        """The attributes, of those that may be inputs, that need no further comparison as inputs.

        Such are constants, which are compared as attributes, and what tells the shape of the answer, where that is the
        same; of the attributes it is taken away then.
        """
        told = set()
        spelt_as = {
            **spelt_as_inputs(old.op_type, self.old_opset),
            **spelt_as_inputs(new.op_type, self.new_opset),
        }
        for name in {*spelt_as.values(), SHAPE}:
            if was.get(name) != COMPUTED and now.get(name) != COMPUTED:
                told.add(name)
        place = TELLS_SHAPE.get(old.op_type)
        if place is not None and _same_shape(old.outputs[0], new.outputs[0], open_sizes=0):
            name = spelt_as_inputs(old.op_type, self.old_opset).get(place, SHAPE)
            was.pop(name, None)
            now.pop(name, None)
            told.add(name)
        elif SHAPE in told:
            told.remove(SHAPE)
        return told

    def _compare_reshapes(self, old: ir.Node, new: ir.Node) -> bool:
        """Whether both give the same shape, of whatever: then they are the same where that is."""
        if not _same_shape(old.outputs[0], new.outputs[0]):
            return False
        self.todo.append(_Edge(self._unshaped(old, self.old_memo), self._unshaped(new, self.new_memo), new))
        return True

    def _unshaped(self, node: ir.Node, memo: Memo) -> ir.Value:
        """What ``node`` reshapes, before any other reshaping."""
        value = node.inputs[0]
        assert value is not None
        while True:
            source = self._source(value, memo)
            before = source.value.producer()
            if source.casts or source.pairs or before is None or before.op_type not in RESHAPES:
                return value
            if evaluate_constant(source.value, memo) is not None or before.inputs[0] is None:
                return value
            value = before.inputs[0]

    def _aligned(self, old: ir.Node, new: ir.Node) -> tuple[list[ir.Value | None], list[ir.Value | None]]:
        """The inputs of both, those of ``new`` in the order of ``old`` where the operator does not mind."""
        old_inputs = list(old.inputs)
        new_inputs = list(new.inputs)
        if old.op_type not in COMMUTATIVE or len(old_inputs) != 2 or len(new_inputs) != 2:
            return old_inputs, new_inputs
        old_marks = [self._mark(value, self.old_memo) for value in old_inputs]
        new_marks = [self._mark(value, self.new_memo) for value in new_inputs]
        for old_mark, new_mark in zip(zip(*old_marks, strict=True), zip(*new_marks, strict=True), strict=True):
            if old_mark == new_mark[::-1] and old_mark != new_mark:
                return old_inputs, new_inputs[::-1]
            if old_mark == new_mark and old_mark[0] != old_mark[1]:
                return old_inputs, new_inputs
        return old_inputs, new_inputs

    def _mark(self, value: ir.Value | None, memo: Memo) -> tuple[object, ...]:
        """What tells an operand from the other one, surest first: constant, already paired, its name, its makers."""
        if value is None:
            return (None, None, None, None)
        constant = evaluate_constant(value, memo)
        if constant is not None:
            return ("constant", constant.array.tobytes(), constant.shape, None)
        source = self._source_unjudged(value, memo)
        node = source.producer()
        known = None
        if node is not None:
            known = self.old_of.get(node, node) if memo is self.new_memo else node
            known = known if known in self.new_of else None
        return ("computed", known, source.name, _sketch(source))

    def _source_unjudged(self, value: ir.Value, memo: Memo) -> ir.Value:
        """The value of ``_source``, with nothing refuted on the way."""
        pairing, self.pairing = self.pairing, True
        source = self._source(value, memo)
        self.pairing = pairing
        return source.value

    def _compare_padded(self, old: ir.Node, new: ir.Node, was: dict[str, Any], now: dict[str, Any]) -> bool:
        """Take a Pad in front into the pads of both nodes; whether there was one, and its input was compared."""
        if old.op_type not in PADDED or not old.inputs[0] or not new.inputs[0]:
            return False
        old_pad = self._pad_before(old, was, self.old_memo)
        new_pad = self._pad_before(new, now, self.new_memo)
        if old_pad is None and new_pad is None:
            return False
        before = [old.inputs[0], new.inputs[0]]
        for place, (pad, attributes) in enumerate(((old_pad, was), (new_pad, now))):
            if pad is not None:
                attributes["pads"] = [one + other for one, other in zip(attributes["pads"], pad.pads, strict=True)]
                before[place] = pad.value
        sources = [self._source(old.inputs[0], self.old_memo), self._source(new.inputs[0], self.new_memo)]
        further = [self._source(before[0], self.old_memo), self._source(before[1], self.new_memo)]
        whole = []
        for source, beyond, pad in zip(sources, further, (old_pad, new_pad), strict=True):
            if pad is None:
                whole.append(source)
            else:
                whole.append(_Source(beyond.value, source.casts + beyond.casts, source.pairs + beyond.pairs))
        if not self.pairing:
            self._compare_between(new, whole[0], whole[1])
        self.todo.append(_Edge(whole[0].value, whole[1].value, new))
        return True

    def _pad_before(self, node: ir.Node, attributes: dict[str, Any], memo: Memo) -> _Padding | None:
        """The Pad in front of ``node`` where its own pads could do the same."""
        assert node.inputs[0] is not None
        value = self._source_unjudged(node.inputs[0], memo)
        pad = value.producer()
        if pad is None or pad.op_type != "Pad" or not attributes.get("pads") or pad.inputs[0] is None:
            return None
        opset = self.old_opset if memo is self.old_memo else self.new_opset
        settings = canonical_attributes(pad, opset, partial(evaluate_constant, memo=memo))
        pads, axes, rank = settings.get("pads"), settings.get("axes"), len(attributes["pads"]) // 2 + 2
        if settings.get("mode") != "constant" or not isinstance(pads, list) or axes == COMPUTED or min(pads) < 0:
            return None
        if attributes.get("auto_pad", "NOTSET") != "NOTSET":
            return None
        whole = [0] * 2 * rank
        for place, axis in enumerate(axes if isinstance(axes, list) else range(rank)):
            whole[axis] = pads[place]
            whole[axis + rank] = pads[place + len(pads) // 2]
        if any(whole[:2]) or any(whole[rank : rank + 2]):
            return None
        if not _pads_alike(node, attributes, settings.get("value"), pad.inputs[0]):
            return None
        return _Padding(pad.inputs[0], whole[2:rank] + whole[rank + 2 :])

    def _compare_subgraphs(self, old: ir.Node, new: ir.Node) -> None:
        """The graphs inside an If, a Loop or a Scan: what they are given, and what they answer."""
        for name in sorted(old.attributes.keys() & new.attributes.keys()):
            if old.attributes[name].type not in SUBGRAPHS or old.attributes[name].type != new.attributes[name].type:
                continue
            for old_graph, new_graph in zip(_graphs(old, name), _graphs(new, name), strict=False):
                old_values = (*old_graph.inputs, *old_graph.outputs)
                new_values = (*new_graph.inputs, *new_graph.outputs)
                if len(old_values) != len(new_values) or len(old_graph.inputs) != len(new_graph.inputs):
                    self.refute(new, f"{name} of {_name(new)} takes or gives other values than before")
                    continue
                self.given.update(zip(old_graph.inputs, new_graph.inputs, strict=True))
                for old_value, new_value in zip(old_graph.outputs, new_graph.outputs, strict=True):
                    self.todo.append(_Edge(old_value, new_value, new))

    # --- layers -------------------------------------------------------------------------------------------------------

    def _took_in(self, old: ir.Node, new: ir.Node) -> bool:
        """Whether ``new`` took in what stands in front of ``old``, or a Gemm is written the other way round."""
        if new.op_type not in LAYERS or old.inputs[0] is None or new.inputs[0] is None or self.pairing:
            return False
        before = self._source_unjudged(old.inputs[0], self.old_memo).producer()
        is_scaled = before is not None and before.op_type in {"Mul", "Div"}
        if is_scaled and before is not None:
            behind = self._source_unjudged(new.inputs[0], self.new_memo).producer()
            constant = [evaluate_constant(value, self.old_memo) for value in before.inputs]
            if any(item is not None for item in constant):
                return behind is None or behind.op_type != before.op_type
        return new.op_type == old.op_type == "Gemm" and _turns(old) != _turns(new)

    def _compare_layers(self, old: ir.Node, new: ir.Node) -> bool:
        """Hold what ``new`` stores against ``old`` and what it took in; False where they are no such layers."""
        if self.pairing:
            return self._pair_layers(old, new)
        computed = linear_layer(old, partial(self._behind_all, memo=self.old_memo), self.old_memo)
        written = layer_of(new, self.new_memo)
        if computed is None or written is None or _scales(new):
            return False
        layer = computed.node
        kinds = {layer.op_type, new.op_type}
        if len(kinds) > 1 and (not kinds <= PRODUCTS or computed.rank != 2):
            return False
        self._refuse_obstacles(computed, new)

        old_value = layer.inputs[0]
        new_value = new.inputs[0]
        assert old_value is not None
        assert new_value is not None
        old_value = self._take_in_front(computed, old_value, new_value)
        padded = False
        if len(kinds) == 1:
            was, now = self._compare_attributes(layer, new)
            for settings in (was, now) if new.op_type in PRODUCTS else ():
                for name in ("alpha", "beta", "transB"):
                    settings.pop(name, None)
            if old_value is layer.inputs[0]:
                padded = self._compare_padded(layer, new, was, now)
            self._hold_attributes(new, was, now)
        self.certificate.folded += sum(node.op_type == "BatchNormalization" for node in computed.taken_in)
        self._hold_layer(new, computed)
        if not padded:
            self.todo.append(_Edge(old_value, new_value, new))
        return True

    def _pair_layers(self, old: ir.Node, new: ir.Node) -> bool:
        """The same by structure alone."""
        layer = layer_before(old, partial(self._behind_all, memo=self.old_memo), self.old_memo)
        if layer is None or layer.op_type != new.op_type or layer.inputs[0] is None or new.inputs[0] is None:
            return False
        self.todo.append(_Edge(layer.inputs[0], new.inputs[0], new))
        return True

    def _behind_all(self, value: ir.Value, memo: Memo) -> ir.Value:
        """The value that ``value`` hands on, unless a Cast or a pair stands in between."""
        pairing, self.pairing = self.pairing, True
        source = self._source(value, memo)
        self.pairing = pairing
        return value if source.casts or source.pairs else source.value

    def _take_in_front(self, computed: LinearLayer, old: ir.Value, new: ir.Value) -> ir.Value:
        """What the layer reads, without the scaling that the new layer does not read any more."""
        while True:
            behind = self._behind_all(old, self.old_memo)
            node = behind.producer()
            twin = self._behind_all(new, self.new_memo).producer()
            if node is None or (twin is not None and twin.op_type == node.op_type):
                return old
            if not take_in_front(computed, node, self.old_memo):
                return old
            [data] = [value for value in node.inputs if value and evaluate_constant(value, self.old_memo) is None]
            old = data

    def _refuse_obstacles(self, computed: LinearLayer, new: ir.Node) -> None:
        """A stage that folds no BatchNormalization has folded none."""
        for node in computed.taken_in:
            if node.op_type == "BatchNormalization" and not self.allowed.folds:
                self.refute(new, f"{_name(node)} was folded into it, which {self.allowed.name} does not do")

    def _hold_layer(self, node: ir.Node, computed: LinearLayer) -> None:
        """Each operation rounded to float32, the float64 roundings of both computations, and what storage adds."""
        weight = evaluate_constant(node.inputs[1], self.new_memo)
        bias = evaluate_constant(node.inputs[2], self.new_memo) if len(node.inputs) > 2 else None
        assert weight is not None
        exact = as_stored(node, computed.weight, weight.shape)
        if exact is None:
            self.refute(node, f"weight has shape {weight.shape}, which is no form of what it had")
            return
        error: Bound = 0.0
        if np.any(computed.weight_error):
            whole_error = np.broadcast_to(computed.weight_error, computed.weight.shape)
            error = np.asarray(as_stored(node, whole_error, weight.shape))
        self._refuse_format(node, "weight", weight)
        self._hold_computed(node, "weight", weight, exact, None, error, computed.rounding)
        if bias is not None:
            self._hold_computed(
                node, "bias", bias, computed.bias, computed.bias_terms, computed.bias_error, computed.rounding
            )
        elif computed.bias.any():
            self.refute(node, f"{_name(node)} lacks a constant weight or bias")

    def _hold_computed(
        self,
        node: ir.Node,
        name: str,
        stored: Constant,
        exact: NDArray[np.float64],
        terms: NDArray[np.float64] | None,
        error: Bound,
        share: float,
    ) -> None:
        """``terms`` are the magnitudes that were summed; None of a product, which is its own."""
        if stored.shape != exact.shape and stored.numbers.size == exact.size:
            stored = _flat(stored)
        magnitude = np.abs(exact)
        if terms is None:
            bound = (U32 + FOLD_ROUNDING + share) * magnitude
        else:
            bound = U32 * magnitude + (FOLD_ROUNDING + share) * terms
        bound += SMALLEST32 + error + storage(stored, exact)
        self._hold_within(node, name, stored, exact, bound)

    # --- constants ----------------------------------------------------------------------------------------------------

    def _compare_operands(self, node: ir.Node, old: ir.Value, new: ir.Value) -> None:
        """What ``node`` reads at one place: followed where it is computed, held within its bound where constant."""
        was = evaluate_constant(old, self.old_memo)
        now = evaluate_constant(new, self.new_memo)
        if was is None and now is None:
            self.todo.append(_Edge(old, new, node))
        elif was is None or now is None:
            self.refute(node, f"{new.name} of {_name(node)} is a constant in one file only")
        else:
            self._compare_constants(node, str(new.name), was, now)

    def _compare_constants(self, node: ir.Node | None, name: str, was: Constant, now: Constant) -> None:
        if self.pairing:
            return
        if self.allowed.retrains and node is not None and node.op_type in TRAINED and was.dtype == now.dtype:
            self._compare_retrained(node, was, now)
        elif was.quantised is not None and now.quantised is not None:
            # Levels next to levels: the same ones, under the same scales or their nearest float16.
            old_levels, old_scale = was.quantised
            new_levels, new_scale = now.quantised
            self._hold_within(node, f"levels of {name}", new_levels, old_levels.values, 0.0)
            self._compare_scales(node, f"scale of {name}", old_scale, new_scale)
        elif now.quantised is not None:
            self._refuse_format(node, name, now)
            self._hold_within(node, name, now, was.values, storage(now, was.values) + was.error)
        elif now.dtype == was.dtype:
            # Of levels the products, each rounded once.
            exact = was.values if was.quantised is None else was.array.astype(np.float64)
            self._hold_within(node, name, now, exact, was.error + now.error)
        elif now.dtype == np.float16 and self.allowed.float16:
            # Rounding to the nearest is a function: what it gives is compared exactly.
            nearest = was.array.astype(np.float16).astype(np.float64)
            bound = 0.0 if was.exact else was.error + storage(now, was.values)
            self._hold_within(node, name, now, nearest, bound)
        else:
            self.refute(node, f"{name} is {now.dtype}, it was {was.dtype}")

    def _refuse_format(self, node: ir.Node | None, name: str, constant: Constant) -> None:
        """New levels are of a format that the stage makes; INT32, of a bias, stands beside every one of them."""
        if constant.dtype == np.float16 and not self.allowed.float16:
            self.refute(node, f"{name} is float16, which {self.allowed.name} does not make")
        if constant.quantised is None:
            return
        dtype = constant.quantised[0].dtype
        allowed = {NUMBER_FORMATS[row].dtype for row in self.allowed.formats}
        if allowed and dtype == np.int32:
            return
        if dtype not in allowed:
            self.refute(node, f"{name} is stored as {dtype} levels, which {self.allowed.name} does not make")

    def _compare_retrained(self, node: ir.Node, was: Constant, now: Constant) -> None:
        """Other numbers, which are counted, of the same shape, and finite."""
        if was.shape != now.shape:
            self.refute(node, f"a weight of {_name(node)} has shape {now.shape}, it had {was.shape}")
            return
        if not np.array_equal(was.array, now.array):
            self.certificate.retrained += 1
        if not np.isfinite(now.values).all():
            self.refute(node, f"a weight of {_name(node)} holds NaN or infinity")

    def _hold_within(
        self, node: ir.Node | None, name: str, stored: Constant, exact: NDArray[np.float64], bound: Bound
    ) -> None:
        """Refute the constant ``stored`` where any of its values is further than ``bound`` from ``exact``."""
        self.certificate.constants += 1
        if stored.shape != exact.shape:
            self.refute(node, f"{name} has shape {stored.shape}, it had {exact.shape}")
            return

        allowed = np.broadcast_to(bound, exact.shape)
        share = _share(stored.values, exact, allowed)
        largest_share = float(share.max(initial=0.0))
        if largest_share <= 1:  # false for NaN as well
            self.certificate.largest = max(self.certificate.largest, largest_share)
            return

        worst = np.unravel_index(int(np.argmax(share)), share.shape)
        place = tuple(int(index) for index in worst)
        found = f"{name}{list(place) or ''} is {stored.values[place]:.9g}, expected {exact[place]:.9g}"
        self.refute(node, f"{found} within {allowed[place]:.3g}")


# Operators with pads of their own.
PADDED = {"Conv", "MaxPool", "AveragePool"}


class _Padding(NamedTuple):
    """A Pad as pads of what reads it: what it pads, and how wide."""

    value: ir.Value
    pads: list[int]


def _pads_alike(node: ir.Node, attributes: dict[str, Any], filled: Any, value: ir.Value) -> bool:
    """Whether ``node`` pads by itself with what a Pad before it ``filled`` in, around ``value``."""
    number = 0.0 if filled is None else float(np.asarray(filled).ravel()[0])
    if node.op_type == "Conv":
        return number == 0
    if node.op_type == "AveragePool":
        return number == 0 and attributes.get("count_include_pad") == 1 and attributes.get("ceil_mode") == 0
    # A MaxPool leaves its padding out. Zeros are never larger than what a ReLU answers, and a window of a pool with
    # less padding than its kernel is wide is never all padding.
    kernel = attributes["kernel_shape"]
    narrow = all(pad < size for pad, size in zip(attributes["pads"], kernel * 2, strict=True))
    if attributes.get("ceil_mode") != 0 or not narrow or len(node.outputs) > 1:
        return False
    return number == -np.inf or (number == 0 and pairs.never_negative(value))


def _is_input(value: ir.Value) -> bool:
    """Whether ``value`` is an input of the graph, handed on or not."""
    node = value.producer()
    while node is not None and node.op_type == "Identity" and node.inputs[0] is not None:
        value = node.inputs[0]
        node = value.producer()
    return value.is_graph_input()


def _is_only_cast(value: ir.Value) -> bool:
    """Whether all that reads ``value`` casts it first."""
    for node in value.consumers():
        handed_on = node.op_type == "Identity" and _is_only_cast(node.outputs[0])
        if node.op_type != "Cast" and not handed_on:
            return False
    return True


def _drops_nothing(node: ir.Node, memo: Memo) -> bool:
    """Whether a Dropout is that of inference."""
    if len(node.inputs) < 3 or node.inputs[2] is None:
        return True
    training = evaluate_constant(node.inputs[2], memo)
    return training is not None and not training.array.any()


def _turns(gemm: ir.Node) -> bool:
    """Whether ``gemm`` turns its weight."""
    return "transB" in gemm.attributes and gemm.attributes["transB"].as_int() != 0


def _scales(node: ir.Node) -> bool:
    """Whether ``node`` is a Gemm that multiplies its product or its bias."""
    factors = [node.attributes[name].as_float() for name in ("alpha", "beta") if name in node.attributes]
    return node.op_type == "Gemm" and any(factor != 1 for factor in factors)


_PAIR_ATTRIBUTES = {"axis": 1, "block_size": 0}


def _pair_attribute(node: ir.Node, name: str) -> int:
    if name == "axis":
        return _axis(node)
    return node.attributes[name].as_int() if name in node.attributes else _PAIR_ATTRIBUTES[name]


def _axis(node: ir.Node) -> int:
    """The axis of the scales of a Quantize- or DequantizeLinear, counted from the front where the rank is known."""
    axis = node.attributes["axis"].as_int() if "axis" in node.attributes else 1
    shape = node.inputs[0].shape if node.inputs[0] is not None else None
    return axis + len(shape) if axis < 0 and shape is not None else axis


def _without(inputs: list[ir.Value | None], spelt: dict[int, str], told: set[str]) -> list[ir.Value | None]:
    """``inputs`` but for those that were compared otherwise, by the names that ``spelt`` has for their places."""
    return [value for place, value in enumerate(inputs) if spelt.get(place) not in told]


def _share(
    values: NDArray[np.float64], exact: NDArray[np.float64], allowed: NDArray[np.float64]
) -> NDArray[np.float64]:
    """The share of its bound that each of ``values`` uses up.

    Where nothing is allowed, an error of 0 uses up nothing and any other infinitely much.
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        error = np.asarray(np.abs(np.subtract(values, exact)))
        share: NDArray[np.float64] = np.divide(error, allowed, out=error)
    # 0 of 0 is no number, nor is the difference of two infinities.
    unclear = np.isnan(share)
    if unclear.any():
        share[unclear] = np.where(values[unclear] == exact[unclear], 0.0, np.inf)
    return share


def _same_array(one: NDArray[Any] | None, other: NDArray[Any] | None) -> bool:
    """The same type and numbers; one number may stand for itself alone or in a list."""
    if one is None or other is None or one.dtype != other.dtype:
        return False
    return bool(np.array_equal(one.ravel(), other.ravel()))


def _is_unsigned(pair: _Pair) -> bool:
    return pair.zero_point is not None and pair.zero_point.dtype.kind == "u"


def _flat(constant: Constant) -> Constant:
    return Constant(constant.numbers.ravel(), constant.dtype, constant.error)


def _same_attribute(was: Any, now: Any) -> bool:
    """The same numbers, lists, text or tensors."""
    if isinstance(was, ir.TensorProtocol) and isinstance(now, ir.TensorProtocol):
        return was.dtype == now.dtype and bool(np.array_equal(was.numpy(), now.numpy()))
    return bool(was == now)


def _as_float16(value: Any) -> Any:
    return np.asarray(value).astype(np.float16).tolist()


def _is_halved_type(node: ir.Node, name: str, was: Any, now: Any) -> bool:
    """Whether ``node`` makes float16 of what was no float before, where it made float32."""
    return (
        node.op_type in MAKES_FLOATS
        and name in {"to", "dtype"}
        and (was, now)
        == (
            ir.DataType.FLOAT.value,
            ir.DataType.FLOAT16.value,
        )
    )


def _plain(value: Any) -> str:
    return f"{value.numpy().tolist()}" if isinstance(value, ir.TensorProtocol) else f"{value}"


def _graphs(node: ir.Node, name: str) -> list[ir.Graph]:
    attribute = node.attributes[name]
    return [attribute.as_graph()] if attribute.type == ir.AttributeType.GRAPH else list(attribute.as_graphs())


def _same_shape(one: ir.Value, other: ir.Value, open_sizes: int = 1) -> bool:
    """Whether both have the same shape.

    One size that no file tells follows from all others where the numbers are the same ones; ``open_sizes`` is 0 where
    they need not be.
    """
    old, new = given_shape(one), given_shape(other)
    if old is None or new is None or len(old) != len(new):
        return False
    unknown = 0
    for old_size, new_size in zip(old, new, strict=True):
        if old_size is None or new_size is None:
            unknown += 1
        elif old_size != new_size:
            return False
    return unknown <= open_sizes


def _sketch(value: ir.Value) -> tuple[str, ...]:
    """The operators that ``value`` comes out of, as far as stages leave them as they are."""
    kept: list[str] = []
    for node in pairs.makers(value):
        if node.op_type in COMMUTATIVE | {"Conv", "Concat"} or len(kept) == SKETCHED:
            kept.append(node.op_type)
            break
        if node.op_type in STAYS:
            kept.append(node.op_type)
    return tuple(kept)


SKETCHED = 8
STAYS = {"Relu", "MaxPool", "AveragePool", "GlobalAveragePool", "Sigmoid", "Clip", "LeakyRelu", "Concat", "Softmax"}


def _opset(graph: ir.Graph) -> int:
    """The opset of ONNX's own operators, whose domain has two names."""
    imports = graph.opset_imports
    return imports.get("", imports.get("ai.onnx", 0))


def _name(node: ir.Node) -> str:
    return node.name or f"the {node.op_type} that makes {node.outputs[0].name}"


def _excerpts(old: str, new: str | None, length: int = 60) -> tuple[str, str]:
    """Both texts from a little before they part, so that a sentence can show it; a missing one is named."""
    start = 0
    if new is not None:
        while start < min(len(old), len(new)) and old[start] == new[start]:
            start += 1
        start = max(0, start - length // 3)
    shown = []
    for text in (old, new):
        if text is None:
            shown.append("missing")
            continue
        middle = text[start : start + length]
        shown.append(("…" if start else "") + middle + ("…" if len(text) > start + length else ""))
    return shown[0], shown[1]


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


def _place_of_input(graph: ir.Graph, value: ir.Value) -> int | None:
    """Which input of ``graph`` has the name of ``value``; None where none has."""
    for place, graph_input in enumerate(graph.inputs):
        if graph_input.name == value.name:
            return place
    return None


def _reader(node: ir.Node) -> ir.Node:
    """The node that reads this one, which has the name that a person knows."""
    return next(iter(node.outputs[0].consumers()), node)
