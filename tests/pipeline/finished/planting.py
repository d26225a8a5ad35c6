"""Faults as other tools, hands and bugs make them, each planted into one file of a build of a ResNet."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx
import onnx_ir as ir
from faults import node
from onnx import helper, numpy_helper

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    Fault = Callable[[onnx.ModelProto], None]

CONV, BIAS = "layer2.0.conv2.weight", "layer2.0.conv2.bias"
BN1, BN2 = (f"/layer2/layer2.0/bn{number}/BatchNormalization_output_0" for number in (1, 2))
RELU, SUM = "/layer2/layer2.0/relu/Relu_output_0", "/layer2/layer2.0/Add_output_0"
SHORTCUT = "/layer2/layer2.0/downsample/downsample.1/BatchNormalization_output_0"
POOL = "/avgpool/GlobalAveragePool_output_0"
STEM = "/maxpool/MaxPool_output_0"


def constant(model: onnx.ModelProto, name: str, value: object, dtype: type = np.float32) -> str:
    model.graph.initializer.append(numpy_helper.from_array(np.asarray(value, dtype), name))
    return name


def after(tensor: str, make: Callable[[onnx.ModelProto, str, str], Sequence[onnx.NodeProto]]) -> Fault:
    """What computed ``tensor`` computes another one, from which the nodes that ``make`` gives compute it."""

    def plant(model: onnx.ModelProto) -> None:
        maker = next(n for n in model.graph.node if tensor in n.output)
        maker.output[0] = "planted"
        place = list(model.graph.node).index(maker) + 1
        for number, made in enumerate(make(model, "planted", tensor)):
            model.graph.node.insert(place + number, made)

    return plant


def before_readers(tensor: str, make: Callable[[onnx.ModelProto, str, str], Sequence[onnx.NodeProto]]) -> Fault:
    """All that read ``tensor`` read what the nodes that ``make`` gives compute from it."""

    def plant(model: onnx.ModelProto) -> None:
        maker = next(n for n in model.graph.node if tensor in n.output)
        for reader in model.graph.node:
            reader.input[:] = ["planted" if name == tensor else name for name in reader.input]
        place = list(model.graph.node).index(maker) + 1
        for number, made in enumerate(make(model, tensor, "planted")):
            model.graph.node.insert(place + number, made)

    return plant


def by(operator: str, value: object) -> Callable[[onnx.ModelProto, str, str], list[onnx.NodeProto]]:
    """One node of two operands, of which one is ``value``."""

    def make(model: onnx.ModelProto, old: str, new: str) -> list[onnx.NodeProto]:
        other = constant(model, "planted_value", value)
        return [helper.make_node(operator, [old, other], [new], "/planted")]

    return make


def one(operator: str, **attributes: object) -> Callable[[onnx.ModelProto, str, str], list[onnx.NodeProto]]:
    def make(_: onnx.ModelProto, old: str, new: str) -> list[onnx.NodeProto]:
        return [helper.make_node(operator, [old], [new], "/planted", **attributes)]

    return make


def garbage_pixel(model: onnx.ModelProto, old: str, new: str) -> list[onnx.NodeProto]:
    """The first pixel of the first channel is 20 in every image."""
    indices = constant(model, "where", [[0, 0, 0]], np.int64)
    update = constant(model, "what", 20.0)
    batch_last = helper.make_node("Transpose", [old], ["batch_last"], perm=[1, 2, 3, 0])
    sizes = helper.make_node("Shape", ["batch_last"], ["sizes"], start=3)
    row = helper.make_node("Expand", [update, "sizes"], ["row"])
    axis = constant(model, "first_axis", [0], np.int64)
    rows = helper.make_node("Unsqueeze", ["row", axis], ["rows"])
    scattered = helper.make_node("ScatterND", ["batch_last", indices, "rows"], ["scattered"])
    back = helper.make_node("Transpose", ["scattered"], [new], "/planted", perm=[3, 0, 1, 2])
    return [batch_last, sizes, row, rows, scattered, back]


def some_images(divisor: int, factor: float) -> Callable[[onnx.ModelProto, str, str], list[onnx.NodeProto]]:
    """Every image whose place in the batch ``divisor`` divides is multiplied by ``factor``."""

    def make(model: onnx.ModelProto, old: str, new: str) -> list[onnx.NodeProto]:
        zero = constant(model, "zero", 0, np.int64)
        step = constant(model, "step", 1, np.int64)
        every = constant(model, "every", divisor, np.int64)
        axes = constant(model, "axes", [1, 2, 3], np.int64)
        factors = constant(model, "factor", factor), constant(model, "unchanged", 1.0)
        return [
            helper.make_node("Shape", [old], ["count_of_one"], end=1),
            helper.make_node("Squeeze", ["count_of_one"], ["count"]),
            helper.make_node("Range", [zero, "count", step], ["places"]),
            helper.make_node("Mod", ["places", every], ["remainders"]),
            helper.make_node("Equal", ["remainders", zero], ["chosen"]),
            helper.make_node("Where", ["chosen", *factors], ["factors"]),
            helper.make_node("Unsqueeze", ["factors", axes], ["a_factor_an_image"]),
            helper.make_node("Mul", [old, "a_factor_an_image"], [new], "/planted"),
        ]

    return make


def bright_images(model: onnx.ModelProto, old: str, new: str) -> list[onnx.NodeProto]:
    """Images that are brighter than most are multiplied by 0.5."""
    limit, half, whole = (constant(model, name, value) for name, value in (("limit", 96), ("half", 0.5), ("whole", 1)))
    return [
        helper.make_node("ReduceMean", ["images"], ["brightness"], axes=[1, 2, 3], keepdims=1),
        helper.make_node("Greater", ["brightness", limit], ["bright"]),
        helper.make_node("Where", ["bright", half, whole], ["factors"]),
        helper.make_node("Mul", [old, "factors"], [new], "/planted"),
    ]


def halves_exchanged(_: onnx.ModelProto, old: str, new: str) -> list[onnx.NodeProto]:
    """The second half of the channels stands first: a Concat in another order."""
    return [
        helper.make_node("Split", [old], ["first_half", "second_half"], "/planted_split", axis=1),
        helper.make_node("Concat", ["second_half", "first_half"], [new], "/planted", axis=1),
    ]


def mirrored(model: onnx.ModelProto, old: str, new: str) -> list[onnx.NodeProto]:
    """Left is right."""
    start, end, axis, step = (
        constant(model, name, [value], np.int64)
        for name, value in (("start", -1), ("end", -(2**31)), ("axis", 3), ("step", -1))
    )
    return [helper.make_node("Slice", [old, start, end, axis, step], [new], "/planted")]


def neighbours_image(model: onnx.ModelProto, old: str, new: str) -> list[onnx.NodeProto]:
    """Each image gets what the one before it in the batch should have."""
    values = (("last", [-1]), ("first", [0]), ("far", [2**31]), ("axis", [0]))
    last, first, far, axis = (constant(model, name, value, np.int64) for name, value in values)
    return [
        helper.make_node("Slice", [old, last, far, axis], ["last_image"]),
        helper.make_node("Slice", [old, first, last, axis], ["other_images"]),
        helper.make_node("Concat", ["last_image", "other_images"], [new], "/planted", axis=0),
    ]


def clipped(low: float, high: float) -> Callable[[onnx.ModelProto, str, str], list[onnx.NodeProto]]:
    def make(model: onnx.ModelProto, old: str, new: str) -> list[onnx.NodeProto]:
        limits = [constant(model, "low", low), constant(model, "high", high)]
        return [helper.make_node("Clip", [old, *limits], [new], "/planted")]

    return make


def operator(name: str, op_type: str, **attributes: object) -> Fault:
    """The node computes something else from the same operands."""

    def plant(model: onnx.ModelProto) -> None:
        found = node(model, name)
        found.op_type = op_type
        del found.attribute[:]
        found.attribute.extend(helper.make_attribute(key, value) for key, value in attributes.items())

    return plant


def reads(name: str, index: int, tensor: str) -> Fault:
    """The node reads ``tensor`` at ``index``."""

    def plant(model: onnx.ModelProto) -> None:
        node(model, name).input[index] = tensor
        held = ir.from_proto(model)
        held.graph.sort()
        model.CopyFrom(ir.to_proto(held))

    return plant


def reshaped(name: str, change: Callable[[np.ndarray], np.ndarray]) -> Fault:
    """The initializer of exactly this ``name``, of any shape that ``change`` gives."""

    def plant(model: onnx.ModelProto) -> None:
        tensor = next(i for i in model.graph.initializer if i.name == name)
        array = np.ascontiguousarray(change(numpy_helper.to_array(tensor).copy()))
        tensor.CopyFrom(numpy_helper.from_array(array, name))

    return plant


def all_of(*planted: Fault) -> Fault:
    def plant(model: onnx.ModelProto) -> None:
        for one_of_them in planted:
            one_of_them(model)

    return plant


def own_zero_point(name: str, zero_point: int) -> Fault:
    """The node has a zero point of its own."""

    def plant(model: onnx.ModelProto) -> None:
        node(model, name).input[2] = constant(model, f"{name}_zero", zero_point, np.int8)

    return plant


def own_scale(name: str, factor: float) -> Fault:
    """The node has a scale of its own."""

    def plant(model: onnx.ModelProto) -> None:
        found = node(model, name)
        scale = next(i for i in model.graph.initializer if i.name == found.input[1])
        found.input[1] = constant(model, "planted_scale", numpy_helper.to_array(scale) * factor)

    return plant


def levels_as_nodes(model: onnx.ModelProto) -> None:
    """Every initializer in a Constant node."""
    _as_nodes(model, {tensor.name for tensor in model.graph.initializer})


def scales_as_nodes(model: onnx.ModelProto) -> None:
    _as_nodes(model, _scales(model))


def _scales(model: onnx.ModelProto) -> set[str]:
    quantising = [n for n in model.graph.node if n.op_type in {"QuantizeLinear", "DequantizeLinear"}]
    return {n.input[1] for n in quantising}


def _as_nodes(model: onnx.ModelProto, names: set[str]) -> None:
    kept = []
    for tensor in list(model.graph.initializer):
        if tensor.name not in names:
            kept.append(tensor)
            continue
        made = helper.make_node("Constant", [], [tensor.name], f"/constant/{tensor.name}", value=tensor)
        model.graph.node.insert(0, made)
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)


def scales_through_identity(model: onnx.ModelProto) -> None:
    for scale in _scales(model):
        for reader in model.graph.node:
            reader.input[:] = [f"{scale}_handed_on" if name == scale else name for name in reader.input]
        model.graph.node.insert(0, helper.make_node("Identity", [scale], [f"{scale}_handed_on"], f"/{scale}/Identity"))


def initializers_as_inputs(model: onnx.ModelProto) -> None:
    for tensor in model.graph.initializer:
        model.graph.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))


def renamed(model: onnx.ModelProto) -> None:
    """Every tensor and node has another name, the input and the answers as well."""
    names: dict[str, str] = {}

    def new(name: str) -> str:
        return names.setdefault(name, f"t{len(names)}") if name else name

    for value in (*model.graph.input, *model.graph.output, *model.graph.initializer):
        value.name = new(value.name)
    for number, own in enumerate(model.graph.node):
        own.input[:] = [new(name) for name in own.input]
        own.output[:] = [new(name) for name in own.output]
        own.name = f"n{number}"
    del model.graph.value_info[:]


def plain(model: onnx.ModelProto) -> None:
    """Of nobody's: no record of how it wants its images."""
    del model.metadata_props[:]


def in_a_function(model: onnx.ModelProto) -> None:
    """The last node in a function of the file's own."""
    last = model.graph.node[-1]
    inputs = [f"in{index}" for index in range(len(last.input))]
    body = helper.make_node(last.op_type, inputs, ["out"])
    body.attribute.extend(last.attribute)
    opset = [helper.make_opsetid("", model.opset_import[0].version)]
    model.functions.append(helper.make_function("own", "Head", inputs, ["out"], [body], opset))
    model.opset_import.append(helper.make_opsetid("own", 1))
    del last.attribute[:]
    last.op_type, last.domain = "Head", "own"
