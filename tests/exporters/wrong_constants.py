"""Wrong constants: weights, biases, numbers of normalisations and operands, changed as a faulty tool could.

Each changes a model in place, at a place that the generator picks, or raises Absent where the model has no such place.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import graph_edits as edit
import numpy as np
from chains import linked
from graph_edits import Absent, as_type, change_constant, pick
from onnx import TensorProto, helper, numpy_helper

if TYPE_CHECKING:
    from collections.abc import Callable

    from chains import Link
    from numpy.random import Generator
    from onnx import ModelProto, NodeProto

    Change = Callable[[ModelProto, Generator], None]
    ArrayChange = Callable[[np.ndarray], np.ndarray]


def weight(change: ArrayChange, *operators: str) -> Change:
    """The weight, or the levels, of one layer."""

    def plant(model: ModelProto, generator: Generator) -> None:
        names = {edit.weight_of(model, layer): None for layer in edit.layers(model, *operators)}
        edit.first(generator, names, lambda name: change_constant(model, name, change))

    return plant


def largest(values: np.ndarray) -> tuple[int, ...]:
    """Where the largest magnitude stands: what is done there shows."""
    return tuple(int(index) for index in np.unravel_index(int(np.argmax(np.abs(values))), values.shape))


def at_largest(change: Callable[[float], float]) -> ArrayChange:
    def changed(values: np.ndarray) -> np.ndarray:
        place = largest(values)
        values[place] = change(values[place])
        return values

    return changed


def first_channel(change: Callable[[np.ndarray], np.ndarray]) -> ArrayChange:
    def changed(values: np.ndarray) -> np.ndarray:
        values[0] = change(values[0])
        return values

    return changed


def square_turned(values: np.ndarray) -> np.ndarray:
    """Outputs and inputs exchanged, where that has the same shape."""
    return np.swapaxes(values, 0, 1)


def other_order(values: np.ndarray) -> np.ndarray:
    """Read as if it were stored with the channels last."""
    return np.moveaxis(values.reshape(np.moveaxis(values, 1, -1).shape), -1, 1)


def groups_exchanged(values: np.ndarray) -> np.ndarray:
    return np.roll(values, len(values) // 2, 0)


def to_bfloat16(values: np.ndarray) -> np.ndarray:
    bits = values.astype(np.float32).view(np.uint32)
    return (bits & np.uint32(0xFFFF0000)).view(np.float32)


def bytes_turned(values: np.ndarray) -> np.ndarray:
    turned = values.astype(np.float32).byteswap()
    return np.nan_to_num(np.clip(turned, -1e3, 1e3))


def rounded_to(levels: int) -> ArrayChange:
    """As if it were quantised with so many levels a side."""

    def changed(values: np.ndarray) -> np.ndarray:
        scale = np.abs(values).max() / levels or 1
        return np.rint(values / scale) * scale

    return changed


def weights_exchanged(model: ModelProto, generator: Generator) -> None:
    """Two layers of the same shape, each with the weight of the other."""
    names = {edit.weight_of(model, layer) for layer in edit.layers(model)}
    shapes: dict[tuple[Any, ...], list[str]] = {}
    for name in sorted(names):
        held = edit.numbers(model, name)
        shapes.setdefault((held.shape, held.dtype.str), []).append(name)
    one, other = pick(generator, [alike[:2] for alike in shapes.values() if len(alike) > 1])
    held = edit.numbers(model, one)
    edit.put(model, one, edit.numbers(model, other))
    edit.put(model, other, held)


def reads_another_weight(model: ModelProto, generator: Generator) -> None:
    """One layer reads the weight of another one of the same shape."""
    by_shape: dict[tuple[int, ...], list[NodeProto]] = {}
    for layer in edit.layers(model, "Conv", "Gemm"):
        by_shape.setdefault(edit.numbers(model, edit.weight_of(model, layer)).shape, []).append(layer)
    one, other = pick(generator, [alike[:2] for alike in by_shape.values() if len(alike) > 1])
    if one.input[1] == other.input[1]:
        raise Absent
    one.input[1] = other.input[1]


def bias(change: ArrayChange) -> Change:
    def plant(model: ModelProto, generator: Generator) -> None:
        names = [layer.input[2] for layer in edit.with_bias(model)]
        edit.first(generator, names, lambda name: change_constant(model, name, change))

    return plant


def bias_lost(model: ModelProto, generator: Generator) -> None:
    layer = pick(generator, edit.with_bias(model))
    del layer.input[2:]


def bias_of_another(model: ModelProto, generator: Generator) -> None:
    by_size: dict[int, list[NodeProto]] = {}
    for layer in edit.with_bias(model):
        by_size.setdefault(edit.numbers(model, layer.input[2]).size, []).append(layer)
    one, other = pick(generator, [alike[:2] for alike in by_size.values() if len(alike) > 1])
    if one.input[2] == other.input[2]:
        raise Absent
    one.input[2] = other.input[2]


def bias_where_none_was(model: ModelProto, generator: Generator) -> None:
    layer = pick(generator, [node for node in edit.layers(model, "Conv") if len(node.input) == 2])
    held = edit.numbers(model, edit.weight_of(model, layer))
    layer.input.append(edit.constant(model, np.full(held.shape[0], 0.1, np.float32)))


def normalisation(place: int, change: ArrayChange) -> Change:
    def plant(model: ModelProto, generator: Generator) -> None:
        norm = pick(generator, edit.nodes(model, "BatchNormalization"))
        change_constant(model, norm.input[place], change)

    return plant


def normalisation_inputs_exchanged(one: int, other: int) -> Change:
    def plant(model: ModelProto, generator: Generator) -> None:
        norm = pick(generator, edit.nodes(model, "BatchNormalization"))
        norm.input[one], norm.input[other] = norm.input[other], norm.input[one]

    return plant


def normalisation_of_another(model: ModelProto, generator: Generator) -> None:
    by_size: dict[int, list[NodeProto]] = {}
    for norm in edit.nodes(model, "BatchNormalization"):
        by_size.setdefault(edit.numbers(model, norm.input[1]).size, []).append(norm)
    one, other = pick(generator, [alike[:2] for alike in by_size.values() if len(alike) > 1])
    place = int(generator.integers(1, 5))
    one.input[place], other.input[place] = other.input[place], one.input[place]


def in_training_mode(model: ModelProto, generator: Generator) -> None:
    norm = pick(generator, edit.nodes(model, "BatchNormalization"))
    edit.tell(norm, "training_mode", 1)
    for place in (3, 4):
        norm.output.append(edit.fresh(model, f"running{place}"))


def other_constant(change: ArrayChange) -> Change:
    """A constant operand of arithmetic on the activations: pixel statistics, slopes, factors, bounds."""

    def plant(model: ModelProto, generator: Generator) -> None:
        held = edit.initializers(model)
        names = []
        for node in edit.nodes(model, "Sub", "Div", "Mul", "Add", "PRelu", "Clip", "Pow"):
            names += [name for name in node.input if name in held]
        edit.first(generator, names, lambda name: change_constant(model, name, change))

    return plant


def constant_node(change: ArrayChange) -> Change:
    """A weight or bias written as a Constant node that holds something else."""

    def plant(model: ModelProto, generator: Generator) -> None:
        layer = pick(generator, edit.with_bias(model))
        name = layer.input[2]
        array = edit.numbers(model, name)
        changed = as_type(change(array.astype(np.float64)), array.dtype)
        target = edit.fresh(model, name)
        layer.input[2] = target
        value = numpy_helper.from_array(changed, target)
        model.graph.node.insert(
            0, helper.make_node("Constant", [], [target], edit.fresh(model, "Constant"), value=value)
        )

    return plant


def weight_through(*chain: Link) -> Change:
    """The weight of one layer goes through arithmetic that changes it, in front of whatever reads it."""

    def plant(model: ModelProto, generator: Generator) -> None:
        layer = pick(generator, edit.layers(model, "Conv", "Gemm"))
        name = edit.weight_of(model, layer)
        array = edit.numbers(model, name)
        if array.dtype.kind != "f":
            # Levels: behind their DequantizeLinear.
            array = np.zeros(array.shape, float_type_of_weight(model, layer))
            edit.insert_before(model, layer, 1, linked([make(model, array) for make in chain]))
            return
        reader = next(node for node in model.graph.node if name in node.input)
        place = list(reader.input).index(name)
        edit.insert_before(model, reader, place, linked([make(model, array) for make in chain]))

    return plant


def float_type_of_weight(model: ModelProto, layer: NodeProto) -> np.dtype[Any]:
    made_by = edit.producers(model)
    dequantise = made_by.get(layer.input[1])
    if dequantise is None or dequantise.op_type != "DequantizeLinear":
        raise Absent
    return edit.numbers(model, dequantise.input[1]).dtype


def turned(model: ModelProto, like: np.ndarray) -> NodeProto:
    """A Transpose that keeps the shape and moves what is in it."""
    del model
    order = list(range(like.ndim))
    if like.ndim == 4 and like.shape[2] == like.shape[3] > 1:
        order = [0, 1, 3, 2]
    elif like.shape[0] == like.shape[1]:
        order[:2] = [1, 0]
    else:
        raise Absent
    return helper.make_node("Transpose", ["<"], [">"], perm=order)


def gathered(model: ModelProto, like: np.ndarray) -> NodeProto:
    order = np.roll(np.arange(like.shape[0]), 1)
    return helper.make_node("Gather", ["<", edit.constant(model, order)], [">"], axis=0)


def random_noise(model: ModelProto, generator: Generator) -> None:
    """A weight with random numbers added: no constant, though it reads no input of the graph."""
    layer = pick(generator, edit.layers(model, "Conv", "Gemm"))
    shape = list(edit.numbers(model, edit.weight_of(model, layer)).shape)
    kind = helper.np_dtype_to_tensor_dtype(edit.numbers(model, edit.weight_of(model, layer)).dtype)
    noise = helper.make_node("RandomNormal", [], ["~noise"], shape=shape, scale=0.3, dtype=kind)
    add = helper.make_node("Add", ["<", "~noise"], [">"])
    edit.insert_before(model, layer, 1, [noise, add])


def scaled_by_the_images(model: ModelProto, generator: Generator) -> None:
    """A weight that depends on the images."""
    layer = pick(generator, edit.layers(model, "Conv", "Gemm"))
    if edit.numbers(model, edit.weight_of(model, layer)).dtype != np.float32:
        raise Absent
    images = model.graph.input[0]
    if images.type.tensor_type.elem_type != TensorProto.FLOAT:
        raise Absent
    largest_pixel = helper.make_node("ReduceMax", [images.name], ["~largest"], keepdims=0)
    share = helper.make_node("Div", ["~largest", edit.constant(model, np.float32(200))], ["~share"])
    scale = helper.make_node("Mul", ["<", "~share"], [">"])
    edit.insert_before(model, layer, 1, [largest_pixel, share, scale])


def halves_exchanged(model: ModelProto, generator: Generator) -> None:
    """A weight written as a Concat of its two halves, in the wrong order."""
    layer = pick(generator, edit.layers(model, "Conv", "Gemm"))
    name = edit.weight_of(model, layer)
    array = edit.numbers(model, name)
    half = len(array) // 2
    if array.dtype.kind != "f" or 2 * half != len(array):
        raise Absent
    first, second = edit.constant(model, array[:half]), edit.constant(model, array[half:])
    together = helper.make_node("Concat", [second, first], [">"], axis=0)
    reader = next(node for node in model.graph.node if name in node.input)
    edit.insert_before(model, reader, list(reader.input).index(name), [together])


def overridden_default(model: ModelProto, generator: Generator) -> None:
    """An initializer that is listed as an input, whose default is another one."""
    layer = pick(generator, edit.with_bias(model))
    name = layer.input[2]
    array = edit.numbers(model, name)
    edit.put(model, name, -array)
    kind = helper.np_dtype_to_tensor_dtype(array.dtype)
    model.graph.input.append(helper.make_tensor_value_info(name, kind, array.shape))
