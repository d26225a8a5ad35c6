"""Every constant of a graph as an initializer, however it was spelt."""

from __future__ import annotations

import onnx.inliner
import onnx_ir as ir

from exporters import onnx_file
from exporters.constant import evaluate_constant


def store(model: ir.Model) -> tuple[ir.Model, bool]:
    """``model`` with its constants as initializers, its functions inlined, and whether that changed anything.

    What a DequantizeLinear makes of a constant stays as it is: how it was rounded is what readers want to know.
    Raises ValueError where a constant is too large to be computed.
    """
    inlined = bool(model.functions)
    if inlined:
        model = ir.from_proto(onnx.inliner.inline_local_functions(ir.to_proto(model)))
    fixed = _take_from_inputs(model.graph)
    stored = _store_computed(model.graph)
    if stored:
        onnx_file.drop_unused_initializers(model.graph)
    return model, inlined or fixed or stored


def _take_from_inputs(graph: ir.Graph) -> bool:
    """Initializers that a caller may override are none of the inputs any more; whether there were any."""
    overridable = [value for value in graph.inputs if value.const_value is not None]
    for value in overridable:
        graph.inputs.remove(value)
    return bool(overridable)


def _store_computed(graph: ir.Graph) -> bool:
    """Make initializers of what nodes compute from constants alone; whether there was any."""
    answers = set(graph.outputs)
    done = False
    for node in list(graph):
        # In the order of the graph: what it reads is an initializer by now, or computed from images or levels.
        reads_constants = all(value is None or value.const_value is not None for value in node.inputs)
        if not reads_constants or node.op_type == "DequantizeLinear" or answers & set(node.outputs):
            continue
        constants = [evaluate_constant(value) for value in node.outputs]
        if None in constants:
            continue
        for value, constant in zip(node.outputs, constants, strict=True):
            assert constant is not None
            name = str(value.name)
            value.name = f"{name}, computed"
            value.replace_all_uses_with(onnx_file.add_initializer(graph, name, constant.array))
        graph.remove(node, safe=True)
        done = True
    return done
