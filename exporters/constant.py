"""What a graph holds fixed: every value that depends on no input of the graph, however the file spells it.

One notion for all that reads graphs. A constant is an initialiser (also one that is listed among the inputs of the
graph, as IR version 3 asks), a Constant node, or whatever is computed from these alone: moved, cast, quantised, or by
the small arithmetic with which weight standardisation and weight_norm write a weight. How each operator is evaluated is
a row in :mod:`exporters.constant_operators`.

Computed numbers are rounded, and every runtime that computes them, a simplifier's too, adds them in an order of its
own. So a constant carries the numbers in float64 and a bound on how far any runtime's may lie from them; the bound is
0 where nothing is rounded.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from exporters import onnx_file
from exporters.constant_operators import EVALUATED, known_sizes, size_of
from exporters.known_numbers import Constant, stored

if TYPE_CHECKING:
    import onnx_ir as ir

# No computed constant may be larger, in bytes: the largest weight of a network of this family has 19 MB in float32.
LARGEST = 2**28
# Computed constants up to this size are remembered, so that what many nodes read is computed once.
REMEMBERED = 2**16


@dataclass
class Memo:
    """What is known of the values of one graph: None of those that are computed from an input.

    For a graph that does not change. Large constants are not kept, since most are read once. ``shapes_known``: the
    shapes of its values were inferred, so what a node makes of known sizes is constant too.
    """

    shapes_known: bool = False

    known: dict[ir.Value, Constant | None] = field(default_factory=dict)


def evaluate_constant(value: ir.Value | None, memo: Memo | None = None) -> Constant | None:
    """The constant behind ``value``; None where it is computed from an input, or by an operator without a rule.

    ``memo`` remembers across calls. Raises ValueError where the constant would be larger than LARGEST.
    """
    if value is None:
        return None
    if value.const_value is not None:
        return _of_initializer(value)
    if value.producer() is None:
        return None
    constant = _Evaluation(memo or Memo()).of(value)
    # Of the sizes of a shape some may be open: no constant as a whole.
    return constant if constant is None or np.isfinite(constant.error).all() else None


def _of_initializer(value: ir.Value) -> Constant | None:
    """None for text, which no arithmetic reads."""
    array = onnx_file.initializer_array(value)
    if array is None or array.dtype.kind in "OSU":
        return None
    return stored(array)


class _Evaluation:
    """The evaluation of one value, and of all that it is computed from."""

    def __init__(self, memo: Memo) -> None:
        self.memo = memo
        self.lasting = memo.known
        self.shapes_known = memo.shapes_known
        self.known: dict[ir.Value, Constant | None] = {}

    def of(self, value: ir.Value) -> Constant | None:
        # A stack of its own: a chain of nodes may be longer than Python's.
        stack = [value]
        under_way = {value}
        while stack:
            current = stack[-1]
            if self._is_known(current):
                stack.pop()
                continue
            needed = self._next_operand(current)
            if needed is not None and needed not in under_way:
                under_way.add(needed)
                stack.append(needed)
                continue

            # What is still needed and under way is needed by itself: a circle, and no constant.
            constant = None if needed is not None else self._evaluate(current)
            self.known[current] = constant
            if constant is None or constant.numbers.nbytes <= REMEMBERED:
                self.lasting[current] = constant
            stack.pop()
        return self._look_up(value)

    def _is_known(self, value: ir.Value) -> bool:
        return value.const_value is not None or value in self.known or value in self.lasting

    def _look_up(self, value: ir.Value) -> Constant | None:
        if value.const_value is not None:
            return _of_initializer(value)
        return self.known[value] if value in self.known else self.lasting[value]

    def _next_operand(self, value: ir.Value) -> ir.Value | None:
        """An operand that has to be known before ``value`` can be; None where nothing is missing, or could help."""
        for operand in self._operands(value):
            if operand is None:
                continue
            if not self._is_known(operand):
                return operand
            if operand.const_value is None and self._look_up(operand) is None:
                return None  # one operand is no constant, so the others do not matter
        return None

    def _operands(self, value: ir.Value) -> list[ir.Value | None]:
        """What ``value`` is evaluated from; nothing where its operator has no rule."""
        node = value.producer()
        if node is None or node.domain not in {"", "ai.onnx"}:
            return []
        if node.op_type == "If":
            branch = chosen_branch(node, self.memo)
            return [] if branch is None else [branch.outputs[_place(value)]]
        if self._tells_its_shape(node) or node.op_type not in EVALUATED:
            return []
        return list(node.inputs)

    def _tells_its_shape(self, node: ir.Node) -> bool:
        return self.shapes_known and node.op_type == "Shape" and node.inputs[0] is not None

    def _evaluate(self, value: ir.Value) -> Constant | None:
        """``value`` from its operands, all of which are known."""
        node = value.producer()
        if node is None or node.domain not in {"", "ai.onnx"}:
            return None
        if self._tells_its_shape(node):
            return known_sizes(node)

        operands: list[Constant | None] = []
        for operand in self._operands(value):
            constant = None if operand is None else self._look_up(operand)
            if constant is None and operand is not None:
                return None
            operands.append(constant)
        if node.op_type == "If":
            return operands[0] if operands else None
        return _computed(node, operands, _place(value))


def _computed(node: ir.Node, operands: list[Constant | None], place: int) -> Constant | None:
    """Output ``place`` of ``node``; raises ValueError where that is larger than LARGEST."""
    evaluate = EVALUATED.get(node.op_type)
    if evaluate is None:
        return None
    bytes_needed = size_of(node, operands)
    if bytes_needed > LARGEST:
        raise ValueError(
            f"{node.op_type} {node.name} computes a constant of {bytes_needed / 1e6:.0f} MB, and at most "
            f"{LARGEST / 1e6:.0f} MB are computed; store it as an initialiser"
        )
    try:
        return evaluate(node, operands, place)
    except ValueError:
        return None  # shapes that do not fit each other: what reads it is refused by name


def _place(value: ir.Value) -> int:
    """Which output of its node ``value`` is."""
    place = value.index()
    assert place is not None
    return place


def chosen_branch(node: ir.Node, memo: Memo | None = None) -> ir.Graph | None:
    """The branch that an If with a constant condition always takes; None where its condition is computed."""
    condition = evaluate_constant(node.inputs[0], memo)
    if condition is None or condition.array.size != 1:
        return None
    name = "then_branch" if bool(condition.array.ravel()[0]) else "else_branch"
    return node.attributes[name].as_graph() if name in node.attributes else None
