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

LINE = re.compile(
    r"Name: (?P<name>.*?), LayerType: (?P<kind>[^,]*), Inputs: (?P<inputs>.*?), Constants: .*, "
    r"Outputs: (?P<outputs>.*?), TacticName: .*Metadata: (?P<nodes>.*)"
)
NODE = re.compile(r"\[ONNX Layer: ([^\]]*)\]")
DATATYPE = re.compile(r"Datatype: (\w+)")
MEMORY = re.compile(r"Total (Weights|Activation) Memory: (\d+) bytes")
# Before TensorRT 11 the inspector names the type inside a sentence about the memory layout.
WORDED = re.compile(r"\b(FP32|Float|FP16|Half|BF16|Int8|FP8|Int32|Int64|Bool)\b", re.IGNORECASE)
# Layers that only bring tensors into another layout or type, and the pointwise kernels around a convolution, which
# carry its name too.
MOVES, POINTWISE = {"Reformat", "NoOp"}, "kgen"
PAIRS = {"QuantizeLinear", "DequantizeLinear", "Cast"}


class ListedLayer(NamedTuple):
    """A layer as it is listed, ``nodes`` of the graph by name."""

    name: str
    kind: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    nodes: tuple[str, ...]


def of_log(messages: Sequence[tuple[str, str]], model: ir.Model, package: str) -> dict[str, Any]:
    """What the log of a detailed build by ``package`` says of the engine, as JSON; no layers where none can be read.

    The list ("Layers:") is documented nowhere; this is how TensorRT-RTX 1.7 writes it, which knows no DLA.
    """
    texts = [text for _, text in messages]
    lists = [text for text in texts if text.lstrip().startswith("Layers:")]
    lines = [line for line in lists[-1].splitlines() if line.startswith("Name: ")] if lists else []
    found = [LINE.match(line) for line in lines]
    rows = [
        ListedLayer(
            match["name"],
            match["kind"],
            _types(DATATYPE.findall(match["inputs"])),
            _types(DATATYPE.findall(match["outputs"])),
            tuple(NODE.findall(match["nodes"])),
        )
        for match in found
        if match is not None
    ]
    memory = {kind: int(size) for text in texts for kind, size in MEMORY.findall(text)}
    description = _described(
        rows if len(rows) == len(lines) else [],
        model,
        package.replace("_", "-"),
        "the builder's list",
        weights=memory.get("Weights"),
        activations=memory.get("Activation"),
        dla=0 if package == "tensorrt_rtx" else None,
    )
    return description.to_json()


def of_inspector(text: str, model: ir.Model, logged: Mapping[str, Any]) -> dict[str, Any]:
    """The same from the inspector's JSON, of TensorRT before 11 or since; memory and DLA are what the log says.

    Raises ValueError where it is not that JSON.
    """
    try:
        rows = [_row(layer) for layer in json.loads(text)["Layers"]]
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"the engine inspector's JSON has another form than is known ({error!r})") from error
    rest = {key: logged[key] for key in ("weights", "activations", "dla")}
    return _described(rows, model, logged["backend"], "the engine inspector", **rest).to_json()


def kept(name: str, details: Mapping[str, Any] | None) -> EngineDescription:
    """The description in a stage's ``details``; raises ValueError where there is none, for the engine ``name``."""
    if details is None:
        raise ValueError(f"{name}: TensorRT lists its layers while it builds; give the directory of the build")
    description = details.get("description")
    if not isinstance(description, dict) or not description.get("layers"):
        raise ValueError(f"{name}: when it was built, its builder listed no layers that could be read")
    return from_json(description)


def _row(layer: Mapping[str, Any]) -> ListedLayer:
    # Before TensorRT 10 a layer has no metadata, but a name made of its nodes'.
    nodes = NODE.findall(layer.get("Metadata") or "") or layer["Name"].split(" + ")
    inputs, outputs = (_types(map(_type, layer[key])) for key in ("Inputs", "Outputs"))
    return ListedLayer(layer["Name"], layer["LayerType"], inputs, outputs, tuple(nodes))


def _type(tensor: Mapping[str, Any]) -> str:
    if "Format/Datatype" not in tensor:
        return str(tensor["Datatype"])
    found = WORDED.search(tensor["Format/Datatype"])
    return found[0] if found else "unknown"


def _types(names: Any) -> tuple[str, ...]:
    return tuple(map(type_name, names))


def _described(
    rows: Sequence[ListedLayer], model: ir.Model, backend: str, source: str, **known: int | None
) -> EngineDescription:
    nodes = {str(node.name): node for node in model.graph}
    layers = [_layer(row, nodes) for row in rows if row.inputs or row.outputs]
    names = {str(node.name) for node in onnx_file.convolutions(model)}
    convolutions = [_operation(node, rows, set()) for node in onnx_file.convolutions(model)]
    adds = [_operation(node, rows, names) for node in model.graph if _residual(node)]
    return of_layers(backend, source, layers, convolutions, adds, **known)


def _layer(row: ListedLayer, nodes: Mapping[str, ir.Node]) -> Layer:
    mine = [nodes[name] for name in row.nodes if name in nodes]
    work = [node for node in mine if node.op_type not in PAIRS]
    modules = filter(None, dict.fromkeys(onnx_file.module_of(node) for node in work or mine))
    reformat = row.kind == "Reformat" or bool(mine and not work)
    return Layer(
        printable(row.name), printable(row.kind), tuple(map(printable, modules)), row.inputs, row.outputs, reformat
    )


def _operation(node: ir.Node, rows: Sequence[ListedLayer], convolutions: set[str]) -> Operation:
    module = printable(onnx_file.module_of(node) or str(node.name))
    mine = [row for row in rows if node.name in row.nodes and row.kind not in MOVES]
    whole = [row for row in mine if row.kind != POINTWISE]
    fused = bool(whole) and all(convolutions & {*row.nodes} for row in whole)
    found = [Operation(module, row.inputs, row.outputs, fused) for row in whole or mine]
    return min(found, key=lambda each: (each.reads_8_bits, each.in_8_bits), default=Operation(module, (), ()))


def _residual(node: ir.Node) -> bool:
    return node.op_type == "Add" and all(onnx_file.initializer_array(value) is None for value in node.inputs)
