"""BatchNormalization into the convolution or linear layer before it, computed in float64."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from exporters import onnx_file
from exporters.constant import attributes

if TYPE_CHECKING:
    from pathlib import Path

    import onnx_ir as ir
    from numpy.typing import NDArray

FOLDABLE = ("Conv", "Gemm")


def fold_batchnorm(src: Path, dst: Path) -> str:
    """Write ``src`` with every foldable pair of Conv or Gemm and BatchNormalization as one node.

    Raises ValueError where a folded weight or bias is no finite float32. In inference
    y = gamma (conv(x) - mean) / sqrt(var + eps) + beta (Ioffe and Szegedy 2015, arXiv 1502.03167, algorithm 2), so
    with g = gamma / sqrt(var + eps) the folded weight is g W and the folded bias g (b - mean) + beta.
    """
    model = onnx_file.read(src)
    before = onnx_file.count(model, "BatchNormalization")
    # Chosen before any is folded: of two in a row only the first, since a second rounding could not be proven.
    for norm in [node for node in model.graph if node.op_type == "BatchNormalization" and obstacle(node) is None]:
        _fold(model.graph, norm)
    onnx_file.drop_unused_initializers(model.graph)
    onnx_file.write(model, dst)
    return f"BatchNormalization {before} → {onnx_file.count(model, 'BatchNormalization')}"


def obstacle(norm: ir.Node) -> str | None:
    """Why the BatchNormalization ``norm`` cannot be folded into what stands before it; None where it can."""
    value = norm.inputs[0]
    layer = value.producer() if value is not None else None
    if value is None or layer is None or layer.op_type not in FOLDABLE:
        return (
            f"{layer.op_type if layer is not None else 'the input'} stands before it, not one of {', '.join(FOLDABLE)}"
        )
    if len(value.uses()) != 1 or value.is_graph_output():
        return f"the output of {onnx_file.module_of(layer) or layer.name} is also read elsewhere"
    if "training_mode" in norm.attributes and norm.attributes["training_mode"].as_int() != 0:
        return "it is in training mode"
    if layer.op_type == "Gemm" and not _plain(layer):
        return "its Gemm scales or turns its operands"
    if any(onnx_file.initializer_array(constant) is None for constant in [*layer.inputs[1:], *norm.inputs[1:5]]):
        return "its numbers are computed, not constants"
    return None


def _plain(gemm: ir.Node) -> bool:
    told = attributes(gemm)
    return bool(told["alpha"] == told["beta"] == 1.0 and told["transA"] == 0)


def along_outputs(layer: ir.Node, gain: NDArray[np.float64], rank: int) -> NDArray[np.float64]:
    """``gain``, one number an output of ``layer``, shaped to multiply its weight of ``rank`` dimensions."""
    last = layer.op_type == "Gemm" and attributes(layer)["transB"] == 0
    return gain if last else gain.reshape(-1, *[1] * (rank - 1))


def _fold(graph: ir.Graph, norm: ir.Node) -> None:
    conv = norm.inputs[0].producer()  # type: ignore[union-attr]
    assert conv is not None
    gamma, beta, mean, var = (np.float64(onnx_file.initializer_array(value)) for value in norm.inputs[1:5])
    epsilon = norm.attributes["epsilon"].as_float() if "epsilon" in norm.attributes else 1e-5
    weight = np.float64(onnx_file.initializer_array(conv.inputs[1]))
    bias = np.float64(onnx_file.initializer_array(conv.inputs[2])) if len(conv.inputs) > 2 else np.zeros_like(mean)
    module = onnx_file.module_of(conv)
    with np.errstate(all="ignore"):
        gain = gamma / np.sqrt(var + epsilon)
        arrays = [weight * along_outputs(conv, gain, weight.ndim), gain * (bias - mean) + beta]
        narrow = [array.astype(np.float32) for array in arrays]
    if not all(np.isfinite(array).all() for array in narrow):
        raise ValueError(
            f"folding {onnx_file.module_of(norm)} into {module} gives weights that are no finite float32: its smallest "
            f"variance is {var.min():g} and its epsilon {epsilon:g}; train it on, or drop channels that are always 0"
        )
    folded = [
        _constant(graph, f"{module}.{name}", array) for name, array in zip(("weight", "bias"), narrow, strict=True)
    ]
    conv.resize_inputs(3)
    for index, value in enumerate(folded, start=1):
        conv.replace_input_with(index, value)
    # The tensor keeps the name it had behind the BatchNormalization: one name always means the same values.
    name = norm.outputs[0].name
    norm.outputs[0].replace_all_uses_with(conv.outputs[0], replace_graph_outputs=True)
    graph.remove(norm, safe=True)
    conv.outputs[0].name = name


def _constant(graph: ir.Graph, name: str, array: NDArray[np.float32]) -> ir.Value:
    """A float32 initializer under the module's name; the unfolded one may still be read by a twin."""
    old = graph.initializers.pop(name, None)
    if old is not None:
        old.name = f"{name}.unfolded"
        graph.register_initializer(old)
    return onnx_file.add_initializer(graph, name, array)
