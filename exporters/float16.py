"""Float32 graph to float16: weights, activations and arithmetic; pixels in and logits out stay float32.

Of an INT8 graph the rest: scales, biases and everything between Q/DQ pairs; the levels stay as they are. TensorRT with
strong typing computes what stands around a convolution in the type that its DequantizeLinear gives, and that is the
type of the scale.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from exporters import onnx_file

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

FLOAT16_MAX = float(np.finfo(np.float16).max)  # 65504
ELEMENTWISE = {"Sub", "Div", "Mul", "Add"}
PAIR = {"QuantizeLinear", "DequantizeLinear"}
# The first opset whose QuantizeLinear and DequantizeLinear take float16 scales, and the IR version it came with.
OPSET, IR_VERSION = 19, 9
# A scale below the normal numbers keeps fewer bits, which costs less than any larger scale would: at 3e-5 a value is
# off by 0.1 % of itself, and by 100 % under the smallest normal number. Only 0 is no scale at all.
NORMAL, SMALLEST = np.finfo(np.float16).smallest_normal, np.finfo(np.float16).smallest_subnormal


def float16(src: Path, dst: Path, activation_max: Mapping[str, float]) -> str:
    """Write ``src`` in float16 to ``dst``.

    ``activation_max`` is the largest magnitude seen in each tensor on real images. Raises ValueError naming every
    weight or activation beyond 65504, which float16 would turn into infinity.
    """
    model = onnx_file.read(src)
    entry = normalised(model.graph)
    before = {id(node) for node in _upstream(entry)}
    nodes = [node for node in model.graph if id(node) not in before]
    weights = _float_constants(nodes)
    _refuse_overflow(weights, nodes, activation_max)
    scales = [value for value in weights if any(node.op_type in PAIR for node in value.consumers())]
    work = _narrow_weights([value for value in weights if value not in scales])
    if scales:
        work += _narrow_scales(scales, model)
    for node in nodes:
        for output in node.outputs:
            if output.dtype == ir.DataType.FLOAT:
                output.type = ir.TensorType(ir.DataType.FLOAT16)
    _cast_in(model.graph, entry, nodes)
    _cast_out(model.graph)
    onnx_file.write(model, dst)
    return work


def normalised(graph: ir.Graph) -> ir.Value:
    """The network's input after the pixel arithmetic at its head, which stays float32 to keep the pixels exact."""
    value = graph.inputs[0]
    while True:
        consumers = list(value.consumers())
        if len(consumers) != 1 or consumers[0].op_type not in ELEMENTWISE:
            return value
        others = [other for other in consumers[0].inputs if other is not value]
        if any(onnx_file.weight(other) is None for other in others):
            return value
        value = consumers[0].outputs[0]


def _upstream(value: ir.Value) -> list[ir.Node]:
    nodes = []
    while (node := value.producer()) is not None:
        nodes.append(node)
        computed = [source for source in node.inputs if source is not None and source.const_value is None]
        value = computed[0]
    return nodes


def _float_constants(nodes: list[ir.Node]) -> list[ir.Value]:
    found: dict[str, ir.Value] = {}
    for node in nodes:
        for value in node.inputs:
            if value is not None and value.const_value is not None and value.dtype == ir.DataType.FLOAT:
                found[str(value.name)] = value
    return list(found.values())


def _refuse_overflow(weights: list[ir.Value], nodes: list[ir.Node], activation_max: Mapping[str, float]) -> None:
    peaks = [(f"weights {value.name}", float(np.abs(_array(value)).max(initial=0))) for value in weights]
    peaks += [
        (f"activations of {onnx_file.module_of(node) or node.op_type} ({node.op_type})", activation_max[str(out.name)])
        for node in nodes
        for out in node.outputs
        if str(out.name) in activation_max
    ]
    over = [f"{name} reach {peak:.6g}" for name, peak in peaks if not peak <= FLOAT16_MAX]
    if over:
        more = f" and {len(over) - 3} more" if len(over) > 3 else ""
        raise ValueError(
            f"float16 ends at {FLOAT16_MAX:.0f} but {'; '.join(over[:3])}{more}; "
            "build with --precision int8 or fp32, or rescale these layers"
        )


def _array(value: ir.Value) -> NDArray[np.float32]:
    array = onnx_file.weight(value)
    assert array is not None
    return array


def _narrow_weights(weights: list[ir.Value]) -> str:
    vanished = sum(_narrow(value) for value in weights)
    return f"{len(weights)} weight tensors in float16, {vanished} weights too small for it became 0"


def _narrow_scales(scales: list[ir.Value], model: ir.Model) -> str:
    coarse = sum(int(np.count_nonzero(_array(value) < NORMAL)) for value in scales)
    raised = sum(_narrow(value, SMALLEST) for value in scales)
    model.graph.opset_imports[""] = max(OPSET, model.graph.opset_imports[""])
    model.ir_version = max(IR_VERSION, model.ir_version)
    count = sum(_array(value).size for value in scales)
    return f"; of {count} scales {coarse} lie below {NORMAL:.2g} and lose bits, {raised} rose to {SMALLEST:.2g}"


def _narrow(value: ir.Value, least: np.float16 | float = 0.0) -> int:
    """Round ``value`` to float16, and to ``least`` what would vanish; how many values that are."""
    wide = _array(value)
    narrow = wide.astype(np.float16)
    gone = (narrow == 0) & (wide != 0)
    narrow = np.where(gone, np.float16(least), narrow)
    value.const_value = ir.tensor(narrow, name=value.name)
    value.type = ir.TensorType(ir.DataType.FLOAT16)
    return int(np.count_nonzero(gone))


def _cast(graph: ir.Graph, value: ir.Value, to: ir.DataType, name: str) -> ir.Node:
    node = ir.node("Cast", [value], {"to": int(to)}, name=f"{name}/Cast")
    node.outputs[0].name = name
    node.outputs[0].type = ir.TensorType(to)
    node.outputs[0].shape = value.shape
    graph.append(node)
    return node


def _cast_in(graph: ir.Graph, entry: ir.Value, nodes: list[ir.Node]) -> None:
    cast = _cast(graph, entry, ir.DataType.FLOAT16, f"{entry.name}_float16")
    for node in nodes:
        for index, value in enumerate(node.inputs):
            if value is entry:
                node.replace_input_with(index, cast.outputs[0])


def _cast_out(graph: ir.Graph) -> None:
    for index, inner in enumerate(graph.outputs):
        name = str(inner.name)
        inner.name = f"{name}_float16"
        graph.outputs[index] = _cast(graph, inner, ir.DataType.FLOAT, name).outputs[0]
