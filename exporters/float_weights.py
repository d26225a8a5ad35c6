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
    stored = [node for node in model.graph if _stored(node)]
    for node in stored:
        held = evaluate_constant(node.outputs[0])
        assert held is not None
        array = held.values.astype(np.float32)
        operand = onnx_file.add_initializer(model.graph, f"{node.outputs[0].name}_float", array)
        quantise = ir.node("QuantizeLinear", [operand, *node.inputs[1:]], name=f"{node.name}_QuantizeLinear")
        quantise.attributes.update(node.attributes)
        quantise.outputs[0].name = f"{node.outputs[0].name}_levels"
        quantise.outputs[0].type = ir.TensorType(ir.DataType.INT8)
        model.graph.insert_before(node, quantise)
        levels, found = onnx_file.initializer_array(node.inputs[0]), evaluate_constant(quantise.outputs[0])
        if levels is None or found is None or not np.array_equal(levels, found.array):
            module = onnx_file.module_of(node) or node.name
            raise ValueError(f"the INT8 weights of {module} are no float32 numbers under their scale")
        node.replace_input_with(0, quantise.outputs[0])
    onnx_file.drop_unused_initializers(model.graph)
    onnx_file.write(model, dst)
    return f"{len(stored)} INT8 weights as float32 behind Q and DQ, the same levels"


def stored_levels(graph: ir.Graph) -> None:
    """The way back, in place: every QuantizeLinear of a constant becomes the constant that it gives."""
    for node in [node for node in graph if node.op_type == "QuantizeLinear"]:
        if (held := evaluate_constant(node.outputs[0])) is not None:
            levels = onnx_file.add_initializer(graph, f"{node.outputs[0].name}_stored", held.array)
            node.outputs[0].replace_all_uses_with(levels)
            graph.remove(node, safe=True)
    onnx_file.drop_unused_initializers(graph)


def _stored(node: ir.Node) -> bool:
    return node.op_type == "DequantizeLinear" and onnx_file.initializer_array(node.inputs[0]) is not None
