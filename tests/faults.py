"""Faults as a stage could make them, each planted into the file of one stage of a build of the tiny ResNeXt."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx
import onnx_ir as ir
from onnx import TensorProto, helper, numpy_helper

from exporters import onnx_file

if TYPE_CHECKING:
    from collections.abc import Callable

    Change = Callable[[np.ndarray], np.ndarray]
    Fault = Callable[[onnx.ModelProto], None]

CONV, BN = "layer2.0.conv2.weight", "/layer2/layer2.0/bn2/BatchNormalization"


def node(model: onnx.ModelProto, name: str) -> onnx.NodeProto:
    return next(n for n in model.graph.node if n.name == name)


def array(name: str, change: Change) -> Fault:
    """Change the initializer that ``name`` ends, of several the one with the shortest name."""

    def plant(model: onnx.ModelProto) -> None:
        tensor = min((i for i in model.graph.initializer if i.name.endswith(name)), key=lambda i: len(i.name))
        before = numpy_helper.to_array(tensor)
        # np.ascontiguousarray would give a scalar an axis.
        after = np.asarray(change(before.copy()), dtype=before.dtype, order="C")
        assert not np.array_equal(before, after, equal_nan=True)
        tensor.CopyFrom(numpy_helper.from_array(after, tensor.name))

    return plant


def bump(place: tuple[int, ...], size: float) -> Change:
    def change(values: np.ndarray) -> np.ndarray:
        values[place] += np.asarray(size, values.dtype)
        return values

    return change


def neighbour(place: tuple[int, ...]) -> Change:
    """The next number of the format: the smallest change that there is."""

    def change(values: np.ndarray) -> np.ndarray:
        values[place] = np.nextafter(values[place], values.dtype.type(np.inf))
        return values

    return change


def attribute(name: str, key: str, value: object) -> Fault:
    def plant(model: onnx.ModelProto) -> None:
        found = node(model, name)
        kept = [a for a in found.attribute if a.name != key]
        del found.attribute[:]
        found.attribute.extend([*kept, helper.make_attribute(key, value)])

    return plant


def swap(one: str, other: str, index: int) -> Fault:
    """Two nodes exchange what they read at ``index``."""

    def plant(model: onnx.ModelProto) -> None:
        a, b = node(model, one), node(model, other)
        a.input[index], b.input[index] = b.input[index], a.input[index]

    return plant


def swap_arrays(one: str, other: str) -> Fault:
    def plant(model: onnx.ModelProto) -> None:
        a, b = (next(i for i in model.graph.initializer if i.name.endswith(name)) for name in (one, other))
        held = numpy_helper.to_array(a)
        a.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(b), a.name))
        b.CopyFrom(numpy_helper.from_array(held, b.name))

    return plant


def drop_residual(model: onnx.ModelProto) -> None:
    add = node(model, "/layer2/layer2.0/Add")
    add.input[1] = add.input[0]


def skip(name: str) -> Fault:
    """The node is not there any more; what read its output reads its input."""

    def plant(model: onnx.ModelProto) -> None:
        gone = node(model, name)
        for other in model.graph.node:
            for index, read in enumerate(other.input):
                if read == gone.output[0]:
                    other.input[index] = gone.input[0]
        model.graph.node.remove(gone)

    return plant


def behind(operator: str, **attributes: object) -> Fault:
    """One more node between the last one and the logits."""

    def plant(model: onnx.ModelProto) -> None:
        last = next(n for n in model.graph.node if "logits" in n.output)
        last.output[0] = "inner"
        model.graph.node.append(helper.make_node(operator, ["inner"], ["logits"], "/planted", **attributes))

    return plant


def rename_output(model: onnx.ModelProto) -> None:
    last = next(n for n in model.graph.node if "logits" in n.output)
    last.output[0] = model.graph.output[0].name = "answers"


def static_batch(model: onnx.ModelProto) -> None:
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = 64


def wrong_alone(model: onnx.ModelProto) -> None:
    """A batch of one image gets other answers than the same image among others."""
    last = next(n for n in model.graph.node if "logits" in n.output)
    last.output[0] = "inner"
    constants = {"two": np.array([2], np.int64), "first": np.array([0], np.int64), "half": np.float32(0.5)}
    model.graph.initializer.extend(numpy_helper.from_array(np.asarray(v), k) for k, v in constants.items())
    model.graph.node.extend([
        helper.make_node("Shape", ["images"], ["sizes"]),
        helper.make_node("Gather", ["sizes", "first"], ["count"]),
        helper.make_node("Less", ["count", "two"], ["alone"]),
        helper.make_node("Cast", ["alone"], ["one_or_none"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["one_or_none", "half"], ["shift"]),
        helper.make_node("Add", ["inner", "shift"], ["shifted"]),
        helper.make_node("Mul", ["shifted", "scale_of_one"], ["logits"]),
    ])  # fmt: skip
    model.graph.initializer.append(numpy_helper.from_array(np.array(1, np.float32), "scale_of_one"))


def scale_of_dequantise(factor: float) -> Fault:
    """The scale of one DequantizeLinear, and not that of the QuantizeLinear before it."""

    def plant(model: onnx.ModelProto) -> None:
        name = "/layer2/layer2.0/relu/Relu_output_0"
        scale = next(i for i in model.graph.initializer if i.name == f"{name}_scale")
        model.graph.initializer.append(numpy_helper.from_array(numpy_helper.to_array(scale) * factor, "planted"))
        node(model, f"{name}_DequantizeLinear").input[1] = "planted"

    return plant


def eps_when_folding(model: onnx.ModelProto) -> None:
    """As if another epsilon had been used: every gain of one layer is off by a little."""
    array(CONV, lambda w: w * np.float32(0.999))(model)


def requantised(factor: float) -> Fault:
    """A scale too large for the weights, and the weights rounded to it."""

    def plant(model: onnx.ModelProto) -> None:
        array(f"{CONV}_scale", lambda s: s * factor)(model)
        array(f"{CONV}_int8", lambda q: np.rint(q / factor).astype(np.int8))(model)

    return plant


def nothing_left(model: onnx.ModelProto) -> None:
    """Weights of 0, under scales so coarse that half of one would excuse it."""
    array(f"{CONV}_scale", lambda s: s * 300)(model)
    array(f"{CONV}_int8", np.zeros_like)(model)


def unsigned_pair(model: onnx.ModelProto) -> None:
    """The input's pair as UINT8 with zero point 0, which cuts off all that is negative."""
    zero = next(i for i in model.graph.initializer if i.name == "/Div_output_0_zero_point")
    zero.CopyFrom(numpy_helper.from_array(np.array(0, np.uint8), zero.name))


def unequal_factor(model: onnx.ModelProto) -> None:
    """One channel twice as large as its readers think."""
    array("layer2.0.conv1.weight", lambda w: np.concatenate([2 * w[:1], w[1:]]))(model)


def first_conv(model: onnx.ModelProto) -> onnx.NodeProto:
    """The first integer convolution with more than one weight per channel."""
    sizes = {i.name: i.dims for i in model.graph.initializer}
    return next(n for n in model.graph.node if n.op_type == "QLinearConv" and sizes[n.input[3]][-1] > 1)


def compiled(index: int, change: Change) -> Fault:
    """An operand of one QLinearConv of a compiled file changed."""

    def plant(model: onnx.ModelProto) -> None:
        array(first_conv(model).input[index], change)(model)

    return plant


def unpaired(tensor: str) -> Fault:
    """What read ``tensor`` behind its Q/DQ pair reads the tensor itself."""

    def plant(model: onnx.ModelProto) -> None:
        for operator in ("DequantizeLinear", "QuantizeLinear"):
            skip(f"{tensor}_{operator}")(model)

    return plant


def pair_after(tensor: str, name: str) -> Fault:
    """Everything that reads ``tensor`` reads it through a new pair."""

    def plant(model: onnx.ModelProto) -> None:
        held = ir.from_proto(model)
        value = next(v for node in held.graph for v in node.outputs if v.name == tensor)
        readers = [(use.node, use.idx) for use in value.uses()]
        scale = onnx_file.add_initializer(held.graph, f"{name}_s", np.array(0.05, np.float32))
        zero = onnx_file.add_initializer(held.graph, f"{name}_z", np.array(0, np.int8))
        quantise = ir.node("QuantizeLinear", [value, scale, zero], name=f"{name}_q")
        quantise.outputs[0].name = f"{name}_q"
        dequantise = ir.node("DequantizeLinear", [quantise.outputs[0], scale, zero], name=f"{name}_dq")
        dequantise.outputs[0].name = f"{name}_dq"
        held.graph.extend([quantise, dequantise])
        for node, index in readers:
            node.replace_input_with(index, dequantise.outputs[0])
        held.graph.sort()
        model.CopyFrom(ir.to_proto(held))

    return plant


# What the whole network hangs on, by stage: the planted fault, and the module that the certificate names; None where
# there is no certificate (the engine) or where only the answers show it.
RESIDUAL, RELU = ("layer2.0", drop_residual), ("layer3.0.relu_1", skip("/layer3/layer3.0/relu_1/Relu"))
GRAPH_FAULTS: dict[str, list[tuple[str | None, Fault]]] = {
    "export": [
        ("layer2.0.conv2", array(CONV, neighbour((3, 1, 1, 1)))),
        ("layer2.0.conv2", array(CONV, lambda w: w.transpose(0, 1, 3, 2))),
        ("layer2.0.conv2", array(CONV, bump((0, 0, 0, 0), np.nan))),
        ("fc", array("fc.bias", np.zeros_like)),
        ("layer2.0.bn2", swap_arrays("layer2.0.bn2.running_var", "layer2.0.bn2.weight")),
        ("layer1.0.conv1", swap("/layer1/layer1.0/conv1/Conv", "/layer2/layer2.0/conv3/Conv", 0)),
        ("", swap_arrays("pixel_mean", "pixel_std")),
        (None, attribute(BN, "epsilon", 1e-2)),
        (None, attribute("/layer1/layer1.0/conv2/Conv", "pads", [0, 0, 2, 2])),
        (None, attribute("/maxpool/MaxPool", "pads", [0, 0, 1, 1])),
        (None, drop_residual),
        (None, skip("/layer3/layer3.0/relu_1/Relu")),
        (None, behind("Softmax", axis=1)),
        (None, behind("Neg")),
        (None, rename_output),
        (None, static_batch),
        (None, wrong_alone),
    ],
    "simplify": [
        ("layer2.0.conv2", array(CONV, neighbour((3, 1, 1, 1)))),
        ("layer2.0.bn2", array("layer2.0.bn2.running_var", bump((5,), 1e-4))),
        ("layer2.0.bn2", attribute(BN, "epsilon", 1e-3)),
        ("layer2.0.conv2", attribute("/layer2/layer2.0/conv2/Conv", "strides", [1, 1])),
        ("/Sub", array("pixel_mean", bump((0, 0, 0, 0), 1.0))),
        ("fc", array("fc.weight", lambda w: w[::-1])),
        ("layer2.0.bn2", array("layer2.0.bn2.bias", np.zeros_like)),
        RESIDUAL,
        RELU,
    ],
    "fold_batchnorm": [
        ("layer2.0.conv2", array(CONV, bump((3, 1, 1, 1), 1e-4))),
        ("layer2.0.conv2", array(CONV, lambda w: w.transpose(0, 1, 3, 2))),
        ("layer2.0.conv2", eps_when_folding),
        ("layer2.0.conv2", array(CONV, lambda w: w[::-1])),
        ("layer1.0.conv3", array("layer1.0.conv3.bias", lambda b: b * 0)),
        ("layer1.0.conv3", array("layer1.0.conv3.bias", lambda b: b * np.nan)),
        ("layer1.0.conv3", array("layer1.0.conv3.bias", lambda b: -b)),
        ("layer2.0.conv2", attribute("/layer2/layer2.0/conv2/Conv", "group", 2)),
        RESIDUAL,
        RELU,
    ],
    "equalise": [
        ("layer2.0.conv2", array(CONV, neighbour((3, 1, 1, 1)))),
        ("layer2.0.conv2", array(CONV, lambda w: w.transpose(0, 1, 3, 2))),
        ("layer2.0.conv1", unequal_factor),
        ("layer1.0.conv3", array("layer1.0.conv3.bias", np.zeros_like)),
        ("fc", array("fc.weight", lambda w: w[::-1])),
        RESIDUAL,
        RELU,
    ],
    "fp16": [
        ("layer2.0.conv2", array(CONV, neighbour((3, 1, 1, 1)))),
        ("layer2.0.conv2", array(CONV, bump((3, 1, 1, 1), np.inf))),
        ("layer2.0.conv2", array(CONV, lambda w: w.transpose(0, 1, 3, 2))),
        ("layer2.0.conv2", array(CONV, lambda w: np.where(abs(w) < 1e-3, 0, w))),
        ("layer1.0.conv3", array("layer1.0.conv3.bias", np.zeros_like)),
        ("fc", array("fc.weight", lambda w: w[::-1])),
        ("/Div", array("pixel_std", lambda s: s + 1)),
        RESIDUAL,
        RELU,
    ],
    "int8": [
        ("layer2.0.conv2", array(f"{CONV}_int8", lambda q: np.where(q == q.max(), q - 2, q))),
        ("layer2.0.conv2", array(f"{CONV}_int8", lambda q: q.transpose(0, 1, 3, 2))),
        ("layer2.0.conv2", array(f"{CONV}_scale", lambda s: s * 4)),
        ("layer2.0.conv2", array(f"{CONV}_scale", lambda s: np.roll(s, 1))),
        ("layer2.0.conv2", scale_of_dequantise(4)),
        ("layer1.0.conv1", swap("/layer1/layer1.0/conv1/Conv", "/layer1/layer1.0/conv3/Conv", 2)),
        ("layer1.0.conv1", array("layer1.0.conv1.bias", bump((0,), 0.5))),
        ("layer1.0.conv1", array("layer1.0.conv1.bias", np.zeros_like)),
        ("maxpool", attribute("/maxpool/MaxPool", "pads", [0, 0, 1, 1])),
        ("layer2.0.conv2", nothing_left),
        ("conv1", unsigned_pair),
        (None, requantised(8)),
        (None, array("layer2.0/relu/Relu_output_0_scale", lambda s: s * 8)),
        (None, array("layer2.0/relu/Relu_output_0_scale", lambda s: s / 8)),
        (
            None,
            swap_arrays("/Div_output_0_scale", "layer3.0/downsample/downsample.1/BatchNormalization_output_0_scale"),
        ),
        RESIDUAL,
    ],
    "halve": [
        ("layer2.0.conv2", array(f"{CONV}_int8", bump((3, 1, 1, 1), 1))),
        ("layer2.0.conv2", array(f"{CONV}_scale", neighbour((5,)))),
        ("layer2.0.conv2", array(f"{CONV}_scale", lambda s: s * 2)),
        ("layer2.0.conv2", array(f"{CONV}_scale", bump((5,), np.inf))),
        ("layer2.0.conv2", array(f"{CONV}_scale", lambda s: np.where(np.arange(s.size) == 5, 0, s))),
        ("layer2.0.conv2", array("layer2.0/relu/Relu_output_0_scale", neighbour(()))),
        ("layer2.0.conv2", array("layer2.0/relu/Relu_output_0_scale", lambda s: s * 2)),
        ("layer2.0.conv2", array("layer2.0/relu/Relu_output_0_scale", np.zeros_like)),
        ("layer2.0.conv2", unpaired("/layer2/layer2.0/relu/Relu_output_0")),
        ("layer1.0.conv1", array("layer1.0.conv1.bias", neighbour((0,)))),
        RESIDUAL,
        RELU,
    ],
    "engine": [
        (None, compiled(3, lambda w: w.transpose(0, 1, 3, 2))),
        (None, compiled(3, lambda w: w[::-1])),
        (None, compiled(1, lambda s: s * 2)),
        (None, compiled(4, lambda s: np.roll(s, 1))),
        (None, compiled(6, lambda s: s * 2)),
        (None, compiled(8, np.zeros_like)),
        (None, behind("Neg")),
        (None, rename_output),
        (None, static_batch),
        (None, wrong_alone),
    ],
}
