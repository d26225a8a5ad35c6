"""Kinds of wrong files: what a faulty tool could write in the place of an honest file.

Each changes a model in place, at a place that the generator picks, or raises Absent where the model has no such place.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import graph_edits as edit
import numpy as np
import onnx
from graph_edits import Absent, pick
from onnx import TensorProto, helper, numpy_helper

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.random import Generator
    from onnx import ModelProto, NodeProto

    Change = Callable[[ModelProto, Generator], None]
    # It returns an honest file after of the changed file before, where that is not the one that was given.
    ChangeOfBoth = Callable[[ModelProto, ModelProto, Generator], ModelProto | None]
    ArrayChange = Callable[[np.ndarray], np.ndarray]

OWN = "own.operators"
# So many images the mutants are run on.
IMAGES = 6
INT_RANGES = {"i": (-128, 127), "u": (0, 255)}


def numpy_type(kind: int) -> np.dtype[Any]:
    return helper.tensor_dtype_to_np_dtype(kind)


def as_type(values: np.ndarray, dtype: np.dtype[Any]) -> np.ndarray:
    """``values`` rounded to ``dtype``, at the ends of whole numbers clipped."""
    if dtype.kind in INT_RANGES:
        values = np.clip(np.rint(values), *INT_RANGES[dtype.kind])
    return values.astype(dtype)


# --- constants --------------------------------------------------------------------------------------------------------


def change_constant(model: ModelProto, name: str, change: ArrayChange) -> None:
    held = edit.numbers(model, name)
    changed = as_type(np.asarray(change(held.astype(np.float64))), held.dtype)
    if changed.shape != held.shape or changed.tobytes() == held.tobytes():
        raise Absent
    edit.put(model, name, changed)


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
        model.graph.node.insert(0, helper.make_node("Constant", [], [target], edit.fresh(model, "Constant"), value=value))

    return plant


def weight_through(*chain: Callable[[ModelProto, np.ndarray], NodeProto]) -> Change:
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


def linked(chain: list[NodeProto]) -> list[NodeProto]:
    """The nodes one behind the other, from ``<`` to ``>``."""
    for place, node in enumerate(chain):
        node.input[0] = "<" if place == 0 else f"~{place}"
        node.output[0] = ">" if place == len(chain) - 1 else f"~{place + 1}"
    return chain


def arithmetic(operator: str, number: float) -> Callable[[ModelProto, np.ndarray], NodeProto]:
    def make(model: ModelProto, like: np.ndarray) -> NodeProto:
        return helper.make_node(operator, ["<", edit.constant(model, np.asarray(number, like.dtype))], [">"])

    return make


def plain(operator: str, **attributes: Any) -> Callable[[ModelProto, np.ndarray], NodeProto]:
    def make(model: ModelProto, like: np.ndarray) -> NodeProto:
        del model, like
        return helper.make_node(operator, ["<"], [">"], **attributes)

    return make


def cast_back(model: ModelProto, like: np.ndarray) -> NodeProto:
    del model
    return helper.make_node("Cast", ["<"], [">"], to=helper.np_dtype_to_tensor_dtype(like.dtype))


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


# --- attributes and operators -----------------------------------------------------------------------------------------


def attribute(operators: Sequence[str], name: str, value: Any) -> Change:
    """One attribute of one node; ``value`` may be a function of what it is."""

    def plant(model: ModelProto, generator: Generator) -> None:
        node = pick(generator, edit.nodes(model, *operators))
        held = edit.attribute(node, name)
        new = value(held) if callable(value) else value
        if new == held:
            raise Absent
        edit.tell(node, name, new)

    return plant


def square_gemm_turned(model: ModelProto, generator: Generator) -> None:
    """A linear layer with as many inputs as outputs reads its weight the other way round."""
    square = []
    for node in edit.layers(model, "Gemm"):
        shape = edit.numbers(model, edit.weight_of(model, node)).shape
        if shape[0] == shape[1]:
            square.append(node)
    node = pick(generator, square)
    edit.tell(node, "transB", 1 - edit.attribute(node, "transB", 0))


def conv(test: Callable[[dict[str, Any]], bool], **changes: Any) -> Change:
    """Attributes of a Conv that passes ``test``."""

    def plant(model: ModelProto, generator: Generator) -> None:
        candidates = []
        for node in edit.layers(model, "Conv"):
            held = {a.name: helper.get_attribute_value(a) for a in node.attribute}
            held["weight"] = edit.numbers(model, edit.weight_of(model, node)).shape
            if test(held):
                candidates.append(node)
        node = pick(generator, candidates)
        for name, value in changes.items():
            edit.tell(node, name, value)

    return plant


def padded3x3(held: dict[str, Any]) -> bool:
    return tuple(held["weight"][2:]) == (3, 3) and list(held.get("pads", [])) == [1] * 4


def strided3x3(held: dict[str, Any]) -> bool:
    return padded3x3(held) and list(held.get("strides", [])) == [2, 2]


def pool_pads(pads: list[int], *operators: str) -> Change:
    return attribute(operators, "pads", pads)


def other_operator(olds: Sequence[str], new: str, **attributes: Any) -> Change:
    """Another operator with the same inputs, that keeps those attributes that it knows."""

    def plant(model: ModelProto, generator: Generator) -> None:
        node = pick(generator, edit.nodes(model, *olds))
        known = onnx.defs.get_schema(new, edit.opset(model), "").attributes
        kept = [held for held in node.attribute if held.name in known and held.name not in attributes]
        replacement = helper.make_node(new, list(node.input), list(node.output), **attributes)
        replacement.attribute.extend(kept)
        edit.replace(model, node, replacement)

    return plant


def without_inputs(new: str, count: int, *olds: str, **attributes: Any) -> Change:
    """Another operator that reads only the first ``count`` inputs."""

    def plant(model: ModelProto, generator: Generator) -> None:
        node = pick(generator, [each for each in edit.nodes(model, *olds) if len(each.input) >= count])
        inputs = list(node.input)[:count]
        edit.replace(model, node, helper.make_node(new, inputs, list(node.output), **attributes))

    return plant


def relu_as_clip(model: ModelProto, generator: Generator) -> None:
    node = pick(generator, edit.nodes(model, "Relu"))
    dtype = numpy_type(edit.float_types(model)[node.output[0]])
    bounds = [edit.constant(model, np.asarray(bound, dtype)) for bound in (0, 1)]
    edit.replace(model, node, helper.make_node("Clip", [node.input[0], *bounds], list(node.output)))


def own_domain(model: ModelProto, generator: Generator) -> None:
    """A node of another domain under the same name, which the file defines as something else."""
    node = pick(generator, edit.nodes(model, "Relu", "Add", "Sigmoid", "Flatten"))
    opsets = [helper.make_opsetid("", edit.opset(model))]
    inputs = [f"x{index}" for index in range(len(node.input))]
    body = [helper.make_node("Neg", ["x0"], ["y"])]
    function = helper.make_function(OWN, node.op_type, inputs, ["y"], body, opsets)
    model.functions.append(function)
    edit.declare_opset(model, OWN, 1)
    del node.attribute[:]
    node.domain = OWN


def own_identity(model: ModelProto, generator: Generator) -> None:
    """An Identity of another domain, which the file defines as a Neg."""
    tensor = pick(generator, edit.activations(model))
    opsets = [helper.make_opsetid("", edit.opset(model))]
    body = [helper.make_node("Neg", ["x"], ["y"])]
    model.functions.append(helper.make_function(OWN, "Identity", ["x"], ["y"], body, opsets))
    edit.declare_opset(model, OWN, 1)
    edit.insert_behind(model, tensor, [helper.make_node("Identity", ["<"], [">"], domain=OWN)])


def own_cast(model: ModelProto, generator: Generator) -> None:
    """A Cast of another domain, which the file defines as a Neg."""
    types = edit.float_types(model)
    tensor = pick(generator, edit.activations(model))
    opsets = [helper.make_opsetid("", edit.opset(model))]
    body = [helper.make_node("Neg", ["x"], ["y"])]
    model.functions.append(helper.make_function(OWN, "Cast", ["x"], ["y"], body, opsets, attributes=["to"]))
    edit.declare_opset(model, OWN, 1)
    edit.insert_behind(model, tensor, [helper.make_node("Cast", ["<"], [">"], domain=OWN, to=types[tensor])])


def overriding_function(model: ModelProto, generator: Generator) -> None:
    """A function of the file under the name of one of ONNX's own operators."""
    node = pick(generator, edit.nodes(model, "Relu", "Sigmoid"))
    opsets = [helper.make_opsetid("", edit.opset(model))]
    body = [helper.make_node("Neg", ["x"], ["y"])]
    model.functions.append(helper.make_function("", node.op_type, ["x"], ["y"], body, opsets))


# --- edges and nodes --------------------------------------------------------------------------------------------------


def another_edge(*operators: str) -> Change:
    """One node reads another tensor of the same shape and type, computed before it."""

    def plant(model: ModelProto, generator: Generator) -> None:
        shapes = edit.shapes(model)
        types = edit.float_types(model)
        position = {name: place for place, node in enumerate(model.graph.node) for name in node.output}
        choices = []
        for place, node in enumerate(model.graph.node):
            if node.op_type not in operators:
                continue
            for index, name in enumerate(node.input):
                for other in position:
                    alike = shapes.get(other) == shapes.get(name) and types.get(other) == types.get(name)
                    if other != name and name in types and name in position and alike and position[other] < place:
                        choices.append((node, index, other))
        node, index, other = pick(generator, choices)
        node.input[index] = other

    return plant


def inputs_exchanged(*operators: str) -> Change:
    def plant(model: ModelProto, generator: Generator) -> None:
        node = pick(generator, [each for each in edit.nodes(model, *operators) if each.input[0] != each.input[1]])
        node.input[0], node.input[1] = node.input[1], node.input[0]

    return plant


def with_itself(model: ModelProto, generator: Generator) -> None:
    """The residual is the branch once more."""
    moving = set(edit.activations(model))
    adds = [node for node in edit.nodes(model, "Add", "Sub", "Mul") if moving.issuperset(node.input)]
    add = pick(generator, adds)
    add.input[0] = add.input[1]


def outputs_exchanged(model: ModelProto, generator: Generator) -> None:
    """The outputs of one node, a Split say, change places."""
    node = pick(generator, [node for node in model.graph.node if len(node.output) > 1])
    node.output[0], node.output[1] = node.output[1], node.output[0]


def slices_exchanged(model: ModelProto, generator: Generator) -> None:
    """Two Slices of the same tensor change places."""
    slices = edit.nodes(model, "Slice")
    by_input: dict[str, list[NodeProto]] = {}
    for node in slices:
        by_input.setdefault(node.input[0], []).append(node)
    one, other = pick(generator, [alike[:2] for alike in by_input.values() if len(alike) > 1])
    one.output[0], other.output[0] = other.output[0], one.output[0]


def removed(*operators: str) -> Change:
    def plant(model: ModelProto, generator: Generator) -> None:
        node = pick(generator, edit.nodes(model, *operators))
        moving = set(edit.activations(model)) | {value.name for value in model.graph.input}
        index = next(place for place, name in enumerate(node.input) if name in moving)
        edit.bypass(model, node, index)

    return plant


def layer_removed(model: ModelProto, generator: Generator) -> None:
    """A convolution that keeps the shape is left out."""
    shapes = edit.shapes(model)
    layer = pick(
        generator, [node for node in edit.layers(model) if shapes.get(node.input[0]) == shapes.get(node.output[0])]
    )
    edit.bypass(model, layer)


def inserted(*chain: Callable[[ModelProto, np.ndarray], NodeProto]) -> Change:
    """Nodes on an edge between two that were there."""

    def plant(model: ModelProto, generator: Generator) -> None:
        types = edit.float_types(model)
        tensor = pick(generator, edit.activations(model))
        like = np.zeros((), numpy_type(types[tensor]))
        edit.insert_behind(model, tensor, linked([make(model, like) for make in chain]))

    return plant


def clip(low: float, high: float) -> Callable[[ModelProto, np.ndarray], NodeProto]:
    def make(model: ModelProto, like: np.ndarray) -> NodeProto:
        bounds = [edit.constant(model, np.asarray(bound, like.dtype)) for bound in (low, high)]
        return helper.make_node("Clip", ["<", *bounds], [">"])

    return make


def training_dropout(model: ModelProto, generator: Generator) -> None:
    tensor = pick(generator, edit.activations(model))
    inputs = ["<", edit.constant(model, np.float32(0.5)), edit.constant(model, np.bool_(True))]
    edit.insert_behind(model, tensor, [helper.make_node("Dropout", inputs, [">"], seed=1)])


def noise_inserted(model: ModelProto, generator: Generator) -> None:
    tensor = pick(generator, edit.activations(model))
    noise = helper.make_node("RandomNormalLike", ["<"], ["~noise"], scale=0.5)
    edit.insert_behind(model, tensor, [noise, helper.make_node("Add", ["<", "~noise"], [">"])])


def square_transposed(model: ModelProto, generator: Generator) -> None:
    """Rows and columns of the pictures exchanged."""
    shapes = edit.shapes(model)
    squares = []
    for name in edit.activations(model):
        shape = shapes.get(name, ())
        if len(shape) == 4 and shape[2] == shape[3] > 1:
            squares.append(name)
    node = helper.make_node("Transpose", ["<"], [">"], perm=[0, 1, 3, 2])
    edit.insert_behind(model, pick(generator, squares), [node])


def channels_shuffled(model: ModelProto, generator: Generator) -> None:
    shapes = edit.shapes(model)
    tensor = pick(generator, [name for name in edit.activations(model) if len(shapes.get(name, ())) == 4])
    order = edit.constant(model, np.arange(shapes[tensor][1])[::-1].copy())
    edit.insert_behind(model, tensor, [helper.make_node("Gather", ["<", order], [">"], axis=1)])


def batch_turned(model: ModelProto, generator: Generator) -> None:
    """The answers to the images in the opposite order."""
    tensor = pick(generator, edit.activations(model))
    first = [edit.constant(model, np.array([value])) for value in (-1, np.iinfo(np.int64).min, 0, -1)]
    edit.insert_behind(model, tensor, [helper.make_node("Slice", ["<", *first], [">"])])


def through_if(model: ModelProto, tensor: str, outcome: Any, then: str, otherwise: str) -> None:
    """An If between ``tensor`` and its readers; ``outcome`` is its condition, a number or the name of a tensor."""
    name = outcome if isinstance(outcome, str) else edit.constant(model, np.bool_(outcome))
    kind = edit.float_types(model)[tensor]
    branches = {}
    inner = edit.fresh(model, "if_input")
    # The branches read it from the graph around them.
    for place, operator in (("then_branch", then), ("else_branch", otherwise)):
        output = helper.make_tensor_value_info(f"{inner} {place}", kind, None)
        node = helper.make_node(operator, [inner], [output.name], f"planted/{place}")
        branches[place] = helper.make_graph([node], place, [], [output])
    chain = [
        helper.make_node("Identity", ["<"], [inner]),
        helper.make_node("If", [name], [">"], **branches),
    ]
    edit.insert_behind(model, tensor, chain)


def if_of_the_images(model: ModelProto, generator: Generator) -> None:
    """Another answer for bright images alone."""
    images = model.graph.input[0]
    if images.type.tensor_type.elem_type != TensorProto.FLOAT:
        raise Absent
    tensor = pick(generator, edit.activations(model))
    mean = helper.make_node("ReduceMean", [images.name], ["planted mean"], keepdims=0)
    bright = helper.make_node("Greater", ["planted mean", edit.constant(model, np.float32(100))], ["planted bright"])
    model.graph.node.extend([mean, bright])
    through_if(model, tensor, "planted bright", "Neg", "Identity")


def if_of_a_constant(model: ModelProto, generator: Generator) -> None:
    """An If that always takes the branch that changes something."""
    through_if(model, pick(generator, edit.activations(model)), True, "Neg", "Identity")  # noqa: FBT003


def loop(model: ModelProto, tensor: str, turns: int, operator: str) -> None:
    """``operator`` on ``tensor``, ``turns`` times."""
    kind = edit.float_types(model)[tensor]
    inputs = [
        helper.make_tensor_value_info("turn", TensorProto.INT64, []),
        helper.make_tensor_value_info("go_on", TensorProto.BOOL, []),
        helper.make_tensor_value_info("x_in", kind, None),
    ]
    outputs = [
        helper.make_tensor_value_info("go_on_out", TensorProto.BOOL, []),
        helper.make_tensor_value_info("x_out", kind, None),
    ]
    body_nodes = [
        helper.make_node("Identity", ["go_on"], ["go_on_out"], "planted/go_on"),
        helper.make_node(operator, ["x_in"], ["x_out"], "planted/x"),
    ]
    body = helper.make_graph(body_nodes, "body", inputs, outputs)
    count = edit.constant(model, np.int64(turns))
    edit.insert_behind(model, tensor, [helper.make_node("Loop", [count, "", "<"], [">"], body=body)])


def loop_inserted(model: ModelProto, generator: Generator) -> None:
    loop(model, pick(generator, edit.activations(model)), 1, "Neg")


# --- pairs of Q and DQ ------------------------------------------------------------------------------------------------


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


def small_float(dtype: int) -> Change:
    """FP8 of another kind in both halves of an activation's pair."""

    def plant(model: ModelProto, generator: Generator) -> None:
        candidates = []
        for pair in edit.activation_pairs(model):
            if edit.initializers(model)[pair[0].input[2]].data_type == TensorProto.FLOAT8E4M3FN:
                candidates.append(pair)
        pair = pick(generator, candidates)
        name = edit.fresh(model, "planted_zero")
        model.graph.initializer.append(helper.make_tensor(name, dtype, [], [0.0]))
        for node in pair:
            node.input[2] = name
    
    return plant


def not_saturating(model: ModelProto, generator: Generator) -> None:
    """What lies beyond the range of FP8 becomes NaN."""
    candidates = []
    for pair in edit.activation_pairs(model):
        if edit.initializers(model)[pair[0].input[2]].data_type == TensorProto.FLOAT8E4M3FN:
            candidates.append(pair[0])
    del generator
    if not candidates:
        raise Absent
    # The images themselves, which can be brighter than those that gave the scale.
    edit.tell(candidates[0], "saturate", 0)


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


# --- the graph and what it says of itself -----------------------------------------------------------------------------


def metadata(key: str, change: Callable[[str], str | None]) -> Change:
    def plant(model: ModelProto, generator: Generator) -> None:
        del generator
        entry = next((each for each in model.metadata_props if each.key == key), None)
        if entry is None:
            raise Absent
        value = change(entry.value)
        if value is None:
            model.metadata_props.remove(entry)
        else:
            entry.value = value

    return plant


def fixed_batch(model: ModelProto, generator: Generator) -> None:
    del generator
    for value in (*model.graph.input, *model.graph.output):
        dim = value.type.tensor_type.shape.dim[0]
        dim.ClearField("dim_param")
        dim.dim_value = IMAGES


def other_output(model: ModelProto, generator: Generator) -> None:
    """Another tensor of the same shape is handed out as the answer."""
    shapes = edit.shapes(model)
    types = edit.float_types(model)
    output = model.graph.output[0].name
    alike = []
    for name in edit.activations(model):
        if name != output and shapes.get(name) == shapes.get(output) and types.get(name) == types.get(output):
            alike.append(name)
    other = pick(generator, alike)
    last = edit.producers(model)[output]
    last.output[0] = edit.fresh(model, "not_answered")
    model.graph.node.append(helper.make_node("Identity", [other], [output], "planted/Identity"))


def output_renamed(model: ModelProto, generator: Generator) -> None:
    del generator
    output = model.graph.output[0]
    node = edit.producers(model)[output.name]
    node.output[0] = output.name = "answers"


def output_of_another_type(model: ModelProto, generator: Generator) -> None:
    del generator
    output = model.graph.output[0]
    edit.insert_behind(model, output.name, [helper.make_node("Cast", ["<"], [">"], to=TensorProto.FLOAT16)])
    output.type.tensor_type.elem_type = TensorProto.FLOAT16


def opset(version: int) -> Change:
    """Another opset by its number alone."""

    def plant(model: ModelProto, generator: Generator) -> None:
        del generator
        if edit.opset(model) == version:
            raise Absent
        edit.declare_opset(model, "", version)
        model.ir_version = max(model.ir_version, 13 if version > 22 else 10)

    return plant


# --- both files -------------------------------------------------------------------------------------------------------


def in_both(change: Callable[[ModelProto, str], None], differently: Callable[[ModelProto, str], None]) -> ChangeOfBoth:
    """The trusted file gets one change on a tensor, the file behind it another one on the same tensor."""

    def plant(before: ModelProto, after: ModelProto, generator: Generator) -> ModelProto:
        tensor = pick(generator, shared_activations(before, after))
        honest = onnx.ModelProto.FromString(after.SerializeToString())
        change(before, tensor)
        change(honest, tensor)
        differently(after, tensor)
        return honest

    return plant


def shared_activations(before: ModelProto, after: ModelProto) -> list[str]:
    """Outputs of the same ReLU or Add in both files."""
    names = {node.output[0] for node in edit.nodes(before, "Relu", "Add", "PRelu") if node.output[0]}
    types = edit.float_types(after)
    return [
        node.output[0]
        for node in edit.nodes(after, "Relu", "Add", "PRelu")
        if node.output[0] in names and node.output[0] in types and edit.readers(after, node.output[0])
    ]


def function_call(alpha: float, *, default: bool = False) -> Callable[[ModelProto, str], None]:
    """A function of the file on an edge: LeakyRelu with this slope, in its body or as the default of an attribute."""

    def plant(model: ModelProto, tensor: str) -> None:
        opsets = [helper.make_opsetid("", edit.opset(model))]
        body = helper.make_node("LeakyRelu", ["x"], ["y"])
        if default:
            body.attribute.append(onnx.AttributeProto(name="alpha", type=onnx.AttributeProto.FLOAT, ref_attr_name="alpha"))
            defaults = [helper.make_attribute("alpha", alpha)]
            function = helper.make_function(OWN, "Bend", ["x"], ["y"], [body], opsets, attribute_protos=defaults)
        else:
            body.attribute.append(helper.make_attribute("alpha", alpha))
            function = helper.make_function(OWN, "Bend", ["x"], ["y"], [body], opsets)
        shift = helper.make_node("Neg", ["<"], ["~turned"])
        model.functions.append(function)
        edit.declare_opset(model, OWN, 1)
        edit.insert_behind(model, tensor, [shift, helper.make_node("Bend", ["~turned"], [">"], domain=OWN)])

    return plant


def an_if(outcome: bool, then: str, otherwise: str) -> Callable[[ModelProto, str], None]:
    def plant(model: ModelProto, tensor: str) -> None:
        through_if(model, tensor, outcome, then, otherwise)

    return plant


def if_bright(then: str, otherwise: str) -> Callable[[ModelProto, str], None]:
    """An If that the images decide."""

    def plant(model: ModelProto, tensor: str) -> None:
        images = model.graph.input[0]
        name, nodes = images.name, []
        if images.type.tensor_type.elem_type != TensorProto.FLOAT:
            nodes.append(helper.make_node("Cast", [name], ["planted pixels"], "planted/pixels", to=TensorProto.FLOAT))
            name = "planted pixels"
        dtype = np.float32
        nodes.append(helper.make_node("GlobalAveragePool", [name], ["planted mean"], "planted/mean"))
        nodes.append(helper.make_node("Sub", ["planted mean", edit.constant(model, dtype(100))], ["planted above"], "planted/Sub"))
        nodes.append(helper.make_node("Flatten", ["planted above"], ["planted flat"], "planted/flat", axis=0))
        nodes.append(helper.make_node("Transpose", ["planted flat"], ["planted column"], "planted/column"))
        first = edit.constant(model, np.int64(0))
        nodes.append(helper.make_node("Gather", ["planted column", first], ["planted row"], "planted/row", axis=0))
        nodes.append(helper.make_node("Gather", ["planted row", first], ["planted one"], "planted/one", axis=0))
        nodes.append(helper.make_node("Greater", ["planted one", edit.constant(model, dtype(0))], ["planted bright"], "planted/bright"))
        model.graph.node.extend(nodes)
        through_if(model, tensor, "planted bright", then, otherwise)

    return plant


def a_loop(turns: int, operator: str) -> Callable[[ModelProto, str], None]:
    def plant(model: ModelProto, tensor: str) -> None:
        loop(model, tensor, turns, operator)

    return plant


def chain(*operators: tuple[str, dict[str, Any]]) -> Callable[[ModelProto, str], None]:
    def plant(model: ModelProto, tensor: str) -> None:
        made = [helper.make_node(operator, ["<"], [">"], **attributes) for operator, attributes in operators]
        edit.insert_behind(model, tensor, linked(made))

    return plant


def one_output_of_two(first: str) -> Callable[[ModelProto, str], None]:
    """A Split in two whose halves are put together again, ``first`` the one or the other."""

    def plant(model: ModelProto, tensor: str) -> None:
        shape = edit.shapes(model).get(tensor, ())
        if len(shape) != 4 or shape[1] % 2:
            raise Absent
        sizes = edit.constant(model, np.array([shape[1] // 2] * 2))
        halves = ["~low", "~high"]
        order = halves if first == "low" else halves[::-1]
        nodes = [
            helper.make_node("Split", ["<", sizes], halves, axis=1),
            helper.make_node("Concat", order, [">"], axis=1),
        ]
        edit.insert_behind(model, tensor, nodes)

    return plant


def two_answers(*, exchanged: bool) -> Callable[[ModelProto, str], None]:
    """A second output, and both in this order."""

    def plant(model: ModelProto, tensor: str) -> None:
        del tensor
        output = model.graph.output[0].name
        inner = edit.fresh(model, "answers")
        last = edit.producers(model)[output]
        last.output[list(last.output).index(output)] = inner
        names = ["turned", output] if exchanged else [output, "turned"]
        model.graph.node.append(helper.make_node("Identity", [inner], names[:1], "planted/Identity"))
        model.graph.node.append(helper.make_node("Neg", [inner], names[1:], "planted/Neg"))
        model.graph.output.add().CopyFrom(model.graph.output[0])
        model.graph.output[1].name = "turned"

    return plant


def softmax_at(version: int) -> Callable[[ModelProto, str], None]:
    """A Softmax whose meaning depends on the opset."""

    def plant(model: ModelProto, tensor: str) -> None:
        newer = {"Squeeze", "Unsqueeze", "ReduceMean", "Split", "Clip", "QuantizeLinear", "Identity"}
        if edit.opset(model) != 17 or edit.nodes(model, *newer):
            raise Absent
        edit.insert_behind(model, tensor, [helper.make_node("Softmax", ["<"], [">"], axis=1)])
        edit.declare_opset(model, "", version)

    return plant
