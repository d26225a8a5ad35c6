"""BatchNormalization into the convolution or linear layer before it, computed in float64."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from exporters import onnx_file
from exporters.constant import evaluate_constant
from exporters.node_attributes import attributes

if TYPE_CHECKING:
    from pathlib import Path

    import onnx_ir as ir
    from numpy.typing import NDArray

FOLDABLE = ("Conv", "Gemm")
DEFAULT_EPSILON = 1e-5  # ONNX, BatchNormalization


def fold_batchnorm(src: Path, dst: Path) -> str:
    """Write ``src`` with every foldable pair of Conv or Gemm and BatchNormalization as one node.

    Raises ValueError where a folded weight or bias is no finite float32. In inference
    y = gamma (conv(x) - mean) / sqrt(var + eps) + beta (Ioffe and Szegedy 2015, arXiv 1502.03167, algorithm 2), so
    with g = gamma / sqrt(var + eps) the folded weight is g W and the folded bias g (b - mean) + beta.
    """
    model = onnx_file.read(src)
    before = onnx_file.count(model, "BatchNormalization")
    # Chosen before any is folded: of two in a row only the first, since a second rounding could not be proven.
    norms = [node for node in model.graph if node.op_type == "BatchNormalization" and obstacle(node) is None]
    for norm in norms:
        _fold(model.graph, norm)
    onnx_file.drop_unread(model.graph)
    onnx_file.write(model, dst)
    return f"BatchNormalization {before} → {onnx_file.count(model, 'BatchNormalization')}"


def obstacle(norm: ir.Node) -> str | None:
    """Why the BatchNormalization ``norm`` cannot be folded into what stands before it; None where it can."""
    value = norm.inputs[0]
    layer = value.producer() if value is not None else None
    if value is None or layer is None or layer.op_type not in FOLDABLE:
        before = layer.op_type if layer is not None else "the input"
        return f"{before} stands before it, not one of {', '.join(FOLDABLE)}"

    # Other readers would get the normalised answer in place of the layer's own.
    if len(value.uses()) != 1 or value.is_graph_output():
        return f"the output of {onnx_file.module_of(layer) or layer.name} is also read elsewhere"

    # In training mode it normalises by the statistics of the batch, which are no constants.
    if "training_mode" in norm.attributes and norm.attributes["training_mode"].as_int() != 0:
        return "it is in training mode"

    if layer.op_type == "Gemm" and not _is_linear_layer(layer):
        return "its Gemm scales or turns its operands"
    for operand in (*layer.inputs[1:], *norm.inputs[1:5]):
        constant = evaluate_constant(operand)
        # What runtimes round in ways of their own cannot be folded within one rounding.
        if constant is None or not constant.exact or constant.quantised is not None:
            return "its numbers are computed, not constants"
    return None


def _is_linear_layer(gemm: ir.Node) -> bool:
    """Whether ``gemm`` is x W + b, with W stored either way round and no factors."""
    settings = attributes(gemm)
    return bool(settings["alpha"] == settings["beta"] == 1.0 and settings["transA"] == 0)


def along_outputs(layer: ir.Node, gain: NDArray[np.float64], rank: int) -> NDArray[np.float64]:
    """``gain``, one number an output of ``layer``, shaped to multiply its weight of ``rank`` dimensions."""
    outputs_last = layer.op_type == "Gemm" and attributes(layer)["transB"] == 0
    if outputs_last:
        return gain
    return gain.reshape(-1, *[1] * (rank - 1))


def _fold(graph: ir.Graph, norm: ir.Node) -> None:
    """Fold ``norm`` into the layer before it, in place; raises ValueError where that is no finite float32."""
    layer = norm.inputs[0].producer()  # type: ignore[union-attr]
    assert layer is not None
    weight, bias = _folded(layer, norm)
    module = onnx_file.module_of(layer)
    layer.resize_inputs(3)  # a layer without bias gets one
    layer.replace_input_with(1, _add_initializer(graph, f"{module}.weight", weight))
    layer.replace_input_with(2, _add_initializer(graph, f"{module}.bias", bias))

    # The tensor keeps the name it had behind the BatchNormalization: one name always means the same values.
    name = norm.outputs[0].name
    norm.outputs[0].replace_all_uses_with(layer.outputs[0], replace_graph_outputs=True)
    graph.remove(norm, safe=True)
    layer.outputs[0].name = name


def _folded(layer: ir.Node, norm: ir.Node) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Weight and bias of ``layer`` with ``norm`` folded into it, float32; raises ValueError where one is not finite."""
    gamma, beta, mean, var = (_numbers(value) for value in norm.inputs[1:5])
    epsilon = norm.attributes["epsilon"].as_float() if "epsilon" in norm.attributes else DEFAULT_EPSILON
    weight = _numbers(layer.inputs[1])
    bias = _numbers(layer.inputs[2]) if len(layer.inputs) > 2 else np.zeros_like(mean)

    with np.errstate(all="ignore"):  # a variance of 0 without epsilon is refused below, with its names
        gain = gamma / np.sqrt(var + epsilon)
        folded_weight = (weight * along_outputs(layer, gain, weight.ndim)).astype(np.float32)
        folded_bias = (gain * (bias - mean) + beta).astype(np.float32)
    if not np.isfinite(folded_weight).all() or not np.isfinite(folded_bias).all():
        module = onnx_file.module_of(layer)
        raise ValueError(
            f"folding {onnx_file.module_of(norm)} into {module} gives weights that are no finite float32: its smallest "
            f"variance is {var.min():g} and its epsilon {epsilon:g}; train it on, or drop channels that are always 0"
        )
    return folded_weight, folded_bias


def _numbers(value: ir.Value | None) -> NDArray[np.float64]:
    constant = evaluate_constant(value)
    assert constant is not None
    return constant.values


def _add_initializer(graph: ir.Graph, name: str, array: NDArray[np.float32]) -> ir.Value:
    """A float32 initializer under the module's name; the unfolded one may still be read by a twin."""
    old = graph.initializers.pop(name, None)
    if old is not None:
        old.name = f"{name}.unfolded"
        graph.register_initializer(old)
    return onnx_file.add_initializer(graph, name, array)
