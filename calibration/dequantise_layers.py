"""Q/DQ pairs switched off in the ONNX file itself, layer by layer: works for every backend, and needs no GPU."""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnx
import onnx_ir as ir

from exporters import onnx_file
from exporters.constant import evaluate_constant

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

PAIR = {"QuantizeLinear", "DequantizeLinear"}


def layers(path: Path) -> list[str]:
    """The modules of ``path`` that read anything behind a DequantizeLinear, in the order of the network."""
    return list(dict.fromkeys(_module(node) for node in onnx_file.read(path).graph if _quantised(node)))


def feeding(path: Path) -> dict[str, set[str]]:
    """Of each residual Add in ``path`` the modules of its convolutions: in float it reads none that runs in INT8."""
    adds = (node for node in onnx_file.read(path).graph if node.op_type == "Add")
    makers = {_module(add): map(_maker, add.inputs) for add in adds}
    return {add: {_module(node) for node in found if node and node.op_type == "Conv"} for add, found in makers.items()}


def switched_off(good: Path, bad: Path, modules: Collection[str]) -> bytes:
    """``bad`` serialised, with what ``modules`` read as it is in ``good``: float weights, and no Q/DQ before them.

    Pairs that nobody reads any more are gone. Raises ValueError where ``good`` lacks the weights of one of them.
    """
    model, trusted = onnx_file.read(bad), onnx_file.read(good).graph
    makers = {str(node.outputs[0].name): node for node in trusted}
    for node in [node for node in model.graph if _quantised(node) and _module(node) in modules]:
        twin = makers.get(str(node.outputs[0].name))
        for index in _quantised(node):
            value = _float(model.graph, node, index, twin)
            node.replace_input_with(index, value)
            _free_pool(model.graph, value.producer())
    _drop_unread_pairs(model.graph)
    onnx_file.drop_unused_initializers(model.graph)
    model.graph.sort()
    return bytes(ir.to_proto(model).SerializeToString(deterministic=True))


def has_pairs(model: bytes) -> bool:
    """Whether anything in the serialised ``model`` is quantised."""
    return any(node.op_type in PAIR for node in onnx.load_model_from_string(model).graph.node)


def _float(graph: ir.Graph, node: ir.Node, index: int, twin: ir.Node | None) -> ir.Value:
    dequantise = node.inputs[index].producer()  # type: ignore[union-attr]
    assert dequantise is not None
    if evaluate_constant(dequantise.outputs[0]) is None:
        quantise = dequantise.inputs[0].producer()  # type: ignore[union-attr]
        assert quantise is not None
        assert quantise.inputs[0] is not None
        return quantise.inputs[0]
    weight = onnx_file.initializer_array(twin.inputs[index]) if twin is not None and index < len(twin.inputs) else None
    if weight is None:
        raise ValueError(f"{_module(node)} has weights that the file before it does not have")
    name = f"{node.outputs[0].name}_float_{index}"
    return onnx_file.add_initializer(graph, name, weight)


def _free_pool(graph: ir.Graph, maker: ir.Node | None) -> None:
    """A MaxPool that is read in float reads float too: it runs in 8 bits on both sides or on none."""
    if maker is not None and maker.op_type == "MaxPool":
        for index in _quantised(maker):
            maker.replace_input_with(index, _float(graph, maker, index, None))


def _drop_unread_pairs(graph: ir.Graph) -> None:
    graph.sort()
    for node in reversed(list(graph)):
        if node.op_type in PAIR and not node.outputs[0].uses():
            graph.remove(node, safe=True)


def _maker(value: ir.Value | None) -> ir.Node | None:
    """What computes ``value``, pairs aside."""
    maker = None if value is None else value.producer()
    return maker if maker is None or maker.op_type not in PAIR else _maker(maker.inputs[0])


def _quantised(node: ir.Node) -> list[int]:
    """Which inputs of ``node`` come from a DequantizeLinear."""
    if node.op_type in PAIR:
        return []
    makers = [value.producer() if value is not None else None for value in node.inputs]
    return [index for index, maker in enumerate(makers) if maker is not None and maker.op_type == "DequantizeLinear"]


def _module(node: ir.Node) -> str:
    return onnx_file.module_of(node) or str(node.outputs[0].name)
