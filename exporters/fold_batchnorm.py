"""BatchNormalization into the convolution before it, computed in float64."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from exporters import onnx_file

if TYPE_CHECKING:
    from pathlib import Path

    import onnx_ir as ir


def fold_batchnorm(src: Path, dst: Path) -> str:
    """Write ``src`` with every foldable Conv + BatchNormalization pair as one Conv.

    A pair is foldable when the convolution's output goes nowhere else and all its numbers are constants. In inference
    y = gamma (conv(x) - mean) / sqrt(var + eps) + beta (Ioffe and Szegedy 2015, arXiv 1502.03167, algorithm 2), so
    with g = gamma / sqrt(var + eps) the folded weight is g W and the folded bias g (b - mean) + beta.
    """
    model = onnx_file.read(src)
    before = onnx_file.count(model, "BatchNormalization")
    for norm in [node for node in model.graph if node.op_type == "BatchNormalization"]:
        if _foldable(norm):
            _fold(model.graph, norm)
    onnx_file.drop_unused_constants(model.graph)
    onnx_file.write(model, dst)
    return f"BatchNormalization {before} → {onnx_file.count(model, 'BatchNormalization')}"


def _foldable(norm: ir.Node) -> bool:
    value = norm.inputs[0]
    conv = value.producer() if value is not None else None
    if value is None or conv is None or conv.op_type != "Conv" or len(value.uses()) != 1 or value.is_graph_output():
        return False
    constants = [conv.inputs[1], *conv.inputs[2:], *norm.inputs[1:5]]
    training = norm.attributes.get("training_mode")
    in_inference = training is None or training.as_int() == 0
    return in_inference and all(onnx_file.weight(constant) is not None for constant in constants)


def _fold(graph: ir.Graph, norm: ir.Node) -> None:
    conv = norm.inputs[0].producer()  # type: ignore[union-attr]
    assert conv is not None
    gamma, beta, mean, var = (np.float64(onnx_file.weight(value)) for value in norm.inputs[1:5])
    epsilon = norm.attributes["epsilon"].as_float() if "epsilon" in norm.attributes else 1e-5
    weight = np.float64(onnx_file.weight(conv.inputs[1]))
    bias = np.float64(onnx_file.weight(conv.inputs[2])) if len(conv.inputs) > 2 else np.zeros_like(mean)
    gain = gamma / np.sqrt(var + epsilon)
    module = onnx_file.module_of(conv)
    folded = [
        _constant(graph, f"{module}.weight", weight * gain.reshape(-1, *[1] * (weight.ndim - 1))),
        _constant(graph, f"{module}.bias", gain * (bias - mean) + beta),
    ]
    conv.resize_inputs(3)
    for index, value in enumerate(folded, start=1):
        conv.replace_input_with(index, value)
    # The tensor keeps the name it had behind the BatchNormalization: one name always means the same values.
    name = norm.outputs[0].name
    norm.outputs[0].replace_all_uses_with(conv.outputs[0], replace_graph_outputs=True)
    graph.remove(norm, safe=True)
    conv.outputs[0].name = name


def _constant(graph: ir.Graph, name: str, array: np.ndarray) -> ir.Value:
    """A float32 initializer under the module's name; the unfolded one may still be read by a twin."""
    old = graph.initializers.pop(name, None)
    if old is not None:
        old.name = f"{name}.unfolded"
        graph.register_initializer(old)
    return onnx_file.constant(graph, name, array.astype(np.float32))
