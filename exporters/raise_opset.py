"""A newer opset for a graph: what changed in between is converted, or refused by the operator's name."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx
import onnx_ir as ir

from exporters import onnx_file

if TYPE_CHECKING:
    from collections.abc import Callable

# The domain of ONNX's own operators, in both of its spellings.
ONNX = {"", "ai.onnx"}
# What is converted leads from the first of these to the second.
OLDEST, NEWEST = 13, 19


def raise_opset(model: ir.Model, least: int) -> None:
    """Write ``model`` for opset ``least`` or newer, in place, and for the IR version that this opset came with.

    Raises ValueError, before anything is changed, where an operator may mean something else there.
    """
    opset = model.graph.opset_imports[""]
    if opset < least:
        steps = [(node, version) for node in _all_nodes(model) for version in _new_versions(node, opset, least)]
        for node, version in steps:
            _refuse(node, version, opset, least)
        for node, version in steps:
            convert = CONVERTED.get((node.op_type, version))
            if convert is not None:
                convert(model.graph, node)
        model.graph.opset_imports[""] = least
    came_with = onnx.helper.find_min_ir_version_for([onnx.helper.make_opsetid("", least)])
    model.ir_version = max(came_with, model.ir_version)


def _all_nodes(model: ir.Model) -> list[ir.Node]:
    """The nodes of ONNX's own domain, those of subgraphs too; functions have opsets of their own."""
    return [node for node in model.graph.all_nodes() if node.domain in ONNX]


def _new_versions(node: ir.Node, opset: int, least: int) -> list[int]:
    """The versions of the operator of ``node`` that came after ``opset``, up to ``least``."""
    return [version for version in range(opset + 1, least + 1) if _is_new(node.op_type, version)]


def _is_new(operator: str, version: int) -> bool:
    return onnx.defs.has(operator, version) and onnx.defs.get_schema(operator, version).since_version == version


def _refuse(node: ir.Node, version: int, opset: int, least: int) -> None:
    """Raise ValueError where it is not known what ``version`` of an operator changed."""
    known = node.op_type in SAME or (node.op_type, version) in CONVERTED
    if known and opset >= OLDEST and version <= NEWEST:
        return
    where = onnx_file.module_of(node) or node.name or "the graph"
    raise ValueError(
        f"{node.op_type} of {where} is written for opset {opset} and the graph must be of opset {least}: "
        f"version {version} of {node.op_type} cannot be told to mean the same; write {where} without {node.op_type}"
    )


def _axes_as_input(graph: ir.Graph, node: ir.Node) -> None:
    """The axes of a reduction, an attribute until opset 17, as its second input."""
    if "axes" not in node.attributes:
        return
    axes = np.array(node.attributes.pop("axes").as_ints(), np.int64)
    node.resize_inputs(2)
    node.replace_input_with(1, onnx_file.add_initializer(graph, f"{node.outputs[0].name}_axes", axes))


def _number_of_parts(_: ir.Graph, node: ir.Node) -> None:
    """A Split into equal parts says since opset 18 how many there are."""
    has_sizes = len(node.inputs) > 1 and node.inputs[1] is not None
    if not has_sizes:
        node.attributes["num_outputs"] = ir.AttrInt64("num_outputs", len(node.outputs))


REDUCTIONS = (
    "ReduceL1",
    "ReduceL2",
    "ReduceLogSum",
    "ReduceLogSumExp",
    "ReduceMax",
    "ReduceMean",
    "ReduceMin",
    "ReduceProd",
    "ReduceSumSquare",
)
# Operator and the version that wants it written in another way.
CONVERTED: dict[tuple[str, int], Callable[[ir.Graph, ir.Node], None]] = {
    **{(operator, 18): _axes_as_input for operator in REDUCTIONS},
    ("Split", 18): _number_of_parts,
}
# Operators of which every version since OLDEST means what it did for a node that could be written before: later ones
# take more types, or have an attribute or an input more whose default is what was meant until then.
SAME = {
    "Add",
    "AveragePool",
    "BatchNormalization",
    "Cast",
    "CastLike",
    "Constant",
    "CumSum",
    "DequantizeLinear",
    "Div",
    "Equal",
    "GRU",
    "GreaterOrEqual",
    "Identity",
    "If",
    "LSTM",
    "LeakyRelu",
    "LessOrEqual",
    "Loop",
    "LpPool",
    "Mul",
    "PRelu",
    "Pad",
    "Pow",
    "QuantizeLinear",
    "RNN",
    "Relu",
    "Reshape",
    "Resize",
    "Scan",
    "ScatterElements",
    "ScatterND",
    "Shape",
    "Size",
    "Sub",
    "Where",
}
