"""The layers that a TensorRT lists, in its builder's log or its engine inspector, described by the graph's nodes."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, NamedTuple

from exporters import onnx_file
from exporters.engines.description import (
    EngineDescription,
    Layer,
    Operation,
    from_json,
    of_layers,
    printable,
    type_name,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import onnx_ir as ir

# A line of the builder's list.
LINE = re.compile(
    r"Name: (?P<name>.*?), LayerType: (?P<kind>[^,]*), Inputs: (?P<inputs>.*?), Constants: .*, "
    r"Outputs: (?P<outputs>.*?), TacticName: .*Metadata: (?P<nodes>.*)"
)
NODE = re.compile(r"\[ONNX Layer: ([^\]]*)\]")
DATATYPE = re.compile(r"Datatype: (\w+)")
MEMORY = re.compile(r"Total (Weights|Activation) Memory: (\d+) bytes")
# Before TensorRT 11 the inspector names the type inside a sentence about the memory layout.
WORDED = re.compile(r"\b(FP32|Float|FP16|Half|BF16|Int8|FP8|Int32|Int64|Bool)\b", re.IGNORECASE)
# Layers that only bring tensors into another layout or type.
MOVES = {"Reformat", "NoOp"}
# The pointwise kernels around a convolution, which carry its name too.
POINTWISE = "kgen"
# Nodes that a layer may take in without doing any work.
PAIRS = {"QuantizeLinear", "DequantizeLinear", "Cast"}


class ListedLayer(NamedTuple):
    """A layer as it is listed, ``nodes`` of the graph by name."""

    name: str
    kind: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    nodes: tuple[str, ...]


def of_log(texts: Sequence[str], model: ir.Model, package: str) -> dict[str, Any]:
    """What the log of a detailed build by ``package`` says of the engine, as JSON; no layers where none can be read.

    The list ("Layers:") is documented nowhere; this is how TensorRT-RTX 1.7 writes it, which knows no DLA.
    """
    memory = {}
    for text in texts:
        for kind, size in MEMORY.findall(text):
            memory[kind] = int(size)
    description = _described(
        _listed(texts),
        model,
        package.replace("_", "-"),
        "the builder's list",
        weights=memory.get("Weights"),
        activations=memory.get("Activation"),
        dla=0 if package == "tensorrt_rtx" else None,
    )
    return description.to_json()


def _listed(texts: Sequence[str]) -> list[ListedLayer]:
    """The layers of the last list in a log; none where a line of it has another form than is known."""
    lists = [text for text in texts if text.lstrip().startswith("Layers:")]
    if not lists:
        return []
    layers = []
    for line in lists[-1].splitlines():
        if not line.startswith("Name: "):
            continue
        match = LINE.match(line)
        # All or nothing: counts of some of them would mislead.
        if match is None:
            return []
        layers.append(
            ListedLayer(
                name=match["name"],
                kind=match["kind"],
                inputs=_type_names(DATATYPE.findall(match["inputs"])),
                outputs=_type_names(DATATYPE.findall(match["outputs"])),
                nodes=tuple(NODE.findall(match["nodes"])),
            )
        )
    return layers


def of_inspector(text: str, model: ir.Model, logged: Mapping[str, Any]) -> dict[str, Any]:
    """The same from the inspector's JSON, of TensorRT before 11 or since; memory and DLA are what the log says.

    Raises ValueError where it is not that JSON.
    """
    try:
        layers = [_inspected(layer) for layer in json.loads(text)["Layers"]]
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"the engine inspector's JSON has another form than is known ({error!r})") from error
    description = _described(
        layers,
        model,
        logged["backend"],
        "the engine inspector",
        weights=logged["weights"],
        activations=logged["activations"],
        dla=logged["dla"],
    )
    return description.to_json()


def kept(name: str, details: Mapping[str, Any] | None) -> EngineDescription:
    """The description in a stage's ``details``; raises ValueError where there is none, for the engine ``name``."""
    if details is None:
        raise ValueError(f"{name}: TensorRT lists its layers while it builds; give the directory of the build")
    description = details.get("description")
    if not isinstance(description, dict) or not description.get("layers"):
        raise ValueError(f"{name}: when it was built, its builder listed no layers that could be read")
    return from_json(description)


def _inspected(layer: Mapping[str, Any]) -> ListedLayer:
    """A layer of the inspector's JSON."""
    # Before TensorRT 10 a layer has no metadata, but a name made of its nodes'.
    nodes = NODE.findall(layer.get("Metadata") or "") or layer["Name"].split(" + ")
    return ListedLayer(
        name=layer["Name"],
        kind=layer["LayerType"],
        inputs=_type_names([_inspected_type(tensor) for tensor in layer["Inputs"]]),
        outputs=_type_names([_inspected_type(tensor) for tensor in layer["Outputs"]]),
        nodes=tuple(nodes),
    )


def _inspected_type(tensor: Mapping[str, Any]) -> str:
    if "Format/Datatype" not in tensor:
        return str(tensor["Datatype"])
    worded = WORDED.search(tensor["Format/Datatype"])
    return worded[0] if worded else "unknown"


def _type_names(types: Sequence[str]) -> tuple[str, ...]:
    return tuple(type_name(text) for text in types)


def _described(
    listed: Sequence[ListedLayer],
    model: ir.Model,
    backend: str,
    source: str,
    *,
    weights: int | None,
    activations: int | None,
    dla: int | None,
) -> EngineDescription:
    nodes = {str(node.name): node for node in model.graph}
    # Layers that touch no tensor are left out.
    layers = [_layer(row, nodes) for row in listed if row.inputs or row.outputs]

    convolution_names = set()
    convolutions = []
    for node in onnx_file.convolutions(model):
        convolution_names.add(str(node.name))
        convolutions.append(_operation(node, listed, set()))
    adds = [_operation(node, listed, convolution_names) for node in model.graph if _is_residual_add(node)]
    return of_layers(backend, source, layers, convolutions, adds, weights=weights, activations=activations, dla=dla)


def _layer(listed: ListedLayer, nodes: Mapping[str, ir.Node]) -> Layer:
    inside = [nodes[name] for name in listed.nodes if name in nodes]
    work = [node for node in inside if node.op_type not in PAIRS]
    modules: list[str] = []
    # Pairs and casts name a module only where there is nothing else in the layer.
    for node in work or inside:
        module = onnx_file.module_of(node)
        if module and module not in modules:
            modules.append(module)
    return Layer(
        name=printable(listed.name),
        kind=printable(listed.kind),
        modules=tuple(printable(module) for module in modules),
        inputs=listed.inputs,
        outputs=listed.outputs,
        reformat=listed.kind == "Reformat" or bool(inside and not work),
    )


def _operation(node: ir.Node, listed: Sequence[ListedLayer], convolution_names: set[str]) -> Operation:
    """The convolution or Add ``node``; it is fused where all its layers have one of ``convolution_names`` in them."""
    module = printable(onnx_file.module_of(node) or str(node.name))
    layers = [layer for layer in listed if node.name in layer.nodes and layer.kind not in MOVES]
    # Pointwise kernels count only where there is no other layer of this node.
    without_pointwise = [layer for layer in layers if layer.kind != POINTWISE]
    fused = bool(without_pointwise) and all(convolution_names & {*layer.nodes} for layer in without_pointwise)

    counted = without_pointwise or layers
    if not counted:
        return Operation(module, (), ())
    operations = [Operation(module, layer.inputs, layer.outputs, fused) for layer in counted]
    # Of several layers, one for each profile, the one that does the least in 8 bits.
    return min(operations, key=lambda operation: (operation.reads_8_bits, operation.in_8_bits))


def _is_residual_add(node: ir.Node) -> bool:
    """Whether ``node`` adds two tensors that are both computed."""
    return node.op_type == "Add" and all(onnx_file.initializer_array(value) is None for value in node.inputs)
