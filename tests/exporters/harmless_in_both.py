"""What simplifiers do: the trusted file has what the file behind it has no more, or both have what no stage touches."""

from __future__ import annotations

from typing import TYPE_CHECKING

import graph_edits as edit
import numpy as np
from chains import loop, through_if
from graph_edits import Absent, numpy_type, pick
from harmless_graphs import duplicated
from onnx import helper, numpy_helper
from wrong_in_both import function_call, in_both, shared_activations

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.random import Generator
    from onnx import ModelProto, NodeProto

    Change = Callable[[ModelProto, Generator], None]
    ChangeOfBoth = Callable[[ModelProto, ModelProto, Generator], ModelProto | None]


def shared_layers(before: ModelProto, after: ModelProto, *operators: str) -> list[tuple[NodeProto, NodeProto]]:
    """Layers of the same name with a float32 weight as an initializer in both files."""
    found = []
    later = {node.name: node for node in edit.nodes(after, *operators)}
    for node in edit.nodes(before, *operators):
        twin = later.get(node.name)
        if twin is None or any(
            each.input[1] not in edit.initializers(model) for each, model in ((node, before), (twin, after))
        ):
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
            if (
                len(layer.input) == len(twin.input)
                and edit.numbers(before, layer.input[1]).tobytes() == edit.numbers(after, twin.input[1]).tobytes()
            ):
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
    fitting = [
        (one, twin) for one, twin in shared_layers(before, after, "Conv") if any(edit.attribute(one, "pads", []))
    ]
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
    operands = [
        edit.constant(before, np.array([0, 0, 1, 1, 0, 0, 0, 0]), "pads"),
        edit.constant(before, np.float32(0), "value"),
    ]
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
            if len(layer.input) < 3 or len(twin.input) < 3 or layer.input[2] not in edit.initializers(before):
                continue
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
    if edit.nodes(model, "Shape"):
        raise Absent  # nothing tells the shape of what a Loop answers
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
