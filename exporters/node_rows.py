"""Rows of nodes that do together what one node could, as simplifiers merge them; and nodes that do nothing.

A row is Pads that fill in the same number, Slices, or Transposes, with nothing in between that changes a value. A node
does nothing where it answers what it reads: a Pad of no width, a Slice of everything, a Transpose that keeps the order,
a zero that is added, a one that is multiplied with.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np

from exporters.comparable import given_shape, same_shape
from exporters.node_attributes import COMPUTED

if TYPE_CHECKING:
    from collections.abc import Callable

    import onnx_ir as ir

    from exporters.known_numbers import Constant

    Attributes = dict[str, Any]

# The number that changes nothing as the second operand.
NEUTRAL = {"Add": 0, "Sub": 0, "Mul": 1, "Div": 1}
# Of these it may be the first operand as well.
EITHER_ORDER = {"Add", "Mul"}


class Graph(Protocol):
    """What is asked of the graph that the rows stand in, see :class:`exporters.compared_graph.ComparedGraph`."""

    def constant(self, value: ir.Value | None) -> Constant | None:
        """The constant behind ``value``; None where it is computed."""

    def attributes(self, node: ir.Node) -> Attributes:
        """What the attributes of ``node`` mean."""

    def plain_source(self, value: ir.Value) -> ir.Value:
        """The value behind all that hands ``value`` on unchanged."""


class Row(NamedTuple):
    """What ``length`` nodes do to the value ``read`` together, in the words of their operator."""

    read: ir.Value
    does: Attributes
    length: int = 1


def row_ending_in(graph: Graph, node: ir.Node) -> Row | None:
    """The longest row that ends in ``node``; None where its operator makes none, or what it does is computed."""
    return _row(graph, node, graph.plain_source)


def handed_on(graph: Graph, node: ir.Node) -> ir.Value | None:
    """What ``node``, or the row that ends in it, answers as it reads it; None where it does something."""
    if node.op_type in NEUTRAL:
        return _unchanged_operand(graph, node)
    # Only nodes next to each other: what stands between others is stepped over by who asks here.
    for row in (_alone(graph, node), _row(graph, node, _itself)):
        if row is not None and KINDS[node.op_type].does_nothing(row.does):
            return row.read
    return None


def _row(graph: Graph, node: ir.Node, behind: Callable[[ir.Value], ir.Value]) -> Row | None:
    """The row that ends in ``node``; ``behind`` gives the value behind what only hands it on."""
    row = _alone(graph, node)
    if row is None:
        return None
    while True:
        before = behind(row.read).producer()
        inner = _alone(graph, before) if before is not None and before.op_type == node.op_type else None
        does = None if inner is None else KINDS[node.op_type].merge(inner.does, row.does)
        if inner is None or does is None:
            return row
        row = Row(inner.read, does, row.length + 1)


def _itself(value: ir.Value) -> ir.Value:
    return value


def filled_in(pad: Attributes) -> float:
    """The number that a Pad of these attributes fills in."""
    value = pad.get("value")
    return 0.0 if value is None else float(np.asarray(value).ravel()[0])


def _unchanged_operand(graph: Graph, node: ir.Node) -> ir.Value | None:
    """The operand next to a neutral number that does not widen it."""
    places = (0, 1) if node.op_type in EITHER_ORDER else (1,)
    for place in places:
        constant = graph.constant(node.inputs[place])
        value = node.inputs[1 - place]
        if constant is None or value is None or graph.constant(value) is not None:
            continue
        is_neutral = constant.exact and bool((constant.values == NEUTRAL[node.op_type]).all())
        if is_neutral and same_shape(value, node.outputs[0], open_sizes=0):
            return value
    return None


def _alone(graph: Graph, node: ir.Node) -> Row | None:
    kind = KINDS.get(node.op_type)
    if kind is None or node.domain != "" or node.inputs[0] is None:
        return None
    does = kind.read(graph, node)
    return None if does is None else Row(node.inputs[0], does)


# --- Pads -------------------------------------------------------------------------------------------------------------


def _read_pad(graph: Graph, node: ir.Node) -> Attributes | None:
    """Its attributes with the pads of all axes."""
    settings = graph.attributes(node)
    pads = settings.get("pads")
    is_whole = isinstance(pads, list) and settings.get("axes") is None
    return settings if is_whole and settings.get("value") != COMPUTED else None


def _merge_pads(inner: Attributes, outer: Attributes) -> Attributes | None:
    """Wider pads of the same number. What an edge is mirrored or repeated by depends on what is there."""
    modes = {inner["mode"], outer["mode"]}
    if modes != {"constant"} or filled_in(inner) != filled_in(outer) or min(*inner["pads"], *outer["pads"]) < 0:
        return None
    pads = [one + other for one, other in zip(inner["pads"], outer["pads"], strict=True)]
    return {**outer, "pads": pads}


def _pads_nothing(does: Attributes) -> bool:
    return not any(does["pads"])


# --- Slices -----------------------------------------------------------------------------------------------------------


def _read_slice(graph: Graph, node: ir.Node) -> Attributes | None:
    """By axis the places that are taken of it, but for axes of which all are."""
    settings = graph.attributes(node)
    shape = given_shape(node.inputs[0])
    parts = [settings.get(name) for name in ("axes", "starts", "ends", "steps")]
    if shape is None or not all(isinstance(part, list) for part in parts):
        return None
    taken: Attributes = {}
    for axis, start, end, step in zip(*parts, strict=True):
        size = shape[axis]
        if not isinstance(size, int) or step == 0:
            return None
        taken[f"axis {axis}"] = _places(size, range(size)[start:end:step])
    return _without_whole_axes(taken)


def _places(size: int, taken: range) -> list[int]:
    """``[size, first, step, count]``, alike for ranges of the same numbers. A range is never listed: it may be huge."""
    count = len(taken)
    if count == 0:
        return [size, 0, 1, 0]
    return [size, taken[0], taken.step if count > 1 else 1, count]


def _merge_slices(inner: Attributes, outer: Attributes) -> Attributes:
    """Both on axes of their own; on the same axis the outer one counts the places that the inner one took."""
    taken = {**inner, **outer}
    for axis in inner.keys() & outer.keys():
        size, first, step, _ = inner[axis]
        _, outer_first, outer_step, count = outer[axis]
        start = first + step * outer_first
        both_steps = step * outer_step
        taken[axis] = _places(size, range(start, start + both_steps * count, both_steps))
    return _without_whole_axes(taken)


def _without_whole_axes(taken: Attributes) -> Attributes:
    return {axis: places for axis, places in taken.items() if places != _places(places[0], range(places[0]))}


def _slices_nothing(does: Attributes) -> bool:
    return not does


# --- Transposes -------------------------------------------------------------------------------------------------------


def _read_transpose(graph: Graph, node: ir.Node) -> Attributes | None:
    perm = graph.attributes(node).get("perm")
    shape = given_shape(node.inputs[0])
    if perm is None and shape is not None:
        perm = list(reversed(range(len(shape))))
    return None if perm is None else {"perm": perm}


def _merge_transposes(inner: Attributes, outer: Attributes) -> Attributes:
    return {"perm": [inner["perm"][axis] for axis in outer["perm"]]}


def _turns_nothing(does: Attributes) -> bool:
    return bool(does["perm"] == sorted(does["perm"]))


class Kind(NamedTuple):
    """How an operator of which there are rows is read.

    ``read`` gives what one node does, None where that is computed; ``merge`` what two do one behind the other, None
    where no one node could.
    """

    read: Callable[[Graph, ir.Node], Attributes | None]
    merge: Callable[[Attributes, Attributes], Attributes | None]
    does_nothing: Callable[[Attributes], bool]


KINDS = {
    "Pad": Kind(_read_pad, _merge_pads, _pads_nothing),
    "Slice": Kind(_read_slice, _merge_slices, _slices_nothing),
    "Transpose": Kind(_read_transpose, _merge_transposes, _turns_nothing),
}
