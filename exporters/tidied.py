"""A graph without anything that only hands values on: what channel spaces are told from."""

from __future__ import annotations

from typing import TYPE_CHECKING

from exporters import onnx_file
from exporters.compared_graph import ComparedGraph
from exporters.constant import Memo, chosen_branch

if TYPE_CHECKING:
    import onnx_ir as ir


def tidy(model: ir.Model) -> None:
    """Nothing in ``model`` but what computes: no node that hands on or that nobody reads, exact constants stored."""
    from onnx_ir.passes.common import RemoveUnusedNodesPass

    graph = model.graph
    _take_chosen_branches(graph)
    compared = ComparedGraph(graph)
    own = set(graph)
    stored: dict[ir.Value, ir.Value] = {}
    for node in list(graph):
        for place, value in enumerate(node.inputs):
            constant = compared.constant(value)
            if value is None or value.const_value is not None:
                continue
            if constant is not None and constant.exact and constant.quantised is None:
                if value not in stored:
                    stored[value] = onnx_file.add_initializer(graph, f"{value.name}_stored", constant.array)
                node.replace_input_with(place, stored[value])
                continue
            source = compared.plain_source(value)
            if constant is None and (source.producer() is None or source.producer() in own):
                node.replace_input_with(place, source)
    RemoveUnusedNodesPass()(model)


def _take_chosen_branches(graph: ir.Graph) -> None:
    """The nodes of the branch that an If with a constant condition takes, in place of the If."""
    memo = Memo(shapes_known=True)
    for node in list(graph):
        branch = chosen_branch(node, memo) if node.op_type == "If" else None
        if branch is None:
            continue
        for inner in list(branch):
            branch.remove(inner)
            graph.insert_before(node, inner)
        answers = list(branch.outputs)
        branch.outputs.clear()
        for answer, chosen in zip(node.outputs, answers, strict=True):
            is_end = answer.is_graph_output()
            answer.replace_all_uses_with(chosen, replace_graph_outputs=True)
            if is_end:
                chosen.name, answer.name = answer.name, None
                chosen.type = answer.type
                chosen.shape = answer.shape
        graph.remove(node, safe=True)
