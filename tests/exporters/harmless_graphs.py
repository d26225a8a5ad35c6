"""The same graph in other words, as exporters and simplifiers write it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import graph_edits as edit
import numpy as np
import onnx
from chains import through_if
from graph_edits import OWN, Absent, pick
from onnx import TensorProto, helper, numpy_helper

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.random import Generator
    from onnx import ModelProto

    Change = Callable[[ModelProto, Generator], None]

# Operators that mean the same in every opset from 13 to 22, with the attributes that the honest files have.
UNCHANGED = {
    "Add", "AveragePool", "BatchNormalization", "Cast", "Concat", "Conv", "DequantizeLinear", "Div", "Flatten", "Gemm",
    "GlobalAveragePool", "Identity", "LeakyRelu", "MaxPool", "Mul", "PRelu", "QuantizeLinear", "Relu", "Sigmoid", "Sub",
}  # fmt: skip


def nothing(model: ModelProto, generator: Generator) -> None:
    """The file as it is."""
    del model, generator


def tensors_renamed(model: ModelProto, generator: Generator) -> None:
    """All tensors but inputs and outputs of the graph."""
    del generator
    kept = {value.name for value in (*model.graph.input, *model.graph.output)} | {""}
    names: dict[str, str] = {}

    def renamed(name: str) -> str:
        return name if name in kept else names.setdefault(name, f"t{len(names)}")

    for tensor in model.graph.initializer:
        tensor.name = renamed(tensor.name)
    for node in model.graph.node:
        node.input[:] = [renamed(name) for name in node.input]
        node.output[:] = [renamed(name) for name in node.output]
    del model.graph.value_info[:]


def nodes_renamed(model: ModelProto, generator: Generator) -> None:
    del generator
    for place, node in enumerate(model.graph.node):
        node.name = f"node {place}"


def nodes_without_names(model: ModelProto, generator: Generator) -> None:
    del generator
    for node in model.graph.node:
        node.name = ""


def other_order(model: ModelProto, generator: Generator) -> None:
    """Nodes and initializers in another order."""
    nodes = list(model.graph.node)
    order = generator.permutation(len(nodes))
    copies = [onnx.NodeProto.FromString(nodes[place].SerializeToString()) for place in order]
    del model.graph.node[:]
    model.graph.node.extend(copies)
    edit.sort(model)
    tensors = sorted(model.graph.initializer, key=lambda tensor: tensor.name[::-1])
    copied = [TensorProto.FromString(tensor.SerializeToString()) for tensor in tensors]
    del model.graph.initializer[:]
    model.graph.initializer.extend(copied)


def operands_exchanged(*operators: str) -> Change:
    """Both inputs of every such node."""

    def plant(model: ModelProto, generator: Generator) -> None:
        del generator
        found = edit.nodes(model, *operators)
        if not found:
            raise Absent
        for node in found:
            node.input[0], node.input[1] = node.input[1], node.input[0]

    return plant


def axes_from_the_end(*operators: str) -> Change:
    def plant(model: ModelProto, generator: Generator) -> None:
        del generator
        shapes = edit.shapes(model)
        shapes |= {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}
        changed = 0
        for node in edit.nodes(model, *operators):
            axis = edit.attribute(node, "axis")
            rank = len(shapes.get(node.input[0], ()))
            if axis is not None and axis >= 0 and rank:
                edit.tell(node, "axis", axis - rank)
                changed += 1
        if not changed:
            raise Absent

    return plant


def defaults_written(model: ModelProto, generator: Generator) -> None:
    """Every attribute that has a default, and those of convolutions and pools that follow from the shapes."""
    del generator
    for node in model.graph.node:
        if not onnx.defs.has(node.op_type, edit.opset(model), node.domain):
            continue
        schema = onnx.defs.get_schema(node.op_type, edit.opset(model), node.domain)
        held = {each.name for each in node.attribute}
        for name, attribute in schema.attributes.items():
            if name not in held and attribute.default_value.type:
                node.attribute.add().CopyFrom(attribute.default_value)
        if node.op_type in {"Conv", "MaxPool", "AveragePool"}:
            for name, value in (("strides", [1, 1]), ("dilations", [1, 1]), ("pads", [0] * 4)):
                if name not in held and name in schema.attributes:
                    edit.tell(node, name, value)


def defaults_left_out(model: ModelProto, generator: Generator) -> None:
    """No attribute that says what holds anyway."""
    del generator
    usual = {"strides": [1, 1], "dilations": [1, 1], "pads": [0] * 4, "auto_pad": b"NOTSET"}
    for node in model.graph.node:
        if not onnx.defs.has(node.op_type, edit.opset(model), node.domain):
            continue
        schema = onnx.defs.get_schema(node.op_type, edit.opset(model), node.domain)
        for held in list(node.attribute):
            value = helper.get_attribute_value(held)
            default = schema.attributes[held.name].default_value
            plain = helper.get_attribute_value(default) if default.type else usual.get(held.name)
            value = list(value) if isinstance(value, Sequence) and not isinstance(value, bytes) else value
            implied = node.op_type == "Conv" and held.name == "kernel_shape"
            if implied or (plain is not None and value == plain):
                edit.tell(node, held.name, None)


def automatic_pads(how: str) -> Change:
    """The same pads by their rule: of a convolution without strides SAME is symmetric, and no pads are VALID."""

    def plant(model: ModelProto, generator: Generator) -> None:
        fitting = []
        for node in edit.layers(model, "Conv"):
            kernel = edit.numbers(model, edit.weight_of(model, node)).shape[2:]
            pads = list(edit.attribute(node, "pads", [0] * 4))
            strides = list(edit.attribute(node, "strides", [1, 1]))
            same = pads == [size // 2 for size in kernel] * 2 and strides == [1, 1]
            if (how == "VALID" and not any(pads)) or (how != "VALID" and same):
                fitting.append(node)
        node = pick(generator, fitting)
        edit.tell(node, "pads", None)
        edit.tell(node, "auto_pad", how)

    return plant


def attribute_without_meaning(operator: str, name: str, value: Any) -> Change:
    """What an attribute says that nothing reads in inference."""

    def plant(model: ModelProto, generator: Generator) -> None:
        del generator
        found = edit.nodes(model, operator)
        if not found:
            raise Absent
        for node in found:
            edit.tell(node, name, value)

    return plant


def inserted(operator: str, *operands: Any) -> Change:
    """A node that hands on what it reads."""

    def plant(model: ModelProto, generator: Generator) -> None:
        tensor = pick(generator, edit.activations(model))
        names = [edit.constant(model, operand, "operand") for operand in operands]
        edit.insert_behind(model, tensor, [helper.make_node(operator, ["<", *names], [">"])])

    return plant


def identity_on_a_graph_input(model: ModelProto, generator: Generator) -> None:
    del generator
    edit.insert_behind(model, model.graph.input[0].name, [helper.make_node("Identity", ["<"], [">"])])


def duplicated(*operators: str) -> Change:
    """One of several readers of a node gets a copy of the node for itself."""

    def plant(model: ModelProto, generator: Generator) -> None:
        shared = []
        for node in model.graph.node:
            if operators and node.op_type not in operators:
                continue
            if len(node.output) == 1 and len(edit.readers(model, node.output[0])) > 1:
                shared.append(node)
        node = pick(generator, shared)
        reader, index = edit.readers(model, node.output[0])[-1]
        copy = onnx.NodeProto.FromString(node.SerializeToString())
        copy.name = edit.fresh(model, f"{node.name} copy")
        copy.output[0] = edit.fresh(model, f"{node.output[0]} copy")
        reader.input[index] = copy.output[0]
        model.graph.node.append(copy)
        edit.sort(model)

    return plant


def pair_for_every_reader(model: ModelProto, generator: Generator) -> None:
    """Every reader of a pair gets a pair of its own under the same scale."""
    shared = []
    for quantise, dequantise in edit.activation_pairs(model):
        if len(edit.readers(model, dequantise.output[0])) > 1:
            shared.append((quantise, dequantise))
    quantise, dequantise = pick(generator, shared)
    reader, index = edit.readers(model, dequantise.output[0])[-1]
    copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in (quantise, dequantise)]
    for copy in copies:
        copy.name = edit.fresh(model, f"{copy.name} copy")
        copy.output[0] = edit.fresh(model, f"{copy.output[0]} copy")
        model.graph.node.append(copy)
    copies[1].input[0] = copies[0].output[0]
    model.graph.node[-1].input[0] = model.graph.node[-2].output[0]
    reader.input[index] = model.graph.node[-1].output[0]
    edit.sort(model)


def zero_points_left_out(model: ModelProto, generator: Generator) -> None:
    """Where ONNX implies them: of INT8 and FP8 in every DequantizeLinear, of UINT8 also in QuantizeLinear."""
    del generator
    left = 0
    for node in edit.nodes(model, *edit.PAIR):
        if len(node.input) < 3:
            continue
        held = edit.initializers(model)[node.input[2]]
        zero = not np.asarray(numpy_helper.to_array(held), np.float64).any()
        if zero and (node.op_type == "DequantizeLinear" or held.data_type == TensorProto.UINT8):
            del node.input[2:]
            left += 1
    if not left:
        raise Absent


def axis_left_out(model: ModelProto, generator: Generator) -> None:
    """Another axis on pairs with a single scale, which nothing reads."""
    del generator
    pairs = edit.activation_pairs(model)
    if not pairs:
        raise Absent
    for pair in pairs:
        for node in pair:
            edit.tell(node, "axis", 1)


def empty_operand(model: ModelProto, generator: Generator) -> None:
    """A missing bias written as an input without a name."""
    node = pick(generator, [node for node in edit.nodes(model, "Conv", "Gemm") if len(node.input) == 2])
    node.input.append("")


def doc_strings(model: ModelProto, generator: Generator) -> None:
    del generator
    model.doc_string = "another text"
    model.graph.doc_string = "another text"
    model.graph.name = "another name"
    model.producer_name = "another exporter"
    model.producer_version = "9"
    for node in model.graph.node:
        node.doc_string = "another text"
    for tensor in model.graph.initializer:
        tensor.doc_string = "another text"


def no_value_info(model: ModelProto, generator: Generator) -> None:
    del generator
    del model.graph.value_info[:]


def value_info_inferred(model: ModelProto, generator: Generator) -> None:
    del generator
    model.CopyFrom(onnx.shape_inference.infer_shapes(model))


def metadata_in_another_order(model: ModelProto, generator: Generator) -> None:
    del generator
    entries = list(model.metadata_props)[::-1]
    copies = [onnx.StringStringEntryProto(key=entry.key, value=entry.value) for entry in entries]
    del model.metadata_props[:]
    model.metadata_props.extend(copies)


def unused_initializer(model: ModelProto, generator: Generator) -> None:
    del generator
    edit.constant(model, np.arange(5, dtype=np.float32), "unused")


def unused_node(model: ModelProto, generator: Generator) -> None:
    tensor = pick(generator, edit.activations(model))
    model.graph.node.append(helper.make_node("Neg", [tensor], ["unused"], "unused/Neg"))
    edit.sort(model)


def unused_domain(model: ModelProto, generator: Generator) -> None:
    del generator
    edit.declare_opset(model, "ai.onnx.ml", 3)


def later_opset(version: int) -> Change:
    """A later opset, of operators that mean the same in both."""

    def plant(model: ModelProto, generator: Generator) -> None:
        del generator
        if edit.opset(model) >= version or {node.op_type for node in model.graph.node} - UNCHANGED:
            raise Absent
        edit.declare_opset(model, "", version)
        least = helper.find_min_ir_version_for([helper.make_opsetid("", version)])
        model.ir_version = max(model.ir_version, least)

    return plant


def in_a_function(*operators: str) -> Change:
    """One node as a function of the file whose body is that node."""

    def plant(model: ModelProto, generator: Generator) -> None:
        node = pick(generator, edit.nodes(model, *operators))
        inputs = [f"x{index}" for index in range(len(node.input))]
        body = onnx.NodeProto.FromString(node.SerializeToString())
        body.input[:] = inputs
        body.output[:] = ["y"]
        body.name = "body"
        opsets = [helper.make_opsetid("", edit.opset(model))]
        model.functions.append(helper.make_function(OWN, "Whole", inputs, ["y"], [body], opsets))
        edit.declare_opset(model, OWN, 1)
        del node.attribute[:]
        node.op_type = "Whole"
        node.domain = OWN

    return plant


def an_if_that_never_turns(model: ModelProto, generator: Generator) -> None:
    """An If whose condition is a constant, and whose branch hands on what it reads."""
    through_if(model, pick(generator, edit.activations(model)), outcome=False, then="Neg", otherwise="Identity")
