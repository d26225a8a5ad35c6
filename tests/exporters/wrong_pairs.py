"""Wrong pairs of Q and DQ, of activations and of weights.

Each changes a model in place, at a place that the generator picks, or raises Absent where the model has no such place.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import graph_edits as edit
import numpy as np
from chains import arithmetic, linked
from graph_edits import INT_RANGES, Absent, as_type, change_constant, numpy_type, pick
from onnx import TensorProto, helper

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.random import Generator
    from onnx import ModelProto, NodeProto

    Change = Callable[[ModelProto, Generator], None]
    ArrayChange = Callable[[np.ndarray], np.ndarray]


def pair_inserted(scale: float, zero_point: Any, **attributes: Any) -> Change:
    """A new pair on an activation."""

    def plant(model: ModelProto, generator: Generator) -> None:
        types = edit.float_types(model)
        float32 = [name for name in edit.activations(model) if types[name] == TensorProto.FLOAT]
        tensor = pick(generator, float32)
        operands = [edit.constant(model, np.float32(scale)), edit.constant(model, zero_point)]
        level = "~levels"
        chain = [
            helper.make_node("QuantizeLinear", ["<", *operands], [level], **attributes),
            helper.make_node("DequantizeLinear", [level, *operands], [">"]),
        ]
        edit.insert_behind(model, tensor, chain)

    return plant


def pair_on_weight(scale: float) -> Change:
    """A new pair on a float weight, with one scale that suits nothing."""

    def plant(model: ModelProto, generator: Generator) -> None:
        layer = pick(generator, edit.layers(model, "Conv", "Gemm"))
        if edit.numbers(model, edit.weight_of(model, layer)).dtype != np.float32:
            raise Absent
        operands = [edit.constant(model, np.float32(scale)), edit.constant(model, np.int8(0))]
        chain = [
            helper.make_node("QuantizeLinear", ["<", *operands], ["~levels"]),
            helper.make_node("DequantizeLinear", ["~levels", *operands], [">"]),
        ]
        edit.insert_before(model, layer, 1, chain)

    return plant


def activation_scale(change: ArrayChange, *, quantise: bool, dequantise: bool) -> Change:
    """The scale of one half, or of both halves, of an activation's pair."""

    def plant(model: ModelProto, generator: Generator) -> None:
        pair = pick(generator, edit.activation_pairs(model))
        held = edit.numbers(model, pair[0].input[1])
        changed = edit.constant(model, np.asarray(change(held.astype(np.float64))).astype(held.dtype))
        for node, wanted in zip(pair, (quantise, dequantise), strict=True):
            if wanted:
                node.input[1] = changed

    return plant


def scale_of_another_pair(*, both: bool) -> Change:
    def plant(model: ModelProto, generator: Generator) -> None:
        pairs = edit.activation_pairs(model)
        one = pick(generator, pairs)
        held = edit.numbers(model, one[0].input[1])
        names = {pair[0].input[1] for pair in pairs}
        other = pick(generator, sorted(name for name in names if edit.numbers(model, name) != held))
        one[1].input[1] = other
        if both:
            one[0].input[1] = other

    return plant


def activation_zero_point(shift: int, *, quantise: bool, dequantise: bool) -> Change:
    def plant(model: ModelProto, generator: Generator) -> None:
        pair = pick(generator, edit.activation_pairs(model))
        held = edit.numbers(model, pair[0].input[2])
        if held.dtype.kind not in INT_RANGES:
            raise Absent
        changed = edit.constant(model, as_type(held.astype(np.float64) + shift, held.dtype))
        for node, wanted in zip(pair, (quantise, dequantise), strict=True):
            if wanted:
                node.input[2] = changed

    return plant


def activation_type(new: np.generic, *olds: np.generic) -> Change:
    """Both halves under another zero point of another type, the scale as it was."""

    def plant(model: ModelProto, generator: Generator) -> None:
        candidates = []
        for pair in edit.activation_pairs(model):
            held = edit.numbers(model, pair[0].input[2])
            if any(held.dtype == old.dtype and held == old for old in olds):
                candidates.append(pair)
        pair = pick(generator, candidates)
        changed = edit.constant(model, new)
        for node in pair:
            node.input[2] = changed

    return plant


def cuts_what_is_negative(model: ModelProto, generator: Generator) -> None:
    """UINT8 with zero point 0 and the scale of INT8 on a pair that does not stand behind a ReLU."""
    made_by = edit.producers(model)
    candidates = []
    for pair in edit.activation_pairs(model):
        producer = made_by.get(pair[0].input[0])
        if producer is not None and producer.op_type in {"Conv", "Div", "Add", "Gemm"}:
            candidates.append(pair)
    pair = pick(generator, candidates)
    if edit.numbers(model, pair[0].input[2]).dtype.kind not in INT_RANGES:
        raise Absent
    changed = edit.constant(model, np.uint8(0))
    for node in pair:
        node.input[2] = changed


def zero_point_omitted(model: ModelProto, generator: Generator) -> None:
    """Both halves without a zero point: the levels become UINT8, and what is negative is cut off."""
    pair = pick(generator, edit.activation_pairs(model))
    for node in pair:
        del node.input[2:]


def e4m3_pairs(model: ModelProto) -> list[tuple[NodeProto, NodeProto]]:
    """The pairs of activations in FP8."""
    held = edit.initializers(model)
    pairs = edit.activation_pairs(model)
    return [pair for pair in pairs if held[pair[0].input[2]].data_type == TensorProto.FLOAT8E4M3FN]


def small_float(dtype: int) -> Change:
    """FP8 of another kind in both halves of an activation's pair."""

    def plant(model: ModelProto, generator: Generator) -> None:
        pair = pick(generator, e4m3_pairs(model))
        name = edit.fresh(model, "planted_zero")
        model.graph.initializer.append(helper.make_tensor(name, dtype, [], [0.0]))
        for node in pair:
            node.input[2] = name

    return plant


def not_saturating(model: ModelProto, generator: Generator) -> None:
    """What lies beyond the range of FP8 becomes NaN."""
    del generator
    # The images themselves, which can be brighter than those that gave the scale.
    for quantise, _ in e4m3_pairs(model)[:1]:
        edit.tell(quantise, "saturate", 0)
        return
    raise Absent


def channelwise(model: ModelProto, quantise: NodeProto, dequantise: NodeProto, axes: tuple[int, int]) -> None:
    """A pair with one scale a channel, along ``axes`` of Q and of DQ."""
    scale = edit.numbers(model, quantise.input[1])
    zero_point = edit.numbers(model, quantise.input[2])
    size = edit.shapes(model)[quantise.input[0]][1]
    factors = np.exp2(np.arange(size) % 4)
    scales = edit.constant(model, (scale * factors).astype(scale.dtype))
    zeros = edit.constant(model, np.full(size, zero_point, zero_point.dtype))
    for node, axis in zip((quantise, dequantise), axes, strict=True):
        node.input[1] = scales
        node.input[2] = zeros
        edit.tell(node, "axis", axis)


def axes_of_pair(axis_of_quantise: int, axis_of_dequantise: int) -> Change:
    """A pair with one scale a channel whose halves count the channels along different axes."""

    def plant(model: ModelProto, generator: Generator) -> None:
        shapes = edit.shapes(model)
        squares = []
        for pair in edit.activation_pairs(model):
            shape = shapes.get(pair[0].input[0], ())
            if len(shape) == 4 and shape[1] == shape[2] == shape[3] and edit.numbers(model, pair[0].input[1]).ndim == 0:
                squares.append(pair)
        pair = pick(generator, squares)
        channelwise(model, *pair, (axis_of_quantise, axis_of_dequantise))

    return plant


def weight_scale(change: ArrayChange) -> Change:
    def plant(model: ModelProto, generator: Generator) -> None:
        names = [dequantise.input[1] for _, dequantise in edit.weight_dequantisers(model)]
        edit.first(generator, names, lambda name: change_constant(model, name, change))

    return plant


def weight_scale_of_one_half(change: ArrayChange) -> Change:
    """The scale of the DQ alone, where the weight is quantised in the graph."""

    def plant(model: ModelProto, generator: Generator) -> None:
        made_by = edit.producers(model)
        halves = []
        for _, dequantise in edit.weight_dequantisers(model):
            if dequantise.input[0] in made_by:
                halves.append(dequantise)
        dequantise = pick(generator, halves)
        held = edit.numbers(model, dequantise.input[1])
        dequantise.input[1] = edit.constant(model, change(held.astype(np.float64)).astype(held.dtype))

    return plant


def weight_pair_axis(axis: int, *, quantise: bool, dequantise: bool) -> Change:
    """Another axis in the pair, or in a half of the pair, of a weight that has as many inputs as outputs."""

    def plant(model: ModelProto, generator: Generator) -> None:
        made_by = edit.producers(model)
        candidates = []
        for layer, node in edit.weight_dequantisers(model):
            shape = edit.numbers(model, edit.weight_of(model, layer)).shape
            if shape[0] == shape[1]:
                candidates.append(node)
        node = pick(generator, candidates)
        before = made_by.get(node.input[0])
        if quantise and before is None:
            raise Absent
        if dequantise:
            edit.tell(node, "axis", axis)
        if quantise and before is not None:
            edit.tell(before, "axis", axis)

    return plant


def unsigned_weight_pair(model: ModelProto, generator: Generator) -> None:
    """A float weight behind Q and DQ of UINT8 with zero point 0: what is negative is cut off."""
    made_by = edit.producers(model)
    halves = []
    for _, dequantise in edit.weight_dequantisers(model):
        quantise = made_by.get(dequantise.input[0])
        if quantise is not None:
            halves.append((quantise, dequantise))
    pair = pick(generator, halves)
    zeros = edit.constant(model, np.zeros_like(edit.numbers(model, pair[0].input[2]), np.uint8))
    for node in pair:
        node.input[2] = zeros


def levels_as_numbers(model: ModelProto, generator: Generator) -> None:
    """The levels themselves as the weight, without their scale."""
    types = edit.float_types(model)
    layer, dequantise = pick(generator, edit.weight_dequantisers(model))
    levels = edit.numbers(model, edit.weight_of(model, layer)).astype(np.float64)
    layer.input[1] = edit.constant(model, levels.astype(numpy_type(types[dequantise.output[0]])))
    edit.drop_unused(model)


def levels_behind_cast(scale: float) -> Change:
    """The levels behind a Cast, times one scale that suits nothing; 1 for no scale at all."""

    def plant(model: ModelProto, generator: Generator) -> None:
        types = edit.float_types(model)
        layer, dequantise = pick(generator, edit.weight_dequantisers(model))
        if dequantise.input[0] not in edit.initializers(model):
            raise Absent
        kind = types[dequantise.output[0]]
        cast = helper.make_node("Cast", [dequantise.input[0]], ["planted numbers"], "planted/Cast", to=kind)
        factor = edit.constant(model, np.asarray(scale, numpy_type(kind)))
        scaled = helper.make_node("Mul", ["planted numbers", factor], ["planted weight"], "planted/Mul")
        layer.input[1] = "planted weight"
        model.graph.node.extend([cast, scaled])
        edit.sort(model)
        edit.drop_unused(model)

    return plant


def whole_numbers_behind_cast(model: ModelProto, generator: Generator) -> None:
    """A float weight replaced by whole numbers, a Cast, and a DequantizeLinear-like scale that is too large."""
    layer = pick(generator, edit.layers(model, "Conv", "Gemm"))
    name = edit.weight_of(model, layer)
    array = edit.numbers(model, name)
    if array.dtype.kind != "f" or name != layer.input[1]:
        raise Absent
    scale = np.asarray(np.abs(array).max() / 3, array.dtype)
    levels = edit.constant(model, np.rint(array / scale).astype(np.int8))
    kind = helper.np_dtype_to_tensor_dtype(array.dtype)
    cast = helper.make_node("Cast", [levels], ["planted numbers"], "planted/Cast", to=kind)
    factor = edit.constant(model, scale)
    scaled = helper.make_node("Mul", ["planted numbers", factor], ["planted weight"], "planted/Mul")
    layer.input[1] = "planted weight"
    model.graph.node.extend([cast, scaled])
    edit.sort(model)


def coarse_levels(model: ModelProto, generator: Generator) -> None:
    """A float weight replaced by INT8 levels under a scale of its own that is far too large."""
    layer = pick(generator, edit.layers(model, "Conv", "Gemm"))
    name = edit.weight_of(model, layer)
    array = edit.numbers(model, name)
    if array.dtype != np.float32 or name != layer.input[1]:
        raise Absent
    scale = np.float32(np.abs(array).max() / 5)
    operands = [edit.constant(model, np.rint(array / scale).astype(np.int8)), edit.constant(model, scale)]
    layer.input[1] = "planted weight"
    node = helper.make_node("DequantizeLinear", operands, ["planted weight"], "planted/DequantizeLinear")
    model.graph.node.insert(0, node)


def fine_levels(model: ModelProto, generator: Generator) -> None:
    """A float weight replaced by the nearest INT8 levels: what only a stage that quantises may do."""
    layer = pick(generator, edit.layers(model, "Conv", "Gemm"))
    name = edit.weight_of(model, layer)
    array = edit.numbers(model, name)
    if array.dtype != np.float32 or name != layer.input[1]:
        raise Absent
    scale = np.float32(np.abs(array).max() / 127)
    operands = [edit.constant(model, np.rint(array / scale).astype(np.int8)), edit.constant(model, scale)]
    layer.input[1] = "planted weight"
    node = helper.make_node("DequantizeLinear", operands, ["planted weight"], "planted/DequantizeLinear")
    model.graph.node.insert(0, node)


def cast_behind_dequantise(model: ModelProto, generator: Generator) -> None:
    """The weight of one layer through another type, under scales eight times as large."""
    layer, dequantise = pick(generator, edit.weight_dequantisers(model))
    held = edit.numbers(model, dequantise.input[1])
    kind = edit.float_types(model)[dequantise.output[0]]
    other = TensorProto.FLOAT if kind == TensorProto.FLOAT16 else TensorProto.FLOAT16
    # The scale has the other type, so that a Cast is needed.
    dequantise.input[1] = edit.constant(model, (held * 8).astype(numpy_type(other)))
    edit.insert_before(model, layer, 1, [helper.make_node("Cast", ["<"], [">"], to=kind)])
    if edit.opset(model) < 19:
        raise Absent


def scale_computed(model: ModelProto, generator: Generator) -> None:
    """The scale of an activation's DQ with a Mul in front."""
    _, dequantise = pick(generator, edit.activation_pairs(model))
    dtype = edit.numbers(model, dequantise.input[1]).dtype
    edit.insert_before(model, dequantise, 1, linked([arithmetic("Mul", 2)(model, np.zeros((), dtype))]))


def scale_of_both_computed(model: ModelProto, generator: Generator) -> None:
    """The scale of an activation's whole pair with a Mul in front."""
    quantise, dequantise = pick(generator, edit.activation_pairs(model))
    dtype = edit.numbers(model, dequantise.input[1]).dtype
    edit.insert_before(model, dequantise, 1, linked([arithmetic("Mul", 3)(model, np.zeros((), dtype))]))
    quantise.input[1] = dequantise.input[1]
    edit.sort(model)


def weight_scale_computed(model: ModelProto, generator: Generator) -> None:
    _, dequantise = pick(generator, edit.weight_dequantisers(model))
    dtype = edit.numbers(model, dequantise.input[1]).dtype
    edit.insert_before(model, dequantise, 1, linked([arithmetic("Mul", 2)(model, np.zeros((), dtype))]))


def pair_removed(model: ModelProto, generator: Generator) -> None:
    """An activation without the pair that it had."""
    quantise, dequantise = pick(generator, edit.activation_pairs(model))
    edit.bypass(model, dequantise)
    edit.bypass(model, quantise)
    edit.drop_unused(model)


def pair_passed_over(model: ModelProto, generator: Generator) -> None:
    """One reader of several reads what the pair reads."""
    quantise, dequantise = pick(generator, edit.activation_pairs(model))
    node, index = pick(generator, edit.readers(model, dequantise.output[0]))
    node.input[index] = quantise.input[0]
    edit.drop_unused(model)


def pair_of_another(model: ModelProto, generator: Generator) -> None:
    """A DQ reads the levels of another pair, of the same shape."""
    shapes = edit.shapes(model)
    position = {node.output[0]: place for place, node in enumerate(model.graph.node)}
    choices = []
    for quantise, dequantise in edit.activation_pairs(model):
        for other, _ in edit.activation_pairs(model):
            alike = shapes.get(other.input[0]) == shapes.get(quantise.input[0])
            if other is not quantise and alike and position[other.output[0]] < position[quantise.output[0]]:
                choices.append((dequantise, other))
    dequantise, other = pick(generator, choices)
    dequantise.input[0] = other.output[0]
    edit.drop_unused(model)


def requantised(model: ModelProto, generator: Generator) -> None:
    """A second pair behind the first, four times as coarse."""
    pair = pick(generator, edit.activation_pairs(model))
    held = edit.numbers(model, pair[0].input[1])
    operands = [edit.constant(model, (held * 4).astype(held.dtype)), pair[0].input[2]]
    chain = [
        helper.make_node("QuantizeLinear", ["<", *operands], ["~levels"]),
        helper.make_node("DequantizeLinear", ["~levels", *operands], [">"]),
    ]
    edit.insert_behind(model, pair[1].output[0], chain)


def blocked(model: ModelProto, generator: Generator) -> None:
    """A weight with a scale for every half of its inputs."""
    if edit.opset(model) < 21:
        edit.declare_opset(model, "", 21)
        model.ir_version = max(model.ir_version, 10)
    layer, dequantise = pick(generator, edit.weight_dequantisers(model))
    levels = edit.numbers(model, edit.weight_of(model, layer))
    if levels.shape[1] % 2 or layer.op_type != "Conv" or dequantise.input[0] not in edit.initializers(model):
        raise Absent
    held = edit.numbers(model, dequantise.input[1]).reshape(-1, 1, 1, 1)
    scales = np.broadcast_to(held, (levels.shape[0], 2, *levels.shape[2:])).copy()
    scales[:, 1] *= 2
    dequantise.input[1] = edit.constant(model, scales)
    dequantise.input[2] = edit.constant(model, np.zeros(scales.shape, levels.dtype))
    edit.tell(dequantise, "axis", 1)
    edit.tell(dequantise, "block_size", levels.shape[1] // 2)
