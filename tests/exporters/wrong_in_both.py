"""Two files with something that the stage did not make, and the file behind has it otherwise."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import graph_edits as edit
import numpy as np
import onnx
from chains import linked, loop, through_if
from graph_edits import OWN, Absent, change_constant, pick
from onnx import TensorProto, helper, numpy_helper

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.random import Generator
    from onnx import ModelProto, NodeProto

    # It returns an honest file after of the changed file before, where that is not the one that was given.
    ChangeOfBoth = Callable[[ModelProto, ModelProto, Generator], ModelProto | None]


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
    """Outputs of the same ReLU or Add in both files, but those whose pair relies on what the ReLU cuts off."""
    names = {node.output[0] for node in edit.nodes(before, "Relu", "Add", "PRelu")}
    types = edit.float_types(after)
    shared = []
    for node in edit.nodes(after, "Relu", "Add", "PRelu"):
        tensor = node.output[0]
        readers = [reader for reader, _ in edit.readers(after, tensor)]
        if tensor in names and tensor in types and readers and not any(is_unsigned(after, each) for each in readers):
            shared.append(tensor)
    return shared


def is_unsigned(model: ModelProto, node: NodeProto) -> bool:
    """Whether it quantises to UINT8."""
    if node.op_type != "QuantizeLinear":
        return False
    return len(node.input) < 3 or edit.initializers(model)[node.input[2]].data_type == TensorProto.UINT8


def function_call(alpha: float, *, told: bool = False) -> Callable[[ModelProto, str], None]:
    """A function of the file on an edge: LeakyRelu with this slope, in its body or ``told`` by the call."""

    def plant(model: ModelProto, tensor: str) -> None:
        opsets = [helper.make_opsetid("", edit.opset(model))]
        body = helper.make_node("LeakyRelu", ["x"], ["y"])
        call = helper.make_node("Bend", ["~turned"], [">"], domain=OWN)
        if told:
            slope = onnx.AttributeProto(name="alpha", type=onnx.AttributeProto.FLOAT, ref_attr_name="alpha")
            body.attribute.append(slope)
            edit.tell(call, "alpha", alpha)
        else:
            edit.tell(body, "alpha", alpha)
        attributes = ["alpha"] if told else []
        model.functions.append(helper.make_function(OWN, "Bend", ["x"], ["y"], [body], opsets, attributes))
        edit.declare_opset(model, OWN, 1)
        edit.insert_behind(model, tensor, [helper.make_node("Neg", ["<"], ["~turned"]), call])

    return plant


def images_with_a_default(before: ModelProto, after: ModelProto, generator: Generator) -> ModelProto:
    """Both files hold an image that whoever runs them overrides: of that one alone the deviation does not matter."""
    del generator
    subtraction = pick(np.random.default_rng(0), edit.nodes(before, "Sub")[:1])
    held = edit.numbers(before, subtraction.input[1])
    size = [dim.dim_value for dim in before.graph.input[0].type.tensor_type.shape.dim][1:]
    for model in (before, after):
        if model.graph.input[0].type.tensor_type.elem_type != TensorProto.FLOAT:
            raise Absent
        image = np.broadcast_to(held, (1, *size)).astype(np.float32)
        model.graph.initializer.append(numpy_helper.from_array(image, model.graph.input[0].name))
    honest = onnx.ModelProto.FromString(after.SerializeToString())
    division = edit.nodes(after, "Div")[0]
    change_constant(after, division.input[1], lambda deviation: deviation * 1.5)
    return honest


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
        nodes.append(
            helper.make_node(
                "Sub", ["planted mean", edit.constant(model, dtype(100))], ["planted above"], "planted/Sub"
            )
        )
        nodes.append(helper.make_node("Flatten", ["planted above"], ["planted flat"], "planted/flat", axis=0))
        nodes.append(helper.make_node("Transpose", ["planted flat"], ["planted column"], "planted/column"))
        first = edit.constant(model, np.int64(0))
        nodes.append(helper.make_node("Gather", ["planted column", first], ["planted row"], "planted/row", axis=0))
        nodes.append(helper.make_node("Gather", ["planted row", first], ["planted one"], "planted/one", axis=0))
        nodes.append(
            helper.make_node(
                "Greater", ["planted one", edit.constant(model, dtype(0))], ["planted bright"], "planted/bright"
            )
        )
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
