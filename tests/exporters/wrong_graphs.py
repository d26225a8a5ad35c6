"""Wrong graphs: attributes, operators, edges, nodes, and what a file says of itself, changed as a faulty tool could.

Each changes a model in place, at a place that the generator picks, or raises Absent where the model has no such place.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import graph_edits as edit
import numpy as np
import onnx
from chains import linked, loop, through_if
from graph_edits import OWN, Absent, numpy_type, pick
from onnx import TensorProto, helper

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from chains import Link
    from numpy.random import Generator
    from onnx import ModelProto, NodeProto

    Change = Callable[[ModelProto, Generator], None]

# So many images the mutants are run on.
IMAGES = 6


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


def stepping3x3(held: dict[str, Any]) -> bool:
    return padded3x3(held) and list(held.get("strides", [1, 1])) == [1, 1]


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
        edit.replace(node, replacement)

    return plant


def without_inputs(new: str, count: int, *olds: str, **attributes: Any) -> Change:
    """Another operator that reads only the first ``count`` inputs."""

    def plant(model: ModelProto, generator: Generator) -> None:
        node = pick(generator, [each for each in edit.nodes(model, *olds) if len(each.input) >= count])
        inputs = list(node.input)[:count]
        edit.replace(node, helper.make_node(new, inputs, list(node.output), **attributes))

    return plant


def relu_as_clip(model: ModelProto, generator: Generator) -> None:
    node = pick(generator, edit.nodes(model, "Relu"))
    dtype = numpy_type(edit.float_types(model)[node.output[0]])
    bounds = [edit.constant(model, np.asarray(bound, dtype)) for bound in (0, 1)]
    edit.replace(node, helper.make_node("Clip", [node.input[0], *bounds], list(node.output)))


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


def another_edge(*operators: str) -> Change:
    """One node reads another tensor of the same shape and type, computed before it."""

    def plant(model: ModelProto, generator: Generator) -> None:
        shapes = edit.shapes(model)
        types = edit.float_types(model)
        position = {name: place for place, node in enumerate(model.graph.node) for name in node.output}
        # In front of its own pair a node reads the same, but for a rounding that a stage may leave out.
        source = edit.unrounded(model)
        choices = []
        for node in edit.nodes(model, *operators):
            made = position[node.output[0]]
            for index, name in enumerate(node.input):
                for other, kind in types.items():
                    alike = (shapes.get(other), kind) == (shapes.get(name), types.get(name))
                    earlier = name in position and position.get(other, made) < made
                    if alike and earlier and source[other] != source[name]:
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


def inserted(*chain: Link) -> Change:
    """Nodes on an edge between two that were there."""

    def plant(model: ModelProto, generator: Generator) -> None:
        types = edit.float_types(model)
        tensor = pick(generator, edit.activations(model))
        like = np.zeros((), numpy_type(types[tensor]))
        edit.insert_behind(model, tensor, linked([make(model, like) for make in chain]))

    return plant


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
    through_if(model, pick(generator, edit.activations(model)), True, "Neg", "Identity")


def loop_inserted(model: ModelProto, generator: Generator) -> None:
    loop(model, pick(generator, edit.activations(model)), 1, "Neg")


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


def reversed_list(text: str) -> str:
    return json.dumps(json.loads(text)[::-1])


def nothing(text: str) -> None:
    """No entry at all."""
    del text
