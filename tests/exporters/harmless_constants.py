"""Constants in other words, as exporters and simplifiers write them: the same numbers, bit by bit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import graph_edits as edit
import numpy as np
import onnx
from chains import linked
from graph_edits import Absent, pick
from onnx import TensorProto, helper, numpy_helper

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.random import Generator
    from onnx import ModelProto, NodeProto

    Change = Callable[[ModelProto, Generator], None]
    # From a constant to the nodes that give it back, from ``<`` to ``>``.
    Spelling = Callable[[ModelProto, np.ndarray], list[NodeProto]]


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
        return [
            helper.make_node(operator, ["<", edit.constant(model, np.asarray(number, array.dtype), "number")], [">"])
        ]

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
