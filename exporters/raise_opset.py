"""A newer opset for a graph: what is spelt otherwise there is converted, what means something else refused by name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnx_ir as ir

from exporters import onnx_file, opsets

if TYPE_CHECKING:
    from numpy.typing import NDArray


def raise_opset(model: ir.Model, least: int) -> None:
    """Write ``model`` for opset ``least`` or newer, in place, and for the IR version that this opset came with.

    Raises ValueError, before anything is changed, where an operator means something else there.
    """
    opset = model.graph.opset_imports[""]
    if opset < least:
        # Those of subgraphs too. Other domains have opsets of their own.
        nodes = [node for node in model.graph.all_nodes() if node.domain == ""]
        for node in nodes:
            _refuse(node, opset, least)
        for node in nodes:
            _convert(model.graph, node, opset, least)
        model.graph.opset_imports[""] = least
    came_with = onnx.helper.find_min_ir_version_for([onnx.helper.make_opsetid("", least)])
    model.ir_version = max(came_with, model.ir_version)


def _refuse(node: ir.Node, opset: int, least: int) -> None:
    difference = opsets.changed(node, opset, least)
    if difference:
        where = onnx_file.module_of(node) or node.name or "the graph"
        raise ValueError(
            f"the graph has to be raised from opset {opset} to {least}, which {node.op_type} of {where} does not allow "
            f"({difference}); write {where} with another operator"
        )


def _convert(graph: ir.Graph, node: ir.Node, opset: int, least: int) -> None:
    """Write ``node`` as ``least`` wants it, with the same meaning."""
    written = opsets.defaults_to_write(node, opset, least)
    for name, place in opsets.moved(node, opset, least).items():
        operand = _as_operand(node.attributes.pop(name))
        value = onnx_file.add_initializer(graph, f"{node.outputs[0].name}_{name}", operand)
        node.resize_inputs(max(place + 1, len(node.inputs)))
        node.replace_input_with(place, value)
    for name, number in written.items():
        node.attributes[name] = ir.convenience.convert_attribute(name, number)


def _as_operand(attribute: ir.Attr) -> NDArray[Any]:
    """What an attribute holds as a tensor: lists of whole numbers, and single floats."""
    if attribute.type == ir.AttributeType.FLOAT:
        return np.array(attribute.as_float(), np.float32)
    return np.atleast_1d(np.array(attribute.value, np.int64))
