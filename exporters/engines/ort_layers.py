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
    layers = []
    convolutions = []
    adds = []
    for node in model.graph:
        layer = _layer(node, types)
        layers.append(layer)
        module = layer.modules[0] if layer.modules else layer.name
        convolves = node.op_type in CONVOLUTIONS
        if convolves:
            convolutions.append(Operation(module, layer.inputs, layer.outputs))
        if _has_residual_add(node):
            adds.append(Operation(module, layer.inputs, layer.outputs, fused=convolves))

    constants = [value.const_value for value in model.graph.initializers.values()]
    weights = sum(constant.nbytes for constant in constants if constant is not None)
    # Nothing of it runs on a DLA: this is the CPU.
    return of_layers("onnxruntime", "the compiled file", layers, convolutions, adds, weights=weights, dla=0)


def _layer(node: ir.Node, types: dict[ir.Value, str]) -> Layer:
    # Of a node that reads constants only, the first of them.
    read = _computed_inputs(node) or [value for value in node.inputs if value is not None][:1]
    module = printable(onnx_file.module_of(_works_for(node)))
    return Layer(
        name=printable(node.name or node.op_type),
        kind=printable(node.op_type),
        modules=(module,) if module else (),
        inputs=tuple(types.get(value, "unknown") for value in read),
        outputs=tuple(types[value] for value in node.outputs if value.name),
        reformat=node.op_type in REFORMATS,
    )


def _computed_inputs(node: ir.Node) -> list[ir.Value]:
    """The inputs that are no constants."""
    return [value for value in node.inputs if value is not None and value.const_value is None]


def _works_for(node: ir.Node) -> ir.Node:
    """The node that a reformat is made for; ONNX Runtime gives those that it puts in names of its own."""
    reader = node
    for _ in range(LONGEST_CHAIN):
        readers = [use.node for value in reader.outputs for use in value.uses()]
        if reader.op_type not in REFORMATS or not readers:
            break
        reader = readers[0]
    return reader


def _has_residual_add(node: ir.Node) -> bool:
    """Whether a residual Add is in it, by itself or as what a convolution adds to its sums."""
    computed = _computed_inputs(node)
    if node.op_type in {"Conv", "FusedConv"}:
        # Behind images, weights and bias.
        return len(node.inputs) > 3 and node.inputs[3] in computed
    return node.op_type in {"Add", "QLinearAdd"} and len(computed) > 1


def _types(graph: ir.Graph) -> dict[ir.Value, str]:
    """The type of every value; ONNX Runtime does not write down that of the casts it put in."""
    types = {}
    for value in (*graph.inputs, *graph.initializers.values()):
        if value.dtype:
            types[value] = type_name(value.dtype.name)
    for node in graph:
        unwritten = _output_type(node, types)
        for value in node.outputs:
            types[value] = type_name(value.dtype.name) if value.dtype else unwritten
    return types


def _output_type(node: ir.Node, types: dict[ir.Value, str]) -> str:
    """The type of a node's outputs by what it does; ``unknown`` where that does not tell either."""
    if node.op_type == "Cast" and "to" in node.attributes:
        return type_name(ir.DataType(node.attributes["to"].as_int()).name)
    index = TYPED_BY.get(node.op_type, 0)
    source = node.inputs[index] if index < len(node.inputs) else None
    if source is None:
        return "unknown"
    return types.get(source, "unknown")
