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
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from numpy.typing import NDArray

FLOAT16_MAX = float(np.finfo(np.float16).max)  # 65504
# Images to come may reach further than those that were seen.
MARGIN = 2
# Rounding alone costs weights 2^-23 of their energy at most; what loses a hundred times more has lost bits.
LOST = 1e-5
FLOATS = {ir.DataType.FLOAT, ir.DataType.FLOAT16}
ELEMENTWISE = {"Sub", "Div", "Mul", "Add"}
PAIR = {"QuantizeLinear", "DequantizeLinear"}
WEIGHTED = {"Conv", "Gemm"}
OPSET = 19  # the first whose QuantizeLinear and DequantizeLinear take float16 scales
# A scale below the normal numbers keeps fewer bits, which costs less than any larger scale would: at 3e-5 a value is
# off by 0.1 % of itself, and by 100 % under the smallest normal number. Only 0 is no scale at all.
NORMAL, SMALLEST = np.finfo(np.float16).smallest_normal, np.finfo(np.float16).smallest_subnormal


def float16(src: Path, dst: Path, activation_max: Mapping[str, float]) -> str:
    """Write ``src`` in float16 to ``dst``, but what float16 does not hold: such nodes stay in float32, and are named.

    ``activation_max`` is the largest magnitude seen in each tensor on real images. Raises ValueError where a weight or
    an activation is no finite number.
    """
    model = onnx_file.read(src)
    entry = normalised(model.graph)
    before = {id(node) for node in _upstream(entry)}
    nodes = [node for node in model.graph if id(node) not in before]
    for value in [value for node in nodes if node.op_type != "QuantizeLinear" for value in node.outputs]:
        value.type = value.type or ir.TensorType(ir.DataType.FLOAT)
    kept = _kept(nodes, activation_max)
    narrow = [node for node in nodes if id(node) not in kept]
    _part_constants(model.graph, [node for node in nodes if id(node) in kept], narrow)
    weights = _float_constants(narrow)
    scales = [value for value in weights if any(node.op_type in PAIR for node in value.consumers())]
    work = _narrow_weights([value for value in weights if value not in scales])
    if scales:
        work += _narrow_scales(scales, model)
    for node in narrow:
        for output in node.outputs:
            if output.dtype == ir.DataType.FLOAT:
                output.type = ir.TensorType(ir.DataType.FLOAT16)
    _cast_between(model.graph, nodes, kept)
    _cast_out(model.graph)
    onnx_file.write(model, dst)
    return "; ".join([work, *_said(nodes, kept)])


def _kept(nodes: list[ir.Node], activation_max: Mapping[str, float]) -> dict[int, str]:
    """The nodes that stay in float32, by id, and why: empty for those that only stand beside such a node."""
    kept: dict[int, str] = {}
    for node in nodes:
        for reason in (_of_weights(node), *_of_activations(node, activation_max)):
            if reason:
                kept.setdefault(id(node), reason)
    while more := [node for node in nodes if id(node) not in kept and _goes_along(node, kept)]:
        kept.update({id(node): "" for node in more})
    return kept


def _of_weights(node: ir.Node) -> str:
    """Why the constants of ``node`` cannot be float16, or nothing."""
    if node.op_type in PAIR:
        return ""
    for value in _float_constants([node]):
        wide = _array(value).astype(np.float64)
        peak = float(np.abs(wide).max(initial=0))
        if not np.isfinite(peak):
            raise ValueError(f"the weights {value.name} are no finite numbers")
        if peak > FLOAT16_MAX:
            return f"weights reach {peak:.3g}"
        lost = float(np.sum((wide.astype(np.float16) - wide) ** 2))
        if lost > LOST * float(np.sum(wide**2)):
            return f"weights as low as {peak:.3g} at most lose their bits"
    return ""


def _of_activations(node: ir.Node, activation_max: Mapping[str, float]) -> Iterator[str]:
    """Why what ``node`` reads or answers cannot be float16."""
    if _constant(node):
        return
    computed = [value for value in (*node.inputs, *node.outputs) if value is not None and not _stored(value)]
    for name in [str(value.name) for value in computed if str(value.name) in activation_max]:
        peak = activation_max[name]
        if not np.isfinite(peak):
            module = onnx_file.module_of(node) or node.op_type
            raise ValueError(f"the activations of {module} ({node.op_type}) are no finite numbers")
        if peak > FLOAT16_MAX / MARGIN:
            yield f"activations reach {peak:.3g}"
        elif 0 < peak < NORMAL:
            yield f"activations reach no more than {peak:.3g}"


def _goes_along(node: ir.Node, kept: Mapping[int, str]) -> bool:
    """Whether a Cast would part ``node`` from its pair: a pair goes with its readers, a convolution with its pair."""
    readers = [reader for value in node.outputs for reader in value.consumers()]
    makers = [maker for value in node.inputs if value is not None and (maker := value.producer()) is not None]
    halves = [maker for maker in makers if maker.op_type in PAIR]
    if node.op_type in PAIR:
        weighted = [reader for reader in readers if reader.op_type in {*PAIR, *WEIGHTED}]
        return any(id(other) in kept for other in (*weighted, *halves))
    return node.op_type in WEIGHTED and any(id(half) in kept for half in halves)


def _constant(node: ir.Node) -> bool:
    """Whether all that ``node`` reads is constant, as of a dequantised weight."""
    return all(value is None or value.const_value is not None for value in node.inputs)


def _stored(value: ir.Value) -> bool:
    node = value.producer()
    return node is not None and _constant(node)


def _said(nodes: list[ir.Node], kept: Mapping[int, str]) -> Iterator[str]:
    reasons = {onnx_file.module_of(node) or node.op_type: kept[id(node)] for node in nodes if kept.get(id(node))}
    if reasons:
        yield "float32 kept: " + ", ".join(f"{module} ({reason})" for module, reason in reasons.items())


def normalised(graph: ir.Graph) -> ir.Value:
    """The network's input after the pixel arithmetic at its head, which stays float32 to keep the pixels exact."""
    value = graph.inputs[0]
    while True:
        consumers = list(value.consumers())
        if len(consumers) != 1 or consumers[0].op_type not in ELEMENTWISE:
            return value
        others = [other for other in consumers[0].inputs if other is not value]
        if any(onnx_file.initializer_array(other) is None for other in others):
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


def _array(value: ir.Value) -> NDArray[np.float32]:
    array = onnx_file.initializer_array(value)
    assert array is not None
    return array


def _narrow_weights(weights: list[ir.Value]) -> str:
    vanished = sum(_narrow(value) for value in weights)
    return f"{len(weights)} weight tensors in float16, {vanished} weights too small for it became 0"


def _narrow_scales(scales: list[ir.Value], model: ir.Model) -> str:
    coarse = sum(int(np.count_nonzero(_array(value) < NORMAL)) for value in scales)
    raised = sum(_narrow(value, SMALLEST) for value in scales)
    onnx_file.raise_opset(model, OPSET)
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


def _part_constants(graph: ir.Graph, kept: list[ir.Node], narrow: list[ir.Node]) -> None:
    """Give every node that is kept a constant of its own where a node in float16 reads the same."""
    shared = {str(value.name) for value in _float_constants(narrow)}
    for value in [value for value in _float_constants(kept) if str(value.name) in shared]:
        copy = onnx_file.add_initializer(graph, f"{value.name}_float32", _array(value))
        for node in kept:
            for index in [index for index, each in enumerate(node.inputs) if each is value]:
                node.replace_input_with(index, copy)


def _cast_between(graph: ir.Graph, nodes: list[ir.Node], kept: Mapping[int, str]) -> None:
    """One Cast for all readers of a tensor that want the other type."""
    casts: dict[tuple[str, ir.DataType], ir.Value] = {}
    for node in nodes:
        wanted = ir.DataType.FLOAT if id(node) in kept else ir.DataType.FLOAT16
        for index, value in enumerate(node.inputs):
            if value is None or value.const_value is not None or value.dtype not in FLOATS or value.dtype == wanted:
                continue
            key = (str(value.name), wanted)
            if key not in casts:
                casts[key] = _cast(graph, value, wanted, f"{value.name}_{wanted.name.lower()}").outputs[0]
            node.replace_input_with(index, casts[key])


def _cast_out(graph: ir.Graph) -> None:
    for index, inner in enumerate(graph.outputs):
        if inner.dtype == ir.DataType.FLOAT:
            continue
        name = str(inner.name)
        inner.name = f"{name}_float16"
        graph.outputs[index] = _cast(graph, inner, ir.DataType.FLOAT, name).outputs[0]
