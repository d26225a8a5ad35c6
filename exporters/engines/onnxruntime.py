"""ONNX Runtime on the CPU: a file compiled once, and run as compiled."""

from __future__ import annotations

import importlib.util
import platform
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir

from exporters import channel_space, float_weights, onnx_file, reference
from exporters.engines import ort_layers

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray

    from exporters.engines.description import EngineDescription

SUFFIX = ".ort.onnx"
PACKAGES = ("onnxruntime", "onnxruntime-gpu")
BESIDE = False  # whether FP16 comes beside 8 bits, since it may be the faster
RUNS_HERE = True
PLACEMENTS = ("tensorrt", "onnxruntime")  # of Q/DQ pairs, that it reads
OPTIONS: tuple[str, ...] = ()  # the knobs of a recipe that it takes
# In two steps, since ALL also fixes the memory layouts that a processor likes: the file may be run on another one.
LEVEL, LAYOUTS = "ORT_ENABLE_EXTENDED", "ORT_ENABLE_ALL"
# Channels that a group of an INT8 convolution is filled up to; with 8 and with 32 a ResNeXt-50 runs slower.
FULL_GROUP = 16
# Weights become UINT8 where the processor's UINT8 x INT8 sums saturate at 16 bits: without this a ResNeXt-50 keeps
# 10 dB there and loses 10 points, and ONNX Runtime says nothing. Elsewhere the sums are the same, and 1.7 times slower.
SATURATES, EXACT = "x86 without VNNI", {"session.x64quantprecision": "1"}
UNSATURATED = 64  # the largest INT8 weight of which two products with 255 fit into 16 bits


def available() -> str | None:
    """Why this backend cannot be used here, or None."""
    return None if importlib.util.find_spec("onnxruntime") else "onnxruntime is not installed (extra: cpu)"


@cache
def machine() -> str:
    """What a compiled file depends on: whether this processor adds UINT8 x INT8 products without saturating."""
    if platform.machine() not in {"x86_64", "AMD64"}:
        return platform.machine()
    flags = Path("/proc/cpuinfo").read_text().split()
    return "x86 with VNNI" if {"avx512_vnni", "avx_vnni"} & set(flags) else SATURATES


def build(
    src: Path,
    dst: Path,
    _options: Mapping[str, Any] | None = None,
    _heard: Callable[[str, int, int], None] | None = None,
) -> dict[str, Any]:
    """Compile the ONNX file ``src`` to ``dst``; it takes no options.

    Returns ``convolutions``, how many of them run in ``int8`` (None where ``src`` has no Q/DQ), and ``warnings``.
    """
    model = onnx_file.read(src)
    quantised = onnx_file.count(model, "QuantizeLinear") > 0
    float_weights.stored_levels(model.graph)
    zeros = {
        onnx_file.initializer_array(node.inputs[2]).dtype.name  # type: ignore[union-attr]
        for node in model.graph
        if node.op_type == "QuantizeLinear"
    }
    if "int8" in zeros:
        to_uint8(model.graph)
    if not (disabled := _disabled(model)):
        merge_groups(model.graph)
        integer_bias(model.graph)
    entries = EXACT if machine() == SATURATES else None
    reference.session(ir.to_proto(model).SerializeToString(), LEVEL, disabled, dst, entries)
    compiled = onnx_file.read(dst, check=False)
    done = onnx_file.count(compiled, "QLinearConv")
    convolutions = onnx_file.count(compiled, "Conv", "FusedConv") + done
    return {"convolutions": convolutions, "int8": done if quantised else None, "warnings": []}


def load(path: Path) -> Any:
    """The compiled file as a session; only layouts are chosen anew, for the processor of this very machine.

    Raises RuntimeError where this processor would compute other sums than the one that it was compiled for.
    """
    if machine() == SATURATES and any(map(_may_saturate, onnx_file.read(path, check=False).graph)):
        raise RuntimeError(
            f"{path.name} was compiled on a processor with VNNI, and on this one, without, its INT8 sums would "
            "saturate; build it again here"
        )
    return reference.session(path, LAYOUTS, alone=True)


def optimised(path: Path) -> Any:
    """Any graph as a session that ONNX Runtime optimises by itself, to be timed: its answers may be others."""
    return reference.session(path, LAYOUTS, _disabled(onnx_file.read(path)), alone=True)


def _disabled(model: ir.Model) -> tuple[str, ...]:
    # The optimiser that is wrong for float16 scales is needed where they are float32: it quantises the biases,
    # without which no convolution runs in INT8.
    half = any(value.dtype == ir.DataType.FLOAT16 for value in model.graph.initializers.values())
    return reference.DISABLED if half else ()


def _may_saturate(node: ir.Node) -> bool:
    levels = onnx_file.initializer_array(node.inputs[3]) if node.op_type in {"QLinearConv", "QGemm"} else None
    return levels is not None and levels.dtype == np.int8 and bool((np.abs(levels.astype(int)) > UNSATURATED).any())


def describe(path: Path, _details: Mapping[str, Any] | None = None) -> EngineDescription:
    """What the compiled file in ``path`` is made of; raises ValueError where it is none."""
    return ort_layers.describe(onnx_file.read(path, check=False))


def to_uint8(graph: ir.Graph) -> None:
    """Rewrite TensorRT's INT8 layout into the one that ONNX Runtime computes in integers, value for value.

    Activations move from INT8 with zero point 0 to UINT8 with zero point 128 (its fast kernels on x86 want that), and
    a ReLU in front of a Q moves behind it, because only Conv → Q becomes an INT8 convolution. Exact: with zero point
    z, max(round(x / s) + z, z) = round(max(x, 0) / s) + z, clipping included.
    """
    zero = onnx_file.add_initializer(graph, "uint8_zero_point", np.array(128, np.uint8))
    for node in list(graph):
        if node.op_type == "DequantizeLinear" and onnx_file.initializer_array(node.inputs[0]) is None:
            node.replace_input_with(2, zero)
        if node.op_type == "QuantizeLinear":
            node.replace_input_with(2, zero)
            node.outputs[0].type = ir.TensorType(ir.DataType.UINT8)
            _relu_behind(graph, node, zero)
    onnx_file.drop_unused_initializers(graph)
    graph.sort()


def _relu_behind(graph: ir.Graph, quantise: ir.Node, zero: ir.Value) -> None:
    value = quantise.inputs[0]
    relu = value.producer() if value is not None else None
    if value is None or relu is None or relu.op_type != "Relu" or len(value.uses()) != 1:
        return
    quantised = quantise.outputs[0]
    floor = ir.node("Max", [quantised, zero], name=f"{relu.name}_uint8")
    floor.outputs[0].name = f"{value.name}_uint8"
    floor.outputs[0].type = quantised.type
    quantised.replace_all_uses_with(floor.outputs[0])
    floor.replace_input_with(0, quantised)
    quantise.replace_input_with(0, relu.inputs[0])
    graph.append(floor)
    graph.remove(relu, safe=True)


def merge_groups(graph: ir.Graph) -> None:
    """Merge the groups of INT8 convolutions up to FULL_GROUP channels, with weights of 0 between them: the same sums.

    ONNX Runtime multiplies group by group, which at 4 channels takes up to four times as long as in float32.
    """
    for node in [node for node in graph if node.op_type == "Conv" and _in_integers(node)]:
        dequantise, groups = node.inputs[1].producer(), channel_space.groups(node)  # type: ignore[union-attr]
        assert dequantise is not None
        levels = onnx_file.initializer_array(dequantise.inputs[0])
        assert levels is not None
        channels = levels.shape[1]
        merged = next((n for n in range(FULL_GROUP // channels, 1, -1) if groups % n == 0), 1)
        if merged == 1:
            continue
        # Filter k is the one of group k // (filters of a group), and reads its place among the merged.
        place = np.arange(len(levels)) // (len(levels) // groups) % merged
        wide = np.zeros((len(levels), merged, *levels.shape[1:]), levels.dtype)
        wide[np.arange(len(levels)), place] = levels
        wide = wide.reshape(len(levels), merged * channels, *levels.shape[2:])
        dequantise.replace_input_with(0, onnx_file.add_initializer(graph, f"{dequantise.name}_merged", wide))
        node.attributes["group"] = ir.AttrInt64("group", groups // merged)
    onnx_file.drop_unused_initializers(graph)


def integer_bias(graph: ir.Graph) -> None:
    """Quantise the bias of a Gemm between pairs: ONNX Runtime does that by itself for convolutions only.

    Without it the Gemm runs in float, and dequantises its weights in every run.
    """
    for node in [node for node in graph if node.op_type == "Gemm" and len(node.inputs) == 3]:
        one, other, bias = _scale(node.inputs[0]), _scale(node.inputs[1]), onnx_file.initializer_array(node.inputs[2])
        scale = None if one is None or other is None else one * other
        if scale is None or bias is None or bias.shape != scale.shape or not (np.abs(bias / scale) < 2**31 - 1).all():
            continue
        stored = onnx_file.add_initializer(graph, f"{node.name}_bias_int32", np.rint(bias / scale).astype(np.int32))
        operand = onnx_file.add_initializer(graph, f"{node.name}_bias_scale", scale)
        dequantise = ir.node("DequantizeLinear", [stored, operand], {"axis": 0}, name=f"{node.name}_bias")
        dequantise.outputs[0].name = f"{node.name}_bias"
        dequantise.outputs[0].type = ir.TensorType(ir.DataType.FLOAT)
        node.replace_input_with(2, dequantise.outputs[0])
        graph.insert_before(node, dequantise)
    onnx_file.drop_unused_initializers(graph)


def _scale(value: ir.Value | None) -> NDArray[np.float32] | None:
    maker = value.producer() if value is not None else None
    return (
        onnx_file.initializer_array(maker.inputs[1])
        if maker is not None and maker.op_type == "DequantizeLinear"
        else None
    )


def _in_integers(conv: ir.Node) -> bool:
    """Whether ONNX Runtime will compute ``conv`` in integers, with symmetric weights that no other node reads."""
    makers = [value.producer() if value is not None else None for value in conv.inputs[:2]]
    if any(maker is None or maker.op_type != "DequantizeLinear" for maker in makers):
        return False
    levels, zero = (onnx_file.initializer_array(makers[1].inputs[index]) for index in (0, 2))  # type: ignore[union-attr]
    readers = [use.node for use in conv.outputs[0].uses()]
    after = [use.node for node in readers if node.op_type == "Relu" for use in node.outputs[0].uses()] or readers
    alone = levels is not None and zero is not None and not zero.any() and len(conv.inputs[1].uses()) == 1  # type: ignore[union-attr]
    return alone and all(node.op_type == "QuantizeLinear" for node in after)
