"""INT8 weights as float32 constants behind QuantizeLinear and DequantizeLinear: TensorRT 8 imports no others.

The levels are the same: a level times its scale, divided by that scale, is less than half a level away.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from exporters import onnx_file
from exporters.constant import evaluate_constant

if TYPE_CHECKING:
    from pathlib import Path


def float_weights(src: Path, dst: Path) -> str:
    """Write ``src`` to ``dst``; raises ValueError where a constant would not come back as it was."""
    model = onnx_file.read(src)
    dequantise_nodes = [node for node in model.graph if _is_of_stored_levels(node)]
    for dequantise in dequantise_nodes:
        _quantise_in_graph(model.graph, dequantise)
    onnx_file.drop_unused_initializers(model.graph)
    onnx_file.write(model, dst)
    return f"{len(dequantise_nodes)} INT8 weights as float32 behind Q and DQ, the same levels"


def _quantise_in_graph(graph: ir.Graph, dequantise: ir.Node) -> None:
    """Put float32 weights and a QuantizeLinear in place of the levels that ``dequantise`` reads."""
    weight = evaluate_constant(dequantise.outputs[0])
    assert weight is not None
    name = dequantise.outputs[0].name
    float_weight = onnx_file.add_initializer(graph, f"{name}_float", weight.values.astype(np.float32))

    # Under the same scale, zero point and axis as the levels that it replaces.
    operands = [float_weight, *dequantise.inputs[1:]]
    quantise = ir.node("QuantizeLinear", operands, name=f"{dequantise.name}_QuantizeLinear")
    quantise.attributes.update(dequantise.attributes)
    quantise.outputs[0].name = f"{name}_levels"
    quantise.outputs[0].type = ir.TensorType(ir.DataType.INT8)
    graph.insert_before(dequantise, quantise)

    levels_before = onnx_file.initializer_array(dequantise.inputs[0])
    levels = evaluate_constant(quantise.outputs[0])
    if levels_before is None or levels is None or not np.array_equal(levels_before, levels.array):
        module = onnx_file.module_of(dequantise) or dequantise.name
        raise ValueError(f"the INT8 weights of {module} are no float32 numbers under their scale")
    dequantise.replace_input_with(0, quantise.outputs[0])


def stored_levels(graph: ir.Graph) -> None:
    """The way back, in place: every QuantizeLinear of a constant becomes the constant that it gives."""
    for node in list(graph):
        if node.op_type != "QuantizeLinear":
            continue
        levels = evaluate_constant(node.outputs[0])
        if levels is None:
            continue
        initializer = onnx_file.add_initializer(graph, f"{node.outputs[0].name}_stored", levels.array)
        node.outputs[0].replace_all_uses_with(initializer)
        graph.remove(node, safe=True)
    onnx_file.drop_unused_initializers(graph)


def _is_of_stored_levels(node: ir.Node) -> bool:
    return node.op_type == "DequantizeLinear" and onnx_file.initializer_array(node.inputs[0]) is not None
