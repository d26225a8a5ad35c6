"""Which values of a graph depend on the numbers in its images, and which on their shape or on nothing at all."""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnx_ir as ir

if TYPE_CHECKING:
    from collections.abc import Collection

# What they answer depends on the shape of what they read, and not on its numbers.
SHAPES = {"Shape", "Size"}
SUBGRAPHS = {ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS}


def dependent(graph: ir.Graph, start: Collection[ir.Value], operators: Collection[str] = ()) -> set[ir.Value]:
    """All values computed from the numbers of ``start``, and from those of nodes of ``operators``; sorts ``graph``.

    What a subgraph reads is not looked at: its node counts as one that depends.
    """
    graph.sort()
    found = set(start)
    for node in graph:
        reads = any(value in found for value in node.inputs if value is not None)
        passes_on = reads and node.op_type not in SHAPES
        if passes_on or node.op_type in operators or has_subgraph(node):
            found.update(node.outputs)
    return found


def has_subgraph(node: ir.Node) -> bool:
    """Whether ``node`` runs a graph of its own, as If and Loop do."""
    return any(attribute.type in SUBGRAPHS for attribute in node.attributes.values())
