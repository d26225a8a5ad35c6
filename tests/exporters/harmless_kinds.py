"""Kinds of harmless changes: other words for the same network, as exporters and simplifiers choose them.

Each changes a model in place, at a place that the generator picks, or raises Absent where the model has no such place.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import graph_edits as edit
import numpy as np
import onnx
from graph_edits import Absent, pick
from onnx import TensorProto, helper, numpy_helper
from wrong_kinds import OWN, function_call, in_both, linked, loop, numpy_type, shared_activations, through_if

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.random import Generator
    from onnx import ModelProto, NodeProto

    Change = Callable[[ModelProto, Generator], None]
    ChangeOfBoth = Callable[[ModelProto, ModelProto, Generator], ModelProto | None]
    # From a constant to the nodes that give it back, from ``<`` to ``>``.
    Spelling = Callable[[ModelProto, np.ndarray], list[NodeProto]]

# Operators that mean the same in every opset from 13 to 22, with the attributes that the honest files have.
UNCHANGED = {
    "Add", "AveragePool", "BatchNormalization", "Cast", "Concat", "Conv", "DequantizeLinear", "Div", "Flatten", "Gemm",
    "GlobalAveragePool", "Identity", "LeakyRelu", "MaxPool", "Mul", "PRelu", "QuantizeLinear", "Relu", "Sigmoid", "Sub",
}  # fmt: skip


def reversed_list(text: str) -> str:
    return json.dumps(json.loads(text)[::-1])


# --- constants in other words -----------------------------------------------------------------------------------------


def read_initializers(model: ModelProto) -> list[str]:
    """All that a node reads, in the order of the graph."""
    held = edit.initializers(model)
    names = [name for node in model.graph.node for name in node.input if name in held]
    return list(dict.fromkeys(names))


def as_constant_node(model: ModelProto, name: str, **attributes: Any) -> None:
    """The initializer as a Constant node of the same name."""
    node = helper.make_node("Constant", [], [name], f"Constant of {name}", **attributes)
    model.graph.initializer.remove(edit.initializers(model)[name])
    model.graph.node.insert(0, node)


def constant_node(kind: str, rank: int, spell: Callable[[np.ndarray], dict[str, Any]]) -> Change:
    """One initializer of this kind of numbers and rank as a Constant; any where ``kind`` is empty."""

    def plant(model: ModelProto, generator: Generator) -> None:
        fitting = []
        for name in read_initializers(model):
            array = edit.numbers(model, name)
            if not kind or (array.dtype == np.dtype(kind) and array.ndim == rank):
                fitting.append(name)
        name = pick(generator, fitting)
        as_constant_node(model, name, **spell(edit.numbers(model, name)))

    return plant


def all_constant_nodes(model: ModelProto, generator: Generator) -> None:
    """Every initializer as a Constant node."""
    del generator
    for name in read_initializers(model):
        as_constant_node(model, name, value=edit.initializers(model)[name])


def constants_of(*operators: str, places: slice = slice(None)) -> Change:
    """All that these operators read as Constant nodes."""

    def plant(model: ModelProto, generator: Generator) -> None:
        del generator
        held = edit.initializers(model)
        names = [name for node in edit.nodes(model, *operators) for name in list(node.input)[places] if name in held]
        if not names:
            raise Absent
        for name in dict.fromkeys(names):
            as_constant_node(model, name, value=edit.initializers(model)[name])

    return plant


def spelt(spelling: Spelling, *, everywhere: bool = False) -> Change:
    """One constant, or every one, through nodes that give it back bit by bit."""

    def plant(model: ModelProto, generator: Generator) -> None:
        fitting = []
        for name in read_initializers(model):
            if edit.numbers(model, name).dtype.kind not in "fiu":
                continue  # FP8, which few operators take
            try:
                spelling(edit_copy(model), edit.numbers(model, name))
            except Absent:
                continue
            fitting.append(name)
        chosen = fitting if everywhere else [pick(generator, fitting)]
        if not chosen:
            raise Absent
        for name in chosen:
            array = edit.numbers(model, name)
            if array.tobytes() == b"":
                continue
            nodes = spelling(model, array)
            edit.insert_behind(model, name, nodes)

    return plant


def edit_copy(model: ModelProto) -> ModelProto:
    """A model of the same opset with nothing in it, for a try."""
    empty = onnx.ModelProto()
    empty.opset_import.extend(model.opset_import)
    return empty


def through_identity(model: ModelProto, array: np.ndarray) -> list[NodeProto]:
    del model, array
    return [helper.make_node("Identity", ["<"], [">"])]


def wider(array: np.ndarray) -> int:
    """A type that holds every number of this one."""
    if array.dtype == np.float32:
        return TensorProto.DOUBLE
    if array.dtype == np.float16:
        return TensorProto.FLOAT
    if array.dtype in (np.int8, np.uint8):
        return TensorProto.INT32
    raise Absent


def through_cast(model: ModelProto, array: np.ndarray) -> list[NodeProto]:
    del model
    own = helper.np_dtype_to_tensor_dtype(array.dtype)
    return linked([helper.make_node("Cast", ["<"], [">"], to=kind) for kind in (wider(array), own)])


def through_transposes(model: ModelProto, array: np.ndarray) -> list[NodeProto]:
    del model
    if array.ndim < 2:
        raise Absent
    there = [*range(1, array.ndim), 0]
    back = [array.ndim - 1, *range(array.ndim - 1)]
    return linked([helper.make_node("Transpose", ["<"], [">"], perm=order) for order in (there, back)])


def through_reshapes(model: ModelProto, array: np.ndarray) -> list[NodeProto]:
    flat = edit.constant(model, np.array([-1]), "flat")
    shape = edit.constant(model, np.array(array.shape, np.int64), "shape")
    return linked([helper.make_node("Reshape", ["<", target], [">"]) for target in (flat, shape)])


def through_squeeze(model: ModelProto, array: np.ndarray) -> list[NodeProto]:
    del array
    if edit.opset(model) < 13:
        raise Absent
    axes = edit.constant(model, np.array([0]), "axes")
    return linked([helper.make_node(operator, ["<", axes], [">"]) for operator in ("Unsqueeze", "Squeeze")])


def through_concat(model: ModelProto, array: np.ndarray) -> list[NodeProto]:
    """Cut in two and put together again."""
    if array.ndim == 0 or len(array) < 2:
        raise Absent
    sizes = edit.constant(model, np.array([1, len(array) - 1]), "sizes")
    parts = ["~first", "~rest"]
    return [
        helper.make_node("Split", ["<", sizes], parts, axis=0),
        helper.make_node("Concat", parts, [">"], axis=0),
    ]


def only_float(array: np.ndarray) -> None:
    if array.dtype not in (np.float32, np.float16):
        raise Absent


def through_arithmetic(operator: str, number: float) -> Spelling:
    """A Mul by 1, an Add of 0, a Mul by 2 of the half."""

    def spelling(model: ModelProto, array: np.ndarray) -> list[NodeProto]:
        only_float(array)
        return [helper.make_node(operator, ["<", edit.constant(model, np.asarray(number, array.dtype), "number")], [">"])]

    return spelling


def through_doubling(model: ModelProto, array: np.ndarray) -> list[NodeProto]:
    """Half of it twice as large, exact but next to 0."""
    only_float(array)
    if np.any((np.abs(array) < np.finfo(array.dtype).tiny * 4) & (array != 0)):
        raise Absent
    two = edit.constant(model, np.asarray(2, array.dtype), "two")
    return linked([helper.make_node(operator, ["<", two], [">"]) for operator in ("Div", "Mul")])


def through_negations(model: ModelProto, array: np.ndarray) -> list[NodeProto]:
    del model
    only_float(array)
    return linked([helper.make_node("Neg", ["<"], [">"]) for _ in range(2)])


def through_gather(model: ModelProto, array: np.ndarray) -> list[NodeProto]:
    if array.ndim == 0:
        raise Absent
    order = edit.constant(model, np.arange(len(array)), "order")
    return [helper.make_node("Gather", ["<", order], [">"], axis=0)]


def through_constant_if(model: ModelProto, array: np.ndarray) -> list[NodeProto]:
    """An If whose condition is a constant, the other branch something else."""
    only_float(array)
    kind = helper.np_dtype_to_tensor_dtype(array.dtype)
    inner = edit.fresh(model, "if_input")
    branches = {}
    for place, operator in (("then_branch", "Identity"), ("else_branch", "Neg")):
        output = helper.make_tensor_value_info(f"{inner}_{place}", kind, None)
        node = helper.make_node(operator, [inner], [output.name], f"{inner}/{place}")
        branches[place] = helper.make_graph([node], place, [], [output])
    condition = edit.constant(model, np.bool_(True), "condition")
    return [helper.make_node("Identity", ["<"], [inner]), helper.make_node("If", [condition], [">"], **branches)]


def constant_of_shape(model: ModelProto, generator: Generator) -> None:
    """An array of the same number everywhere by ConstantOfShape."""
    alike = []
    for name in read_initializers(model):
        array = edit.numbers(model, name)
        if array.size and array.dtype.kind in "fiu" and len(np.unique(array)) == 1:
            alike.append(name)
    name = pick(generator, alike)
    array = edit.numbers(model, name)
    model.graph.initializer.remove(edit.initializers(model)[name])
    shape = edit.constant(model, np.array(array.shape, np.int64), "shape")
    value = numpy_helper.from_array(array.reshape(-1)[:1], "value")
    model.graph.node.insert(0, helper.make_node("ConstantOfShape", [shape], [name], f"zeros of {name}", value=value))


def expanded(model: ModelProto, generator: Generator) -> None:
    """An array of the same number everywhere by Expand of a scalar."""
    alike = []
    for name in read_initializers(model):
        array = edit.numbers(model, name)
        if array.size > 1 and array.dtype.kind in "fiu" and len(np.unique(array)) == 1:
            alike.append(name)
    name = pick(generator, alike)
    array = edit.numbers(model, name)
    model.graph.initializer.remove(edit.initializers(model)[name])
    operands = [
        edit.constant(model, array.reshape(-1)[0], "number"),
        edit.constant(model, np.array(array.shape, np.int64), "shape"),
    ]
    model.graph.node.insert(0, helper.make_node("Expand", operands, [name], f"all of {name}"))


def listed_as_inputs(model: ModelProto, generator: Generator) -> None:
    """Every initializer is an input of the graph as well, which nothing overrides."""
    del generator
    for tensor in model.graph.initializer:
        model.graph.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims)))


def typed_storage(model: ModelProto, generator: Generator) -> None:
    """Numbers in the fields of their type instead of raw bytes."""
    del generator
    for tensor in model.graph.initializer:
        if tensor.data_type in {TensorProto.FLOAT, TensorProto.INT64, TensorProto.INT8, TensorProto.UINT8}:
            array = numpy_helper.to_array(tensor)
            tensor.CopyFrom(helper.make_tensor(tensor.name, tensor.data_type, list(tensor.dims), array.ravel()))


def a_copy_for_every_reader(model: ModelProto, generator: Generator) -> None:
    """No two nodes share a constant."""
    del generator
    for name in read_initializers(model):
        array = edit.initializers(model)[name]
        for node, index in edit.readers(model, name)[1:]:
            copy = edit.fresh(model, name)
            model.graph.initializer.add().CopyFrom(array)
            model.graph.initializer[-1].name = copy
            node.input[index] = copy


def equal_constants_merged(model: ModelProto, generator: Generator) -> None:
    """Constants of the same bits are stored once."""
    del generator
    first: dict[tuple[Any, ...], str] = {}
    merged = 0
    for tensor in list(model.graph.initializer):
        key = (tensor.data_type, tuple(tensor.dims), numpy_helper.to_array(tensor).tobytes())
        kept = first.setdefault(key, tensor.name)
        if kept == tensor.name:
            continue
        for node, index in edit.readers(model, tensor.name):
            node.input[index] = kept
        model.graph.initializer.remove(tensor)
        merged += 1
    if not merged:
        raise Absent


# --- the same graph in other words ------------------------------------------------------------------------------------


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


# --- what simplifiers do: the trusted file before, and the other one behind --------------------------------------------


def shared_layers(before: ModelProto, after: ModelProto, *operators: str) -> list[tuple[NodeProto, NodeProto]]:
    """Layers of the same name with a float32 weight as an initializer in both files."""
    found = []
    later = {node.name: node for node in edit.nodes(after, *operators)}
    for node in edit.nodes(before, *operators):
        twin = later.get(node.name)
        if twin is None or any(each.input[1] not in edit.initializers(model) for each, model in ((node, before), (twin, after))):
            continue
        if edit.numbers(before, node.input[1]).dtype == edit.numbers(after, twin.input[1]).dtype == np.float32:
            found.append((node, twin))
    return found


def own_weight(model: ModelProto, layer: NodeProto, place: int, array: np.ndarray) -> None:
    name = edit.constant(model, array.astype(np.float32), f"{layer.input[1]}_merged")
    while len(layer.input) <= place:
        layer.input.append("")
    layer.input[place] = name


def merged(operator: str, *, a_channel: bool, turned: bool = False) -> ChangeOfBoth:
    """Arithmetic by a constant behind a convolution becomes part of its weight and bias.

    One number for all channels, or one for each; ``turned``: the constant comes first.
    """

    def plant(before: ModelProto, after: ModelProto, generator: Generator) -> None:
        layers = []
        for layer, twin in shared_layers(before, after, "Conv"):
            # A BatchNormalization behind it reads the same channel by channel: the stage may not have folded it.
            if len(layer.input) == len(twin.input) and edit.numbers(before, layer.input[1]).tobytes() == edit.numbers(after, twin.input[1]).tobytes():
                layers.append((layer, twin))
        layer, twin = pick(generator, layers)
        weight = edit.numbers(after, twin.input[1]).astype(np.float64)
        has_bias = len(twin.input) > 2
        bias = edit.numbers(after, twin.input[2]).astype(np.float64) if has_bias else np.zeros(len(weight))
        shape = (len(weight), 1, 1) if a_channel else ()
        number = generator.uniform(0.6, 1.7, shape).astype(np.float32)
        operand = edit.constant(before, number, "number")
        inputs = [operand, "<"] if turned else ["<", operand]
        edit.insert_behind(before, layer.output[0], [helper.make_node(operator, inputs, [">"])])

        factor, shift = effect(operator, number.astype(np.float64).reshape(-1), turned=turned)
        own_weight(after, twin, 1, weight * factor.reshape(-1, 1, 1, 1))
        if has_bias or shift.any():
            own_weight(after, twin, 2, bias * factor + shift)

    return plant


def effect(operator: str, number: np.ndarray, *, turned: bool) -> tuple[np.ndarray, np.ndarray]:
    """The factor and the shift that the arithmetic means."""
    one, zero = np.ones_like(number), np.zeros_like(number)
    rows = {
        ("Mul", False): (number, zero),
        ("Mul", True): (number, zero),
        ("Div", False): (1 / number, zero),
        ("Add", False): (one, number),
        ("Add", True): (one, number),
        ("Sub", False): (one, -number),
        ("Sub", True): (-one, number),
    }
    return rows[operator, turned]


def pad_taken_in(before: ModelProto, after: ModelProto, generator: Generator) -> None:
    """A Pad of zeros in front of a convolution becomes its pads."""
    fitting = [(one, twin) for one, twin in shared_layers(before, after, "Conv") if any(edit.attribute(one, "pads", []))]
    layer, _ = pick(generator, fitting)
    top, left, bottom, right = edit.attribute(layer, "pads")
    edit.tell(layer, "pads", None)
    pads = edit.constant(before, np.array([0, 0, top, left, 0, 0, bottom, right]), "pads")
    edit.insert_before(before, layer, 0, [helper.make_node("Pad", ["<", pads], [">"])])


def pad_taken_in_partly(before: ModelProto, after: ModelProto, generator: Generator) -> None:
    """Half of the padding by a Pad that says its value and its mode, the other half by the convolution."""
    fitting = []
    for layer, twin in shared_layers(before, after, "Conv"):
        if list(edit.attribute(layer, "pads", [])) == [1] * 4:
            fitting.append((layer, twin))
    layer, _ = pick(generator, fitting)
    edit.tell(layer, "pads", [0, 0, 1, 1])
    operands = [edit.constant(before, np.array([0, 0, 1, 1, 0, 0, 0, 0]), "pads"), edit.constant(before, np.float32(0), "value")]
    edit.insert_before(before, layer, 0, [helper.make_node("Pad", ["<", *operands], [">"], mode="constant")])


def pad_in_front_of_pool(operator: str, value: float) -> ChangeOfBoth:
    """A Pad of what a pool does not see becomes its pads."""

    def plant(before: ModelProto, after: ModelProto, generator: Generator) -> None:
        later = {node.name: node for node in edit.nodes(after, operator)}
        fitting = []
        for node in edit.nodes(before, operator):
            counted = operator == "MaxPool" or edit.attribute(node, "count_include_pad", 0)
            if node.name in later and any(edit.attribute(node, "pads", [])) and counted:
                fitting.append(node)
        pool = pick(generator, fitting)
        top, left, bottom, right = edit.attribute(pool, "pads")
        edit.tell(pool, "pads", None)
        operands = [
            edit.constant(before, np.array([0, 0, top, left, 0, 0, bottom, right]), "pads"),
            edit.constant(before, np.float32(value), "value"),
        ]
        edit.insert_before(before, pool, 0, [helper.make_node("Pad", ["<", *operands], [">"])])

    return plant


def constants_folded(make: Callable[[ModelProto, np.ndarray], tuple[list[NodeProto], np.ndarray]]) -> ChangeOfBoth:
    """A bias computed of constants becomes the constant that it is."""

    def plant(before: ModelProto, after: ModelProto, generator: Generator) -> None:
        layers = []
        for layer, twin in shared_layers(before, after, "Conv", "Gemm"):
            if len(layer.input) > 2 and len(twin.input) > 2 and layer.input[2] in edit.initializers(before):
                if edit.numbers(before, layer.input[2]).tobytes() == edit.numbers(after, twin.input[2]).tobytes():
                    layers.append((layer, twin))
        layer, twin = pick(generator, layers)
        array = edit.numbers(before, layer.input[2])
        nodes, folded = make(before, array)
        edit.insert_before(before, layer, 2, nodes)
        own_weight(after, twin, 2, folded)

    return plant


def standardised(model: ModelProto, array: np.ndarray) -> tuple[list[NodeProto], np.ndarray]:
    """Its mean subtracted, as weight standardisation does; in float32 as a runtime computes it."""
    del model
    nodes = [
        helper.make_node("ReduceMax", ["<"], ["~peak"], keepdims=1),
        helper.make_node("Sub", ["<", "~peak"], [">"]),
    ]
    return nodes, array - array.max(keepdims=True)


def doubled(model: ModelProto, array: np.ndarray) -> tuple[list[NodeProto], np.ndarray]:
    """Twice as large, through the shape of something: exact."""
    two = edit.constant(model, np.float32(2), "two")
    return [helper.make_node("Mul", ["<", two], [">"])], array * np.float32(2)


def clipped(model: ModelProto, array: np.ndarray) -> tuple[list[NodeProto], np.ndarray]:
    zero = edit.constant(model, np.float32(0), "zero")
    return [helper.make_node("Max", ["<", zero], [">"])], np.maximum(array, np.float32(0))


def equal_nodes_merged(before: ModelProto, after: ModelProto, generator: Generator) -> None:
    """Two nodes of the trusted file that compute the same are one."""
    del after
    duplicated()(before, generator)


def same_in_both(change: Callable[[ModelProto, str], None]) -> ChangeOfBoth:
    """Something on an edge that the stage leaves as it is."""

    return in_both(change, change)


def infinite_bound(model: ModelProto, tensor: str) -> None:
    dtype = numpy_type(edit.float_types(model)[tensor])
    bounds = [edit.constant(model, np.asarray(bound, dtype), "bound") for bound in (-1, np.inf)]
    edit.insert_behind(model, tensor, [helper.make_node("Clip", ["<", *bounds], [">"])])


def zeros_of_a_shape(model: ModelProto, tensor: str) -> None:
    """An Add of a ConstantOfShape."""
    kind = edit.float_types(model)[tensor]
    value = numpy_helper.from_array(np.full(1, 0.25, numpy_type(kind)), "value")
    shape = edit.constant(model, np.array([1], np.int64), "shape")
    nodes = [
        helper.make_node("ConstantOfShape", [shape], ["~quarter"], value=value),
        helper.make_node("Add", ["<", "~quarter"], [">"]),
    ]
    edit.insert_behind(model, tensor, nodes)


def a_loop(model: ModelProto, tensor: str) -> None:
    loop(model, tensor, 3, "Neg")


def if_folded(before: ModelProto, after: ModelProto, generator: Generator) -> None:
    """An If with a constant condition becomes its branch."""
    tensor = pick(generator, shared_activations(before, after))
    through_if(before, tensor, outcome=True, then="Neg", otherwise="Abs")
    edit.insert_behind(after, tensor, [helper.make_node("Neg", ["<"], [">"])])


def function_inlined(before: ModelProto, after: ModelProto, generator: Generator) -> None:
    """A call of a function becomes the nodes of its body."""
    tensor = pick(generator, shared_activations(before, after))
    function_call(0.1)(before, tensor)
    nodes = [
        helper.make_node("Neg", ["<"], ["~turned"]),
        helper.make_node("LeakyRelu", ["~turned"], [">"], alpha=0.1),
    ]
    edit.insert_behind(after, tensor, nodes)
