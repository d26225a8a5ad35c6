"""The nodes of a file that ONNX Runtime compiled, described as layers."""

from __future__ import annotations

import onnx_ir as ir

from exporters import onnx_file
from exporters.engines.description import EngineDescription, Layer, Operation, of_layers, printable, type_name

CONVOLUTIONS = {"Conv", "FusedConv", "QLinearConv", "ConvInteger"}
REFORMATS = {"QuantizeLinear", "DequantizeLinear", "Cast", "Transpose", "ReorderInput", "ReorderOutput"}
LONGEST_CHAIN = 8  # of reformats behind each other; a broken file may have rings of them
# Which input the output's type is that of, where the file does not say it; of others the first.
TYPED_BY = {"QuantizeLinear": 2, "DequantizeLinear": 1}


def describe(model: ir.Model) -> EngineDescription:
    """The description of a compiled ``model``, whose nodes are layers."""
    types = _types(model.graph)
    layers, convolutions, adds = [], [], []
    for node in model.graph:
        layer = _layer(node, types)
        layers.append(layer)
        convolves, module = node.op_type in CONVOLUTIONS, layer.modules[0] if layer.modules else layer.name
        if convolves:
            convolutions.append(Operation(module, layer.inputs, layer.outputs))
        if _adds(node):
            adds.append(Operation(module, layer.inputs, layer.outputs, fused=convolves))
    constants = (value.const_value for value in model.graph.initializers.values())
    weights = sum(constant.nbytes for constant in constants if constant is not None)
    return of_layers("onnxruntime", "the compiled file", layers, convolutions, adds, weights=weights, dla=0)


def _layer(node: ir.Node, types: dict[ir.Value, str]) -> Layer:
    read = [value for value in node.inputs if value is not None]
    computed = [value for value in read if value.const_value is None] or read[:1]
    return Layer(
        printable(node.name or node.op_type),
        printable(node.op_type),
        tuple(filter(None, [printable(onnx_file.module_of(_for(node)))])),
        tuple(types.get(value, "unknown") for value in computed),
        tuple(types[value] for value in node.outputs if value.name),
        node.op_type in REFORMATS,
    )


def _for(node: ir.Node) -> ir.Node:
    """The node that a reformat is made for; ONNX Runtime gives those that it puts in names of its own."""
    found = node
    for _ in range(LONGEST_CHAIN):
        readers = [use.node for value in found.outputs for use in value.uses()]
        if found.op_type not in REFORMATS or not readers:
            break
        found = readers[0]
    return found


def _adds(node: ir.Node) -> bool:
    """Whether a residual Add is in it, by itself or as what a convolution adds to its sums."""
    computed = [value for value in node.inputs if value is not None and value.const_value is None]
    if node.op_type in {"Conv", "FusedConv"}:
        return len(node.inputs) > 3 and node.inputs[3] in computed
    return node.op_type in {"Add", "QLinearAdd"} and len(computed) > 1


def _types(graph: ir.Graph) -> dict[ir.Value, str]:
    """The type of every value; ONNX Runtime does not write down that of the casts it put in."""
    known = {
        value: type_name(value.dtype.name) for value in (*graph.inputs, *graph.initializers.values()) if value.dtype
    }
    for node in graph:
        index = TYPED_BY.get(node.op_type, 0)
        source = node.inputs[index] if index < len(node.inputs) else None
        made = known.get(source, "unknown") if source is not None else "unknown"
        if node.op_type == "Cast" and "to" in node.attributes:
            made = type_name(ir.DataType(node.attributes["to"].as_int()).name)
        for value in node.outputs:
            known[value] = type_name(value.dtype.name) if value.dtype else made
    return known
