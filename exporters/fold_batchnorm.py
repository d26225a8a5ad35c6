"""What scales and shifts the answers of a convolution or linear layer goes into its weights, computed in float64.

That is a BatchNormalization, and a Mul, Div, Add or Sub by a constant a channel, as Caffe's Scale behind its BatchNorm
and the affine layers of dlib are written. Each layer is rounded to float32 once, whatever it takes in.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from exporters import onnx_file
from exporters.constant import Memo, evaluate_constant
from exporters.linear_layer import AFFINE, as_stored, computed_operand, layer_of, take_behind
from exporters.node_attributes import attributes

if TYPE_CHECKING:
    from pathlib import Path

    import onnx_ir as ir
    from numpy.typing import NDArray

    from exporters.linear_layer import LinearLayer

FOLDABLE = ("Conv", "Gemm")
NORM = "BatchNormalization"


def fold_batchnorm(src: Path, dst: Path) -> str:
    """Write ``src`` with every Conv or Gemm and what scales and shifts its answers as one node.

    Raises ValueError where a folded weight or bias is no finite float32. In inference a BatchNormalization is
    y = gamma (conv(x) - mean) / sqrt(var + eps) + beta (Ioffe and Szegedy 2015, arXiv 1502.03167, algorithm 2), so
    with g = gamma / sqrt(var + eps) the folded weight is g W and the folded bias g (b - mean) + beta.
    """
    model = onnx_file.read(src)
    before = _counts(model)
    # All are computed before any is folded: what was rounded is not rounded again.
    memo = Memo()
    layers = [_folded(node, memo) for node in model.graph if node.op_type in FOLDABLE]
    for layer in layers:
        if layer is not None and layer.taken_in:
            _fold(model.graph, layer)
    onnx_file.drop_unread(model.graph)
    onnx_file.write(model, dst)

    after = _counts(model)
    changed = [operator for operator in before if operator == NORM or before[operator] != after[operator]]
    return ", ".join(f"{operator} {before[operator]} → {after[operator]}" for operator in changed)


def _counts(model: ir.Model) -> dict[str, int]:
    """How many nodes there are of each operator that can be folded."""
    return {operator: onnx_file.count(model, operator) for operator in (NORM, *sorted(AFFINE - {NORM}))}


def obstacle(norm: ir.Node) -> str | None:
    """Why the BatchNormalization ``norm`` cannot be folded into what stands before it; None where it can."""
    value = norm.inputs[0]
    before = value.producer() if value is not None else None
    layer = _layer_before(norm)
    if value is None or before is None or layer is None:
        name = before.op_type if before is not None else "the input"
        return f"{name} stands before it, not one of {', '.join(FOLDABLE)}"
    folded = _folded(layer, Memo())
    if folded is not None and norm in folded.taken_in:
        return None
    return _obstacle_behind(layer, norm, value)


def _obstacle_behind(layer: ir.Node, norm: ir.Node, value: ir.Value) -> str:
    """Why ``norm``, which reads ``value``, is not folded into ``layer``."""
    before = value.producer()
    assert before is not None
    # Other readers would get the normalised answer in place of the layer's own.
    if _only_reader(value) is None:
        return f"the output of {_name(before)} is also read elsewhere"

    # In training mode it normalises by the statistics of the batch, which are no constants.
    if "training_mode" in norm.attributes and norm.attributes["training_mode"].as_int() != 0:
        return "it is in training mode"

    if layer.op_type == "Gemm" and not _is_linear_layer(layer):
        return "its Gemm scales or turns its operands"
    if before is not layer:
        return f"{_name(before)} stands before it, which cannot be folded either"
    return "its numbers are computed, not constants"


def _layer_before(norm: ir.Node) -> ir.Node | None:
    """The Conv or Gemm whose answers ``norm`` reads, scaled and shifted at most; None where there is none."""
    value = norm.inputs[0]
    node = value.producer() if value is not None else None
    while node is not None and node.op_type in AFFINE - {NORM}:
        value = computed_operand(node, Memo())
        node = value.producer() if value is not None else None
    return node if node is not None and node.op_type in FOLDABLE else None


def _is_linear_layer(gemm: ir.Node) -> bool:
    """Whether ``gemm`` is x W + b, with W stored either way round and no factors."""
    settings = attributes(gemm)
    return bool(settings["alpha"] == settings["beta"] == 1.0 and settings["transA"] == 0)


def _folded(node: ir.Node, memo: Memo) -> LinearLayer | None:
    """``node`` with all that can be folded into it; None where it is no layer of constant weights."""
    if node.op_type == "Gemm" and not _is_linear_layer(node):
        return None
    if not all(_is_plain(value, memo) for value in node.inputs[1:]):
        return None
    layer = layer_of(node, memo)
    follower = None if layer is None else _only_reader(node.outputs[0])
    while layer is not None and follower is not None and _may_follow(layer, follower, memo):
        if not take_behind(layer, follower, memo):
            break
        layer.taken_in.append(follower)
        follower = _only_reader(follower.outputs[0])
    return layer


def _may_follow(layer: LinearLayer, node: ir.Node, memo: Memo) -> bool:
    """Whether ``node`` is one to fold: of several BatchNormalizations behind one layer only the first is."""
    if node.op_type not in AFFINE or node.domain != "":
        return False
    if node.op_type == NORM:
        is_first = all(taken.op_type != NORM for taken in layer.taken_in)
        return is_first and all(_is_plain(value, memo) for value in node.inputs[1:])
    operand = computed_operand(node, memo)
    return all(value is operand or _is_plain(value, memo) for value in node.inputs)


def _only_reader(value: ir.Value) -> ir.Node | None:
    """The one node that reads ``value``; None where others would get the folded answer in place of the layer's own."""
    readers = list(value.consumers())
    return readers[0] if len(value.uses()) == 1 and not value.is_graph_output() else None


def _is_plain(value: ir.Value | None, memo: Memo) -> bool:
    """Whether the numbers of ``value`` can be folded within one rounding: runtimes round computed ones as they like."""
    if value is None:
        return True
    constant = evaluate_constant(value, memo)
    return constant is not None and constant.exact and constant.quantised is None


def _fold(graph: ir.Graph, layer: LinearLayer) -> None:
    """Put what ``layer`` took in into its node, in place; raises ValueError where that is no finite float32."""
    node = layer.node
    module = onnx_file.module_of(node)
    weight, bias = _rounded(layer)
    if layer.has_bias:
        node.resize_inputs(3)  # a layer without bias gets one
        node.replace_input_with(2, _add_initializer(graph, f"{module}.bias", bias))
    node.replace_input_with(1, _add_initializer(graph, f"{module}.weight", weight))

    # The tensor keeps the name it had behind the last of them: one name always means the same values.
    answer = layer.taken_in[-1].outputs[0]
    name = answer.name
    answer.replace_all_uses_with(node.outputs[0], replace_graph_outputs=True)
    for taken in reversed(layer.taken_in):
        graph.remove(taken, safe=True)
    node.outputs[0].name = name


def _rounded(layer: LinearLayer) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Weight as it is stored and bias, float32; raises ValueError where one is not finite."""
    stored = evaluate_constant(layer.node.inputs[1])
    assert stored is not None
    exact = as_stored(layer.node, layer.weight, stored.shape)
    assert exact is not None
    with np.errstate(all="ignore"):  # what overflows is refused below, with its names
        weight = exact.astype(np.float32)
        bias = layer.bias.astype(np.float32)
    if not np.isfinite(weight).all() or not np.isfinite(bias).all():
        names = " and ".join(_name(taken) for taken in layer.taken_in)
        raise ValueError(
            f"folding {names} into {_name(layer.node)} gives weights that are no finite float32"
            f"{_smallest_variance(layer)}; train it on, or drop channels that are always 0"
        )
    return weight, bias


def _smallest_variance(layer: LinearLayer) -> str:
    """What a BatchNormalization divided by, in words; empty where none was taken in."""
    for norm in layer.taken_in:
        if norm.op_type == NORM:
            variance = evaluate_constant(norm.inputs[4])
            assert variance is not None
            return (
                f": its smallest variance is {variance.values.min():g} and its epsilon {attributes(norm)['epsilon']:g}"
            )
    return ""


def _name(node: ir.Node) -> str:
    return onnx_file.module_of(node) or str(node.name)


def _add_initializer(graph: ir.Graph, name: str, array: NDArray[np.float32]) -> ir.Value:
    """A float32 initializer under the module's name; the unfolded one may still be read by a twin."""
    old = graph.initializers.pop(name, None)
    if old is not None:
        old.name = f"{name}.unfolded"
        graph.register_initializer(old)
    return onnx_file.add_initializer(graph, name, array)
