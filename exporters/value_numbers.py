"""Which values of one graph are always equal: the same operator, of the same attributes, on the same values.

Value numbering, as compilers use it to compute a common subexpression once (Alpern, Wegman and Zadeck 1988, Detecting
Equality of Variables in Programs).
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import onnx_ir as ir

from exporters.constant import Memo, evaluate_constant
from exporters.dependence import has_subgraph
from exporters.node_attributes import attributes

if TYPE_CHECKING:
    from collections.abc import Hashable

# Each node of these answers for itself.
RANDOM = {"RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Bernoulli", "Multinomial"}


class ValueNumbers:
    """Numbers the values of one graph, which does not change meanwhile: equal numbers, equal values."""

    def __init__(self, memo: Memo) -> None:
        self.memo = memo
        self.number_of: dict[ir.Value, int] = {}
        self.number_by_key: dict[Hashable, int] = {}

    def equal(self, one: ir.Value, other: ir.Value) -> bool:
        """Whether both always hold the same numbers; False also where that is not known."""
        return self._number(one) == self._number(other)

    def _number(self, value: ir.Value) -> int:
        stack = [value]
        while stack:
            current = stack[-1]
            missing = [operand for operand in self._read(current) if operand not in self.number_of]
            if missing:
                stack.extend(missing)
                continue
            stack.pop()
            key = self._key(current)
            self.number_of[current] = self.number_by_key.setdefault(key, len(self.number_by_key))
        return self.number_of[value]

    def _read(self, value: ir.Value) -> list[ir.Value]:
        """What ``value`` is computed from; nothing where it stands for itself."""
        node = value.producer()
        if node is None or _stands_alone(node) or evaluate_constant(value, self.memo) is not None:
            return []
        return [operand for operand in node.inputs if operand is not None]

    def _key(self, value: ir.Value) -> Hashable:
        constant = evaluate_constant(value, self.memo)
        if constant is not None:
            content = hashlib.sha256(constant.array.tobytes()).hexdigest()
            return constant.dtype.name, constant.shape, content
        node = value.producer()
        if node is None or _stands_alone(node):
            return id(value)
        read = tuple(None if operand is None else self.number_of[operand] for operand in node.inputs)
        settings = tuple((name, _content(setting)) for name, setting in sorted(attributes(node).items()))
        return node.domain, node.op_type, settings, read, value.index()


def _content(setting: Any) -> Hashable:
    """An attribute as something that is equal where its numbers are."""
    if isinstance(setting, ir.TensorProtocol):
        return setting.dtype, tuple(setting.shape), setting.tobytes()
    return tuple(setting) if isinstance(setting, list) else setting


def _stands_alone(node: ir.Node) -> bool:
    """Whether nothing is known of ``node`` but that it is itself: it is random, or holds a graph of its own."""
    return node.op_type in RANDOM or has_subgraph(node)
