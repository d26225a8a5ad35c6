"""Bad graphs: how each is made from the INT8 file of the tiny ResNeXt, and what is said of it.

Sources of the faults: files of other quantisers, TensorRT's developer guide, and what a hostile file may hold.
"""

from __future__ import annotations

import pickle
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from faults import array, behind, node, pair_after, scale_of_dequantise, unpaired, unsigned_pair
from onnx import TensorProto, helper, numpy_helper

from exporters import lint

if TYPE_CHECKING:
    from collections.abc import Callable

    from faults import Change, Fault

STEM, INNER, BLOCK = (
    "/relu/Relu_output_0",
    "/layer2/layer2.0/relu/Relu_output_0",
    "/layer1/layer1.0/relu_2/Relu_output_0",
)
SHORTCUT = "/layer2/layer2.0/downsample/downsample.1/BatchNormalization_output_0"
CONV, POOL, LAYER = "layer2.0.conv2.weight", "/maxpool/MaxPool_output_0", "/layer2/layer2.0/conv2/Conv"


def tensor(model: onnx.ModelProto, name: str) -> onnx.TensorProto:
    return next(each for each in model.graph.initializer if each.name == name)


def other(name: str, change: Callable[[np.ndarray], Any]) -> Fault:
    """Another array, of whatever type and shape, in the place of this one."""

    def plant(model: onnx.ModelProto) -> None:
        held = tensor(model, name)
        held.CopyFrom(numpy_helper.from_array(np.asarray(change(numpy_helper.to_array(held))), name))

    return plant


def both(*plants: Fault) -> Fault:
    def plant(model: onnx.ModelProto) -> None:
        for each in plants:
            each(model)

    return plant


def reads(name: str, index: int, value: Any) -> Fault:
    """The node reads a constant of its own at ``index``; nothing where ``value`` is None."""

    def plant(model: onnx.ModelProto) -> None:
        changed = node(model, name)
        if value is None:
            del changed.input[index:]
            return
        model.graph.initializer.append(numpy_helper.from_array(np.asarray(value), f"{name} {index}"))
        changed.input[index] = f"{name} {index}"

    return plant


def told(name: str, **attributes: Any) -> Fault:
    def plant(model: onnx.ModelProto) -> None:
        changed = node(model, name)
        kept = [each for each in changed.attribute if each.name not in attributes]
        del changed.attribute[:]
        changed.attribute.extend([*kept, *(helper.make_attribute(key, value) for key, value in attributes.items())])

    return plant


def with_nodes(*nodes: onnx.NodeProto) -> Fault:
    """More nodes, each behind all that was there."""

    def plant(model: onnx.ModelProto) -> None:
        model.graph.node.extend(nodes)

    return plant


def quantised_bias(model: onnx.ModelProto) -> None:
    layer = node(model, LAYER)
    bias = numpy_helper.to_array(tensor(model, layer.input[2]))
    model.graph.initializer.append(numpy_helper.from_array(np.round(bias / 1e-3).astype(np.int32), "b32"))
    model.graph.initializer.append(numpy_helper.from_array(np.array(1e-3, np.float32), "bs"))
    model.graph.node.insert(0, helper.make_node("DequantizeLinear", ["b32", "bs"], ["bdq"]))
    layer.input[2] = "bdq"


def groups_of_two(model: onnx.ModelProto) -> None:
    width = tensor(model, f"{CONV}_int8").dims[1]
    group = next(each for each in node(model, LAYER).attribute if each.name == "group")
    group.i *= width // 2
    other(f"{CONV}_int8", lambda weights: weights[:, :2])(model)


def float_weights(model: onnx.ModelProto) -> None:
    scale, weights = (numpy_helper.to_array(tensor(model, f"{CONV}_{part}")) for part in ("scale", "int8"))
    reads(LAYER, 1, weights * scale[:, None, None, None])(model)


def computed_scale(model: onnx.ModelProto) -> None:
    """The scale of the image follows the image, as in dynamic quantisation."""
    model.graph.node.insert(0, helper.make_node("ReduceMax", ["images"], ["largest"], keepdims=0))
    for operator in ("QuantizeLinear", "DequantizeLinear"):
        node(model, f"/Div_output_0_{operator}").input[1] = "largest"


def second_scale(model: onnx.ModelProto) -> None:
    """The downsample reads the block before it under a scale of its own."""
    names = [f"{BLOCK}_QuantizeLinear", f"{BLOCK}_DequantizeLinear"]
    pair = [onnx.NodeProto.FromString(node(model, name).SerializeToString()) for name in names]
    for each in pair:
        each.name, each.output[0], each.input[1] = f"{each.name}_2", f"{each.output[0]}_2", "wide"
    pair[1].input[0] = pair[0].output[0]
    scale = numpy_helper.to_array(tensor(model, f"{BLOCK}_scale"))
    model.graph.initializer.append(numpy_helper.from_array(np.asarray(2 * scale), "wide"))
    place = list(model.graph.node).index(node(model, names[1]))
    for each in reversed(pair):
        model.graph.node.insert(place, each)
    node(model, "/layer2/layer2.0/downsample/downsample.0/Conv").input[0] = pair[1].output[0]


def branches(inner: onnx.NodeProto) -> Fault:
    """An If behind the logits, with ``inner`` in one branch of it."""
    sink = helper.make_tensor_value_info("inner_out", TensorProto.FLOAT, None)
    left = helper.make_graph([inner], "left", [], [sink])
    right = helper.make_graph([helper.make_node("Identity", ["logits"], ["inner_out"])], "right", [], [sink])
    choice = helper.make_node("If", ["yes"], ["chosen"], "/head/If", then_branch=left, else_branch=right)

    def plant(model: onnx.ModelProto) -> None:
        model.graph.initializer.append(numpy_helper.from_array(np.array(True), "yes"))
        model.graph.node.append(choice)

    return plant


def foreign(model: onnx.ModelProto) -> None:
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    behind("QLinearAdd", domain="com.microsoft")(model)


def declared(opset: int) -> Fault:
    def plant(model: onnx.ModelProto) -> None:
        model.opset_import[0].version = opset

    return plant


def open_height(model: onnx.ModelProto) -> None:
    model.graph.input[0].type.tensor_type.shape.dim[2].dim_param = "height"


def scales_of_one_element(model: onnx.ModelProto) -> None:
    for held in model.graph.initializer:
        if held.name.endswith(("_scale", "_zero_point")) and not held.dims:
            held.dims.append(1)


def levels_behind_identity(model: onnx.ModelProto) -> None:
    model.graph.node.insert(0, helper.make_node("Identity", [f"{CONV}_int8"], ["moved"], "moved"))
    node(model, f"{CONV}_int8_DequantizeLinear").input[0] = "moved"


@dataclass(frozen=True)
class Bad:
    """A graph that breaks ``rule`` and no other, at ``module``; None where it is every layer.

    ``built``: what TensorRT-RTX makes of it; by default 8 bits throughout.
    """

    rule: str
    module: str | None
    plant: Fault
    placement: str = "tensorrt"
    opset: int | None = None
    built: str = ""


def scaled(name: str, change: Change) -> Fault:
    return array(f"{name}_scale", change)


def one(value: float, index: int = 3) -> Change:
    """One of the scales is ``value``."""
    return lambda scale: np.where(np.arange(scale.size) == index, value, scale)


AT, ZERO, NEW = "layer2.0.conv2", f"{CONV}_zero_point", f"{INNER}_DequantizeLinear"
LINTED: dict[str, Bad] = {
    "an activation in UINT8": Bad("Q001", "relu", other(f"{STEM}_zero_point", lambda zero: zero.astype(np.uint8))),
    "an activation about 3": Bad(
        "Q001", "relu", array(f"{STEM}_zero_point", lambda zero: zero + 3), built=lint.REFUSED
    ),
    "zero points left out, which makes it UINT8": Bad(
        "Q001",
        "relu",
        both(reads(f"{STEM}_QuantizeLinear", 2, None), reads(f"{STEM}_DequantizeLinear", 2, None)),
    ),
    "an image without its negative half": Bad("Q002", "conv1", unsigned_pair, "onnxruntime"),
    "an activation scaled by channel": Bad(
        "Q003",
        "layer2.0.relu",
        both(*(other(f"{INNER}_{part}", lambda value: np.full(64, value)) for part in ("scale", "zero_point"))),
        built=lint.FLOAT,
    ),
    "weights under one scale": Bad("Q004", AT, both(other(f"{CONV}_scale", np.max), other(ZERO, np.max))),
    "a bias in INT32": Bad("Q005", AT, quantised_bias, built=lint.REFUSED),
    "a pair before a ReLU": Bad(
        "Q006", "layer2.0.relu", pair_after("/layer2/layer2.0/bn1/BatchNormalization_output_0", "p")
    ),
    "pairs on both sides of an Add": Bad(
        "Q007", "layer2.0", pair_after("/layer2/layer2.0/bn3/BatchNormalization_output_0", "p")
    ),
    "an Add without a pair": Bad("Q008", "layer2.0", unpaired(SHORTCUT)),
    "a pool that is read in float as well": Bad("Q009", "maxpool", with_nodes(helper.make_node("Neg", [POOL], ["n"]))),
    "groups of two channels": Bad("Q010", AT, groups_of_two),
    "weights without their activation": Bad("Q011", AT, unpaired(INNER), built=lint.FLOAT),
    "an activation without its weights": Bad("Q011", AT, float_weights, built=lint.FLOAT),
    "operands of two types": Bad(
        "Q012",
        AT,
        both(declared(19), other(f"{CONV}_scale", lambda scale: scale.astype(np.float16))),
        built=lint.REFUSED,
    ),
    "a scale of 0": Bad("Q013", "layer2.0.relu", scaled(INNER, np.zeros_like), built=lint.REFUSED),
    "a negative scale of an activation": Bad("Q013", "layer2.0.relu", scaled(INNER, np.negative), built=lint.REFUSED),
    "a scale of NaN": Bad("Q013", AT, scaled(CONV, one(np.nan)), built=lint.REFUSED),
    "an infinite scale": Bad("Q013", AT, scaled(CONV, one(np.inf))),
    "a negative scale of one channel": Bad("Q013", AT, scaled(CONV, one(-1)), built=lint.REFUSED),
    "a scale that is no float": Bad(
        "Q013", "layer2.0.downsample.1", other(f"{SHORTCUT}_scale", np.int32), built=lint.REFUSED
    ),
    "a scale that follows the image": Bad("Q014", "conv1", computed_scale, built=lint.REFUSED),
    "a scale that another one undoes": Bad("Q015", "layer2.0.relu", scale_of_dequantise(4)),
    "a zero point that is not taken off": Bad("Q015", "layer2.0.relu", reads(NEW, 2, np.int8(5)), built=lint.REFUSED),
    "a zero point of another type": Bad("Q016", "layer2.0.relu", reads(NEW, 2, np.uint8(0))),
    "one zero point left out, which makes it UINT8": Bad(
        "Q016", "layer2.0.relu", reads(f"{INNER}_QuantizeLinear", 2, None), "onnxruntime"
    ),
    "one zero point for 64 scales": Bad("Q017", AT, other(ZERO, np.max), built=lint.REFUSED),
    "32 scales for 64 channels": Bad(
        "Q017",
        AT,
        both(*(other(f"{CONV}_{part}", lambda each: each[:32]) for part in ("scale", "zero_point"))),
        built=lint.REFUSED,
    ),
    "scales along an axis that is not there": Bad(
        "Q017", AT, told(f"{CONV}_int8_DequantizeLinear", axis=4), built=lint.REFUSED
    ),
    "one block under two scales": Bad("Q018", "layer1.0.relu_2", second_scale),
    "weights scaled by input channel": Bad(
        "Q019",
        AT,
        both(
            told(f"{CONV}_int8_DequantizeLinear", axis=1),
            *(other(f"{CONV}_{part}", lambda each: each[:16]) for part in ("scale", "zero_point")),
        ),
        built=lint.FLOAT,
    ),
    "weights about 3": Bad("Q020", AT, array(ZERO, lambda zero: zero + 3), built=lint.REFUSED),
    "weights in UINT8": Bad(
        "Q020",
        AT,
        both(*(other(f"{CONV}_{part}", lambda each: each.astype(np.uint8)) for part in ("int8", "zero_point"))),
        built=lint.REFUSED,
    ),
    "weights stored in INT8, for TensorRT 8": Bad("Q021", None, lambda _: None, "tensorrt-8"),
    "an operator that no parser knows": Bad("Q022", "/planted", behind("Unique", axis=0), built=lint.REFUSED),
    "the same in a branch": Bad(
        "Q022",
        "head",
        branches(helper.make_node("Unique", ["logits"], ["inner_out"], "/head/Unique")),
        built=lint.REFUSED,
    ),
    "a pair without a zero point in a branch": Bad(
        "Q001",
        "head",
        branches(helper.make_node("QuantizeLinear", ["logits", f"{STEM}_scale"], ["inner_out"], "/head/Q")),
    ),
    "an operator of somebody's": Bad("Q023", "/planted", foreign, built=lint.REFUSED),
    "an opset that TensorRT 8.2 does not read": Bad("Q024", "", lambda _: None, opset=13),
    "an opset of the future": Bad("Q024", "", declared(99)),
    "an image of any height": Bad("Q025", "images", open_height, built=lint.REFUSED),
    "an activation scale of shape [1]": Bad(
        "Q026", AT, other(f"{INNER}_scale", lambda scale: scale.reshape(1)), built=lint.FLOAT
    ),
    "scales of one element": Bad("Q026", None, scales_of_one_element, built=lint.FLOAT),
    "a pair on the branch of a convolution alone": Bad(
        "Q027",
        "layer2.0",
        both(unpaired(SHORTCUT), pair_after("/layer2/layer2.0/bn3/BatchNormalization_output_0", "p")),
    ),
    "a weight scale that a GPU takes for 0": Bad("Q030", AT, scaled(CONV, one(1e-40))),
    "two pairs in series": Bad("Q034", AT, pair_after(f"{INNER}_DequantizeLinear_output", "p")),
    "levels behind a node of their own": Bad("Q037", AT, levels_behind_identity, built=lint.REFUSED),
}


# --- the same network, stored in other ways: nothing is said of it ----------------------------------------------------


def constant_nodes(model: onnx.ModelProto) -> None:
    for held in model.graph.initializer:
        model.graph.node.insert(0, helper.make_node("Constant", [], [held.name], value=held))
    model.graph.ClearField("initializer")


def whole_pairs(model: onnx.ModelProto) -> None:
    """Weights in float32 behind a pair of their own, as TensorRT 8 reads them."""
    for each in [each for each in model.graph.node if each.input[0].endswith("_int8")]:
        name, scale, zero = each.input
        other(name, np.float32)(model)
        quantise = helper.make_node("QuantizeLinear", [name, scale, zero], [f"{name}_q"], axis=0)
        model.graph.node.insert(0, quantise)
        each.input[0] = f"{name}_q"


def nameless(model: onnx.ModelProto) -> None:
    for each in model.graph.node:
        each.ClearField("name")


HONEST: dict[str, Fault] = {
    "as it was built": lambda _: None,
    "constants in nodes": constant_nodes,
    "weights in float behind whole pairs": whole_pairs,
    "a zero point that is implied": reads(NEW, 2, None),
    "no names": nameless,
}


# --- files that are no model: each is refused before any rule is asked ------------------------------------------------


def parsed(plant: Fault) -> Callable[[bytes], bytes]:
    def change(data: bytes) -> bytes:
        model = onnx.ModelProto.FromString(data)
        plant(model)
        return model.SerializeToString()

    return change


def elsewhere(held: onnx.TensorProto) -> None:
    held.ClearField("raw_data")
    held.data_location = TensorProto.EXTERNAL
    held.external_data.add(key="location", value="../../etc/passwd")


def constant_elsewhere() -> onnx.NodeProto:
    made = helper.make_node(
        "Constant", [], ["inner_out"], value=numpy_helper.from_array(np.zeros(3, np.float32), "far")
    )
    elsewhere(made.attribute[0].t)
    return made


def reread(name: str, index: int, value: str) -> Fault:
    def plant(model: onnx.ModelProto) -> None:
        node(model, name).input[index] = value

    return plant


def twice(model: onnx.ModelProto) -> None:
    node(model, LAYER).output[0] = node(model, "/relu/Relu").output[0]


def reversed_nodes(model: onnx.ModelProto) -> None:
    nodes = list(model.graph.node)[::-1]
    del model.graph.node[:]
    model.graph.node.extend(nodes)


def renamed(model: onnx.ModelProto) -> None:
    node(model, "/relu/Relu").op_type = "Rleu"


def shaped(*sizes: int) -> Fault:
    def plant(model: onnx.ModelProto) -> None:
        held = tensor(model, f"{CONV}_int8")
        del held.dims[:]
        held.dims.extend(sizes)

    return plant


REFUSED: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "half a file": (lambda data: data[: len(data) // 2], "truncated or no ONNX file"),
    "an empty file": (lambda _: b"", "not a valid ONNX file"),
    "a text": (lambda _: b"to be or not to be", "truncated or no ONNX file"),
    "a pickle": (lambda _: pickle.dumps({"weights": [1.0]}), "truncated or no ONNX file"),
    "a model without its graph": (parsed(lambda model: model.ClearField("graph")), "not a valid ONNX file"),
    "no opset": (parsed(lambda model: model.ClearField("opset_import")), "not a valid ONNX file"),
    "a format of the future": (parsed(lambda model: setattr(model, "ir_version", 999)), "not a valid ONNX file"),
    "weights in another file": (parsed(lambda model: elsewhere(model.graph.initializer[0])), "in another file"),
    "a constant of a branch in another file": (parsed(branches(constant_elsewhere())), "keeps far in another file"),
    "a circle": (parsed(reread("/Sub", 0, BLOCK)), "not a valid ONNX file"),
    "nodes out of order": (parsed(reversed_nodes), "not a valid ONNX file"),
    "a tensor that nothing makes": (parsed(reread(LAYER, 1, "ghost")), "not a valid ONNX file"),
    "weights that are not there": (parsed(lambda model: model.graph.initializer.pop()), "not a valid ONNX file"),
    "a name that is made twice": (parsed(twice), "not a valid ONNX file"),
    "an operator that is none": (parsed(renamed), "not a valid ONNX file"),
    "a pair without a scale": (parsed(reads(f"{STEM}_QuantizeLinear", 1, None)), "not a valid ONNX file"),
    "an axis in words": (parsed(told(f"{CONV}_int8_DequantizeLinear", axis="rows")), "not a valid ONNX file"),
    "more weights than are there": (parsed(shaped(64, 16, 9, 9)), "not a valid ONNX file"),
    "weights of a negative size": (parsed(shaped(-64, -16, 3, 3)), "not a valid ONNX file"),
}


# --- what reads no file, and is asked all the same: the rules that it breaks ------------------------------------------

UNREAD: dict[str, tuple[Fault, set[str]]] = {
    "no nodes": (lambda model: model.graph.ClearField("node"), set()),
    "nothing at all": (lambda model: model.Clear(), set()),
    "a circle": (reread("/Sub", 0, BLOCK), set()),
    "a circle of one": (reread(f"{STEM}_QuantizeLinear", 0, f"{STEM}_QuantizeLinear_output"), set()),
    "nodes out of order": (reversed_nodes, set()),
    "weights that nothing makes": (reread(LAYER, 1, "ghost"), {"Q011"}),
    "a pair without a scale": (reads(f"{STEM}_QuantizeLinear", 1, None), {"Q001", "Q014", "Q016"}),
    "nodes that read nothing": (
        lambda model: [each.ClearField("input") for each in model.graph.node],
        {"Q001", "Q014"},
    ),
}
