"""Layers put back into float in the ONNX file itself, by taking their Q/DQ pairs away.

This works for every backend, and needs no GPU.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnx
import onnx_ir as ir

from exporters import onnx_file
from exporters.constant import evaluate_constant

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

PAIR_OPERATORS = {"QuantizeLinear", "DequantizeLinear"}


def layers(path: Path) -> list[str]:
    """The modules of ``path`` that read anything behind a DequantizeLinear, in the order of the network."""
    modules = [_module_of(node) for node in onnx_file.read(path).graph if _quantised_inputs(node)]
    return list(dict.fromkeys(modules))


def convolutions_feeding_adds(path: Path) -> dict[str, set[str]]:
    """For each residual Add in ``path``, the modules of the convolutions that it reads.

    An Add in float reads no convolution that runs in INT8, so these go back to float with it.
    """
    convolutions: dict[str, set[str]] = {}
    for node in onnx_file.read(path).graph:
        if node.op_type != "Add":
            continue
        feeding = set()
        for value in node.inputs:
            producer = _producer_before_pairs(value)
            if producer is not None and producer.op_type == "Conv":
                feeding.add(_module_of(producer))
        convolutions[_module_of(node)] = feeding
    return convolutions


def with_layers_in_float(good: Path, bad: Path, modules: Collection[str]) -> bytes:
    """``bad`` with ``modules`` in float, serialised: they read the weights of ``good``, and no Q/DQ pair.

    Pairs that nobody reads any more are removed. Raises ValueError where ``good`` lacks the weights of one of them.
    """
    model = onnx_file.read(bad)
    trusted_nodes = {str(node.outputs[0].name): node for node in onnx_file.read(good).graph}

    # Collected first: the loop below changes what the nodes read.
    layers_to_change = [node for node in model.graph if _quantised_inputs(node) and _module_of(node) in modules]
    for node in layers_to_change:
        trusted_node = trusted_nodes.get(str(node.outputs[0].name))
        for index in _quantised_inputs(node):
            value = _float_input(model.graph, node, index, trusted_node)
            node.replace_input_with(index, value)
            _put_pool_into_float(model.graph, value.producer())

    _drop_unread_pairs(model.graph)
    onnx_file.drop_unused_initializers(model.graph)
    model.graph.sort()
    return bytes(ir.to_proto(model).SerializeToString(deterministic=True))


def has_pairs(model: bytes) -> bool:
    """Whether anything in the serialised ``model`` is quantised."""
    return any(node.op_type in PAIR_OPERATORS for node in onnx.load_model_from_string(model).graph.node)


def _float_input(graph: ir.Graph, node: ir.Node, index: int, trusted_node: ir.Node | None) -> ir.Value:
    """What ``node`` reads at ``index`` in float: the activation before its pair, or the weight of ``trusted_node``."""
    dequantise = node.inputs[index].producer()  # type: ignore[union-attr]
    assert dequantise is not None
    if evaluate_constant(dequantise.outputs[0]) is None:
        quantise = dequantise.inputs[0].producer()  # type: ignore[union-attr]
        assert quantise is not None
        assert quantise.inputs[0] is not None
        return quantise.inputs[0]

    # The stored levels have lost the float weight: only the file before still has it.
    weight = None
    if trusted_node is not None and index < len(trusted_node.inputs):
        weight = onnx_file.initializer_array(trusted_node.inputs[index])
    if weight is None:
        raise ValueError(f"{_module_of(node)} has weights that the file before it does not have")
    return onnx_file.add_initializer(graph, f"{node.outputs[0].name}_float_{index}", weight)


def _put_pool_into_float(graph: ir.Graph, producer: ir.Node | None) -> None:
    """A MaxPool that is read in float reads float too: it runs in 8 bits on both sides or on none."""
    if producer is None or producer.op_type != "MaxPool":
        return
    for index in _quantised_inputs(producer):
        producer.replace_input_with(index, _float_input(graph, producer, index, None))


def _drop_unread_pairs(graph: ir.Graph) -> None:
    """Remove every Quantize- and DequantizeLinear whose output nothing reads."""
    graph.sort()
    # Backwards, so that a DequantizeLinear is gone before its QuantizeLinear is asked who reads it.
    for node in reversed(list(graph)):
        if node.op_type in PAIR_OPERATORS and not node.outputs[0].uses():
            graph.remove(node, safe=True)


def _producer_before_pairs(value: ir.Value | None) -> ir.Node | None:
    """The node that computes ``value``; where that is a Q/DQ pair, the node that computes what the pair reads."""
    producer = None if value is None else value.producer()
    if producer is not None and producer.op_type in PAIR_OPERATORS:
        return _producer_before_pairs(producer.inputs[0])
    return producer


def _quantised_inputs(node: ir.Node) -> list[int]:
    """The indices of the inputs of ``node`` that come from a DequantizeLinear."""
    if node.op_type in PAIR_OPERATORS:
        return []
    indices = []
    for index, value in enumerate(node.inputs):
        producer = value.producer() if value is not None else None
        if producer is not None and producer.op_type == "DequantizeLinear":
            indices.append(index)
    return indices


def _module_of(node: ir.Node) -> str:
    """The PyTorch module of ``node``; where its name tells none, the tensor that it computes."""
    return onnx_file.module_of(node) or str(node.outputs[0].name)
