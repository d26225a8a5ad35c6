"""Q/DQ pairs of two files held against each other, and each against what a pair has to be."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from exporters import pairs
from exporters.compared_graph import axis_of, node_name

if TYPE_CHECKING:
    from collections.abc import Sequence

    import onnx_ir as ir
    from numpy.typing import NDArray

    from exporters.compared_graph import ComparedGraph, Pair
    from exporters.held_constants import HeldConstants

# The attributes that both halves of a pair have, and their defaults.
ATTRIBUTES = {"axis": 1, "block_size": 0}


class HeldPairs:
    """The comparison of the pairs on activations, edge by edge; what is wrong is refuted through ``constants``."""

    def __init__(self, old: ComparedGraph, new: ComparedGraph, constants: HeldConstants) -> None:
        self.old = old
        self.new = new
        self.constants = constants
        self.allowed = constants.allowed
        self.refute = constants.refute
        # The pairs that the stage made, and the DequantizeLinear of all that were judged by themselves.
        self.made: list[Pair] = []
        self.judged: set[ir.Node] = set()

    def compare(self, reader: ir.Node | None, old: Sequence[Pair], new: Sequence[Pair]) -> None:
        """Pairs that stood on an edge stay as they are, and new ones are those that the stage makes."""
        for graph, found in ((self.old, old), (self.new, new)):
            for pair in found:
                self._judge(graph, pair)

        if old and len(old) != len(new):
            self.refute(reader, f"{len(new)} Q/DQ pairs stand where {len(old)} stood")
        elif len(new) > 1 and not old:
            self.refute(reader, f"{len(new)} Q/DQ pairs stand in a row, where one rounds all that is rounded")
        for was, now in zip(old, new, strict=False):
            self._compare_kept(reader, was, now)
        if not old:
            for pair in new:
                self._judge_new(reader, pair)

    def refuse_two_signs(self) -> None:
        """The activations of one file are all signed or all unsigned: a pair of the other kind has another range."""
        signed = [pair for pair in self.made if not pair.unsigned]
        unsigned = [pair for pair in self.made if pair.unsigned]
        fewer = min(signed, unsigned, key=len) if signed and unsigned else []
        for pair in fewer:
            kind = "unsigned" if pair.unsigned else "signed"
            found = f"{node_name(pair.quantise)} is {kind}, unlike most pairs of the file"
            self.refute(_reader(pair.dequantise), found)

    def _judge(self, graph: ComparedGraph, pair: Pair) -> None:
        """A pair is an identity but for its rounding: where both halves are alike, and nothing is cut off."""
        quantise, dequantise, scale, zero_point, _ = pair
        if dequantise in self.judged:
            return
        self.judged.add(dequantise)
        reader = _reader(dequantise)
        names = f"{node_name(quantise)} and {node_name(dequantise)}"
        other_scale = graph.constant(dequantise.inputs[1])
        if scale is None or other_scale is None:
            self.refute(reader, f"one of {names} has a scale that is computed")
            return

        other_zero_point = pairs.zero_of(dequantise, graph.memo)
        if not _same_array(scale.array, other_scale.array) or not _same_array(zero_point, other_zero_point):
            self.refute(reader, f"{names} differ in scale or zero point")
        for name in ATTRIBUTES:
            was = _attribute(quantise, name)
            now = _attribute(dequantise, name)
            if was != now and (name != "axis" or scale.numbers.size > 1):
                self.refute(reader, f"{names} differ in {name}, {was} and {now}")
        if "saturate" in quantise.attributes and quantise.attributes["saturate"].as_int() != 1:
            self.refute(reader, f"{node_name(quantise)} does not saturate: what is too large becomes NaN")
        if pairs.number_format_of(quantise, graph.memo) is None:
            self.refute(reader, f"{node_name(quantise)} cuts values off: its zero point is not an INT8 0")
        if not (np.isfinite(scale.values) & (scale.values > 0)).all():
            self.refute(reader, f"{node_name(quantise)} has a scale that is no positive number")

    def _judge_new(self, reader: ir.Node | None, pair: Pair) -> None:
        self.made.append(pair)
        number_format = pairs.number_format_of(pair.quantise, self.new.memo)
        if number_format is not None and number_format.name not in self.allowed.formats:
            found = f"{node_name(pair.quantise)} is a new Q/DQ pair of {number_format.name}"
            self.refute(reader, f"{found}, which {self.allowed.name} does not make")

    def _compare_kept(self, reader: ir.Node | None, was: Pair, now: Pair) -> None:
        if was.axis != now.axis or not _same_array(was.zero_point, now.zero_point):
            self.refute(reader, f"{node_name(now.quantise)} has another type, zero point or axis than the pair before")
        if was.scale is not None and now.scale is not None:
            self.constants.compare_scales(reader, "the scale of its input", was.scale, now.scale)


def _reader(node: ir.Node) -> ir.Node:
    """The node that reads this one, which has the name that a person knows."""
    return next(iter(node.outputs[0].consumers()), node)


def _attribute(node: ir.Node, name: str) -> int:
    if name == "axis":
        return axis_of(node)
    return node.attributes[name].as_int() if name in node.attributes else ATTRIBUTES[name]


def _same_array(one: NDArray[Any] | None, other: NDArray[Any] | None) -> bool:
    """The same type and numbers; one number may stand for itself alone or in a list."""
    if one is None or other is None or one.dtype != other.dtype:
        return False
    return bool(np.array_equal(one.ravel(), other.ravel()))
