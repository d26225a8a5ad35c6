"""Graphs of a layer or two with Q/DQ pairs, written by hand: what lint says of each, and what TensorRT-RTX makes of it.

The name of a node is ``/MODULE/OPERATOR``. Every input is a batch of 16 channels of 16 x 16 pixels.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import ml_dtypes
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

CHANNELS, SIDE = 16, 16
ONES = np.ones(CHANNELS, np.float32)
# One scale or zero point for each channel.
CHANNEL_SCALES = np.full(CHANNELS, 0.05, np.float32)
CHANNEL_ZEROS = np.zeros(CHANNELS, np.int8)
ZERO = np.int8(0)
FP8_ZERO = np.array(0, ml_dtypes.float8_e4m3fn)
FLOAT16, FLOAT = TensorProto.FLOAT16, TensorProto.FLOAT


class SmallGraph:
    """A graph that grows node by node; each method answers with the name of what it adds."""

    def __init__(
        self, opset: int = 19, dtype: type = np.float32, shape: Sequence[int] = (CHANNELS, SIDE, SIDE)
    ) -> None:
        self.opset, self.dtype, self.shape = opset, dtype, shape
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, np.ndarray] = {}
        self.random = np.random.default_rng(0)

    def constant(self, name: str, array: Any) -> str:
        self.constants[name] = np.asarray(array)
        return name

    def number(self, name: str, value: Any) -> str:
        """A constant of the graph's own float type."""
        return self.constant(name, np.asarray(value, self.dtype))

    def node(self, operator: str, inputs: Sequence[str], module: str, outputs: int = 1, **attributes: Any) -> str:
        names = [f"{module}_out{index or ''}" for index in range(outputs)]
        self.nodes.append(helper.make_node(operator, inputs, names, f"/{module}/{operator}", **attributes))
        return names[0]

    def quantise(self, value: str, module: str, scale: Any = 0.05, zero: Any = ZERO, **attributes: Any) -> str:
        return self._half("QuantizeLinear", value, module, scale, zero, attributes)

    def dequantise(self, value: str, module: str, scale: Any = 0.05, zero: Any = ZERO, **attributes: Any) -> str:
        return self._half("DequantizeLinear", value, module, scale, zero, attributes)

    def _half(self, operator: str, value: str, module: str, scale: Any, zero: Any, attributes: dict[str, Any]) -> str:
        name = f"{module}_{operator[0]}"
        inputs = [value, self.number(f"{name}_scale", scale)]
        if zero is not None:
            inputs.append(self.constant(f"{name}_zero", zero))
        self.nodes.append(helper.make_node(operator, inputs, [name], f"/{module}/{operator}", **attributes))
        return name

    def pair(self, value: str, module: str, scale: Any = 0.05, zero: Any = ZERO, **attributes: Any) -> str:
        levels = self.quantise(value, module, scale, zero, **attributes)
        return self.dequantise(levels, module, scale, zero, **attributes)

    def levels(self, module: str, shape: Sequence[int]) -> str:
        return self.constant(f"{module}_levels", self.random.integers(-127, 128, shape).astype(np.int8))

    def weights(
        self, module: str, shape: Sequence[int] = (16, 16, 3, 3), axis: int = 0, scale: Any = None, **attributes: Any
    ) -> str:
        """Stored levels and their DequantizeLinear, with one scale for each channel along ``axis``."""
        scales = np.full(shape[axis], 0.01) if scale is None else np.asarray(scale)
        zeros = np.zeros(scales.shape, np.int8)
        return self.dequantise(self.levels(module, shape), f"{module}.weight", scales, zeros, axis=axis, **attributes)

    def convolution(
        self,
        value: str,
        module: str,
        shape: Sequence[int] = (16, 16, 3, 3),
        weights: str | None = None,
        **attributes: Any,
    ) -> str:
        bias = self.number(f"{module}_bias", np.zeros(shape[0]))
        pads = {"pads": [shape[2] // 2, shape[3] // 2] * 2}
        inputs = [value, weights or self.weights(module, shape), bias]
        return self.node("Conv", inputs, module, **(pads | attributes))

    def normalised(self, value: str, module: str, outputs: int = 1, **attributes: Any) -> str:
        numbers = [self.constant(f"{module}_{index}", ONES) for index in range(4)]
        return self.node("BatchNormalization", [value, *numbers], module, outputs, **attributes)

    def model(self, output: str, rank: int = 4) -> onnx.ModelProto:
        element = helper.np_dtype_to_tensor_dtype(np.dtype(self.dtype))
        images = helper.make_tensor_value_info("images", element, ["batch", *self.shape])
        # A type of its own where the last node casts.
        last = self.nodes[-1]
        answer = next((each.i for each in last.attribute if last.op_type == "Cast"), element)
        answers = helper.make_tensor_value_info(output, answer, [f"axis{index}" for index in range(rank)])
        constants = [numpy_helper.from_array(array, name) for name, array in self.constants.items()]
        graph = helper.make_graph(self.nodes, "graph", [images], [answers], constants)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", self.opset)], ir_version=10)


INT8, IN_FLOAT, REFUSED = "", "float", "refused"


@dataclass(frozen=True)
class Small:
    """A graph, the rules that it breaks with their modules, and what TensorRT-RTX makes of its last layer."""

    make: Callable[[], onnx.ModelProto]
    broken: set[tuple[str, str]] = field(default_factory=set)
    built: str = INT8


# --- one convolution, reading its activation and weights in many ways -------------------------------------------------


def behind(*operators: tuple[str, list[Any], dict[str, Any]], channels: int = 16) -> Callable[[], onnx.ModelProto]:
    """A convolution that reads its activation's pair through these operators, each with its constants."""

    def make() -> onnx.ModelProto:
        graph = SmallGraph()
        value = graph.pair("images", "pair")
        for index, (operator, constants, attributes) in enumerate(operators):
            names = [graph.constant(f"moved{index}_{place}", array) for place, array in enumerate(constants)]
            value = graph.node(operator, [value, *names], f"moved{index}", **attributes)
        return graph.model(graph.convolution(value, "conv", (16, channels, 3, 3)))

    return make


def between(*operators: tuple[str, list[Any], dict[str, Any]]) -> Callable[[], onnx.ModelProto]:
    """The same, with the operators between the Q and the DQ of the pair."""

    def make() -> onnx.ModelProto:
        graph = SmallGraph()
        value = graph.quantise("images", "pair")
        for index, (operator, constants, attributes) in enumerate(operators):
            names = [graph.constant(f"moved{index}_{place}", array) for place, array in enumerate(constants)]
            value = graph.node(operator, [value, *names], f"moved{index}", **attributes)
        return graph.model(graph.convolution(graph.dequantise(value, "pair"), "conv"))

    return make


def scaled(quantise: Any = 0.05, dequantise: Any = 0.05, zero: Any = ZERO) -> Callable[[], onnx.ModelProto]:
    """A convolution whose activation's Q and DQ have these scales."""

    def make() -> onnx.ModelProto:
        graph = SmallGraph()
        levels = graph.quantise("images", "pair", quantise, zero)
        value = graph.dequantise(levels, "pair", dequantise, zero)
        return graph.model(graph.convolution(value, "conv"))

    return make


def constants(
    scale: Callable[[SmallGraph], str] | None = None, zero: Callable[[SmallGraph], str] | None = None
) -> Callable[[], onnx.ModelProto]:
    """A convolution whose activation's pair has a scale and a zero point that other nodes make of constants."""

    def make() -> onnx.ModelProto:
        graph = SmallGraph()
        made = [scale(graph) if scale else graph.number("scale", 0.05)]
        made.append(zero(graph) if zero else graph.constant("zero", ZERO))
        graph.node("QuantizeLinear", ["images", *made], "quantise")
        graph.node("DequantizeLinear", ["quantise_out", *made], "dequantise")
        return graph.model(graph.convolution("dequantise_out", "conv"))

    return make


def made_by(operator: str, *numbers: Any, **attributes: Any) -> Callable[[SmallGraph], str]:
    """What an operator makes of constants."""

    def make(graph: SmallGraph) -> str:
        names = [graph.constant(f"{operator}_{index}", number) for index, number in enumerate(numbers)]
        return graph.node(operator, names, f"constant.{operator}", **attributes)

    return make


def chosen(graph: SmallGraph) -> str:
    """What an If with a constant condition answers."""
    branches = {}
    for name, number in (("then_branch", 0.05), ("else_branch", 0.06)):
        value = numpy_helper.from_array(np.array(number, np.float32))
        node = helper.make_node("Constant", [], [name], value=value)
        branches[name] = helper.make_graph([node], name, [], [helper.make_tensor_value_info(name, FLOAT, [])])
    return graph.node("If", [graph.constant("yes", np.array(True))], "constant.If", **branches)


def squeezed(operator: str, *numbers: Any, **attributes: Any) -> Callable[[SmallGraph], str]:
    return lambda graph: graph.node("Squeeze", [made_by(operator, *numbers, **attributes)(graph)], "squeeze")


def weighted(make_weights: Callable[[SmallGraph], str], shape: Sequence[int] = (16, 16, 3, 3), opset: int = 19) -> Any:
    """A convolution with these weights."""

    def make() -> onnx.ModelProto:
        graph = SmallGraph(opset)
        weights = make_weights(graph)
        return graph.model(graph.convolution(graph.pair("images", "pair"), "conv", shape, weights))

    return make


def whole_pair(float_weights: Callable[[SmallGraph], str]) -> Callable[[SmallGraph], str]:
    """Float weights behind a pair of their own."""
    scales = np.full(16, 0.01)
    return lambda graph: graph.pair(float_weights(graph), "pair.weight", scales, CHANNEL_ZEROS, axis=0)


def float_weights(graph: SmallGraph) -> str:
    return graph.constant("float_weights", graph.random.normal(size=(16, 16, 3, 3)).astype(np.float32))


def through(operator: str, *numbers: Any, **attributes: Any) -> Callable[[Callable[[SmallGraph], str]], Any]:
    """What an operator makes of weights."""

    def wrap(make: Callable[[SmallGraph], str]) -> Callable[[SmallGraph], str]:
        def wrapped(graph: SmallGraph) -> str:
            names = [graph.constant(f"{operator}_{index}", number) for index, number in enumerate(numbers)]
            return graph.node(operator, [make(graph), *names], f"weights.{operator}", **attributes)

        return wrapped

    return wrap


def stored(shape: Sequence[int] = (16, 16, 3, 3), axis: int = 0, **attributes: Any) -> Callable[[SmallGraph], str]:
    return lambda graph: graph.weights("conv", shape, axis, **attributes)


def moved_levels(
    operator: str, shape: Sequence[int] = (16, 16, 3, 3), **attributes: Any
) -> Callable[[SmallGraph], str]:
    """Stored levels that another node reads before their DequantizeLinear."""

    def make(graph: SmallGraph) -> str:
        levels = graph.node(operator, [graph.levels("conv", shape)], "moved", **attributes)
        return graph.dequantise(levels, "conv.weight", np.full(16, 0.01), CHANNEL_ZEROS, axis=0)

    return make


def cast_levels(graph: SmallGraph) -> str:
    """Levels that were stored in INT32."""
    wide = graph.constant("wide", graph.random.integers(-127, 128, (16, 16, 3, 3)).astype(np.int32))
    levels = graph.node("Cast", [wide], "moved", to=TensorProto.INT8)
    return graph.dequantise(levels, "conv.weight", np.full(16, 0.01), CHANNEL_ZEROS, axis=0)


def unlike_axes() -> onnx.ModelProto:
    """Weights that are quantised by their input channels and dequantised by their output channels."""
    graph = SmallGraph()
    levels = graph.quantise(float_weights(graph), "conv.weight", np.full(16, 0.01), CHANNEL_ZEROS, axis=1)
    weights = graph.dequantise(levels, "conv.weight", np.full(16, 0.01), CHANNEL_ZEROS, axis=0)
    return graph.model(graph.convolution(graph.pair("images", "pair"), "conv", weights=weights))


def blocks(quantise: int, dequantise: int) -> Callable[[], onnx.ModelProto]:
    """A pair whose Q and DQ have blocks of so many channels; 0 for one scale."""

    def scale(size: int) -> tuple[Any, Any, dict[str, int]]:
        if not size:
            return 0.05, ZERO, {}
        shape = (1, CHANNELS // size, SIDE, SIDE)
        return np.full(shape, 0.05), np.zeros(shape, np.int8), {"axis": 1, "block_size": size}

    def make() -> onnx.ModelProto:
        graph = SmallGraph(21)
        numbers, zeros, attributes = scale(quantise)
        levels = graph.quantise("images", "pair", numbers, zeros, **attributes)
        numbers, zeros, attributes = scale(dequantise)
        value = graph.dequantise(levels, "pair", numbers, zeros, **attributes)
        return graph.model(graph.convolution(value, "conv"))

    return make


def half_behind() -> onnx.ModelProto:
    """A float32 Q and a float16 DQ, before a convolution in float16."""
    graph = SmallGraph()
    levels = graph.quantise("images", "pair")
    graph.dtype = np.float16
    value = graph.dequantise(levels, "pair")
    answer = graph.node("Cast", [graph.convolution(value, "conv")], "single", to=FLOAT)
    graph.dtype = np.float32
    return graph.model(answer)


def left_out() -> onnx.ModelProto:
    """No zero points: the QuantizeLinear names its type, and the DequantizeLinear has that of its levels."""
    graph = SmallGraph(21)
    levels = graph.quantise("images", "pair", zero=None, output_dtype=TensorProto.INT8)
    return graph.model(graph.convolution(graph.dequantise(levels, "pair", zero=None), "conv"))


def halved(opset: int = 19, scale: float = 0.05, weight_scale: float = 0.01) -> Callable[[], onnx.ModelProto]:
    """The same in float16 throughout."""

    def make() -> onnx.ModelProto:
        graph = SmallGraph(opset, np.float16)
        weights = graph.weights("conv", scale=np.full(16, weight_scale))
        return graph.model(graph.convolution(graph.pair("images", "pair", scale), "conv", weights=weights))

    return make


def cast_to_half(scale: float = 0.05) -> Callable[[], onnx.ModelProto]:
    """Float32 scales, cast to float16 behind each DequantizeLinear."""

    def make() -> onnx.ModelProto:
        graph = SmallGraph()
        value = graph.node("Cast", [graph.pair("images", "pair", scale)], "half", to=FLOAT16)
        weights = graph.node("Cast", [graph.weights("conv")], "half.weight", to=FLOAT16)
        graph.dtype = np.float16
        answer = graph.node("Cast", [graph.convolution(value, "conv", weights=weights)], "single", to=FLOAT)
        graph.dtype = np.float32
        return graph.model(answer)

    return make


def cast_up() -> onnx.ModelProto:
    """Float16 scales, cast to float32 behind each DequantizeLinear."""
    graph = SmallGraph()
    graph.dtype = np.float16
    half = graph.node("Cast", ["images"], "half", to=FLOAT16)
    value = graph.node("Cast", [graph.pair(half, "pair")], "single", to=FLOAT)
    weights = graph.node("Cast", [graph.weights("conv")], "single.weight", to=FLOAT)
    graph.dtype = np.float32
    return graph.model(graph.convolution(value, "conv", weights=weights))


def eight_bit_floats(scale: Any = 0.05, **attributes: Any) -> Callable[[], onnx.ModelProto]:
    """An FP8 pair; ``attributes`` are those of its QuantizeLinear."""

    def make() -> onnx.ModelProto:
        graph = SmallGraph()
        zeros = np.zeros(16, ml_dtypes.float8_e4m3fn)
        stored_levels = graph.random.normal(size=(16, 16, 3, 3)).astype(ml_dtypes.float8_e4m3fn)
        weights = graph.dequantise(
            graph.constant("levels", stored_levels), "conv.weight", np.full(16, 0.01), zeros, axis=0
        )
        levels = graph.quantise("images", "pair", scale, FP8_ZERO, **attributes)
        value = graph.dequantise(levels, "pair", scale, FP8_ZERO)
        return graph.model(graph.convolution(value, "conv", weights=weights))

    return make


def joined(first: float, second: float) -> Callable[[], onnx.ModelProto]:
    """A convolution that reads a Concat of two pairs with these scales."""

    def make() -> onnx.ModelProto:
        graph = SmallGraph()
        pairs = [graph.pair("images", "first", first)]
        pairs.append(graph.pair(graph.node("Relu", ["images"], "relu"), "second", second))
        value = graph.node("Concat", pairs, "concat", axis=1)
        return graph.model(graph.convolution(value, "conv", (16, 32, 3, 3)))

    return make


def with_bias(make_bias: Callable[[SmallGraph], str]) -> Callable[[], onnx.ModelProto]:
    def make() -> onnx.ModelProto:
        graph = SmallGraph()
        inputs = [graph.pair("images", "pair"), graph.weights("conv"), make_bias(graph)]
        return graph.model(graph.node("Conv", inputs, "conv", pads=[1, 1, 1, 1]))

    return make


def wide_bias(graph: SmallGraph) -> str:
    bias = graph.constant("bias", np.ones(16, np.int32))
    return graph.node("Identity", [graph.dequantise(bias, "bias", 0.1, None)], "identity")


def grouped(groups: int) -> Callable[[], onnx.ModelProto]:
    def make() -> onnx.ModelProto:
        graph = SmallGraph()
        value = graph.pair("images", "pair")
        return graph.model(graph.convolution(value, "conv", (16, 16 // groups, 3, 3), group=groups))

    return make


def listed_inputs() -> onnx.ModelProto:
    """All initialisers are inputs of the graph too, as files of IR version 3 have them."""
    model = scaled()()
    for tensor in model.graph.initializer:
        model.graph.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
    return model


def in_a_function() -> onnx.ModelProto:
    """A function of the file's own behind the convolution."""
    model = scaled()()
    body = [helper.make_node("Relu", ["a"], ["b"], "inner")]
    model.functions.append(helper.make_function("local", "Own", ["a"], ["b"], body, [helper.make_opsetid("", 19)]))
    model.opset_import.append(helper.make_opsetid("local", 1))
    model.graph.node.append(helper.make_node("Own", ["conv_out"], ["answer"], "/own/Own", domain="local"))
    model.graph.output[0].name = "answer"
    return model


def bias_through_identity(graph: SmallGraph) -> str:
    return graph.node("Identity", [graph.number("bias", ONES)], "identity")


def bias_in_int8(graph: SmallGraph) -> str:
    return graph.pair(graph.number("bias", ONES), "bias", 0.1)


# --- two convolutions and what stands between them --------------------------------------------------------------------


def two(middle: Callable[[SmallGraph, str], str]) -> Callable[[], onnx.ModelProto]:
    """A quantised convolution, ``middle``, and another one behind a pair."""

    def make() -> onnx.ModelProto:
        graph = SmallGraph()
        first = graph.convolution(graph.pair("images", "pair"), "first")
        return graph.model(graph.convolution(middle(graph, first), "conv"))

    return make


def bn_relu_pair(graph: SmallGraph, value: str) -> str:
    return graph.pair(graph.node("Relu", [graph.normalised(value, "bn")], "relu"), "pair2")


def relu_bn_pair(graph: SmallGraph, value: str) -> str:
    return graph.pair(graph.normalised(graph.node("Relu", [value], "relu"), "bn"), "pair2")


def pair_bn_pair(graph: SmallGraph, value: str) -> str:
    return graph.pair(graph.normalised(graph.pair(value, "between"), "bn"), "pair2")


def training_bn_pair(graph: SmallGraph, value: str) -> str:
    return graph.pair(graph.normalised(value, "bn", 3, training_mode=1), "pair2")


def vector_and_pool(graph: SmallGraph, value: str) -> str:
    return graph.node("MaxPool", [graph.pair(value, "pair2", [0.05])], "pool", kernel_shape=[2, 2])


def in_series(scale: float, *, pool: bool = False) -> Callable[[SmallGraph, str], str]:
    """A pair with a scale of 0.05 and, perhaps behind a MaxPool, another one."""

    def make(graph: SmallGraph, value: str) -> str:
        once = graph.pair(value, "pair2")
        if pool:
            once = graph.node("MaxPool", [once], "pool", kernel_shape=[2, 2])
        return graph.pair(once, "pair3", scale)

    return make


def block(*, branch: bool, shortcut: bool, projected: bool) -> Callable[[], onnx.ModelProto]:
    """A residual block with pairs before its Add as told; its shortcut is a convolution where it is ``projected``."""

    def make() -> onnx.ModelProto:
        graph = SmallGraph()
        before = graph.node("Relu", ["images"], "relu")
        entry = graph.pair(before, "entry")
        first = graph.node("Relu", [graph.convolution(entry, "block.conv1")], "block.relu")
        second = graph.convolution(graph.pair(first, "middle"), "block.conv2")
        beside = graph.convolution(entry, "block.downsample", (16, 16, 1, 1)) if projected else before
        if branch:
            second = graph.pair(second, "branch", 0.07)
        if shortcut:
            beside = graph.pair(beside, "shortcut") if projected else entry
        added = graph.node("Relu", [graph.node("Add", [second, beside], "block")], "block.last")
        return graph.model(graph.convolution(graph.pair(added, "last"), "conv"))

    return make


def pooled(operator: str, side: int, kernel: int, stride: int, **attributes: Any) -> Callable[[], onnx.ModelProto]:
    """A pool with ceil_mode and padding 1, and a pair and a convolution behind it."""

    def make() -> onnx.ModelProto:
        graph = SmallGraph(shape=(16, side, side))
        settings = {"kernel_shape": [kernel] * 2, "strides": [stride] * 2, "pads": [1] * 4, "ceil_mode": 1}
        value = graph.node(operator, ["images"], "pool", **(settings | attributes))
        return graph.model(graph.convolution(graph.pair(value, "pair"), "conv"))

    return make


def pooled_int8(reader: str | None = None) -> Callable[[], onnx.ModelProto]:
    """A MaxPool between a pair and a convolution; ``reader`` reads it as well."""

    def make() -> onnx.ModelProto:
        graph = SmallGraph()
        value = graph.node("MaxPool", [graph.pair("images", "pair")], "pool", kernel_shape=[2, 2])
        answer = graph.convolution(value, "conv")
        if reader:
            beside = graph.node(reader, [value], "other")
            answer = graph.node("Concat", [answer, beside], "concat", axis=1)
        return graph.model(answer)

    return make


# --- layers that are no convolutions: what of the last one is built in INT8 is told by its kernel ---------------------


def multiplied(
    operator: str = "MatMul", shape: Sequence[int] = (16, 32), axis: int = 1, *, paired: bool = True, **attributes: Any
) -> Callable[[], onnx.ModelProto]:
    """A MatMul or Gemm of vectors; ``attributes`` are its own."""

    def make() -> onnx.ModelProto:
        graph = SmallGraph(shape=(16,))
        value = graph.pair("images", "pair") if paired else "images"
        scale = attributes.get("scale")
        own = {name: each for name, each in attributes.items() if name != "scale"}
        weights = graph.weights("fc", shape, axis, scale)
        return graph.model(graph.node(operator, [value, weights], "fc", **own), rank=2)

    return make


def multiplied_from_left() -> onnx.ModelProto:
    """A MatMul that has its weights on the left, where its outputs are rows."""
    graph = SmallGraph(shape=(16, 8))
    value = graph.pair("images", "pair")
    return graph.model(graph.node("MatMul", [graph.weights("fc", (32, 16), 0), value], "fc"), rank=3)


def transposed_weights() -> onnx.ModelProto:
    """A MatMul whose weights are stored by outputs, as PyTorch has them."""
    graph = SmallGraph(shape=(16,))
    weights = graph.node("Transpose", [graph.weights("fc", (32, 16), 0)], "transpose", perm=[1, 0])
    return graph.model(graph.node("MatMul", [graph.pair("images", "pair"), weights], "fc"), rank=2)


def attention() -> onnx.ModelProto:
    """A MatMul of two computed tensors, of which one has a pair."""
    graph = SmallGraph(shape=(16, 8))
    turned = graph.node("Transpose", ["images"], "turn", perm=[0, 2, 1])
    return graph.model(graph.node("MatMul", [graph.pair("images", "pair"), turned], "fc"), rank=3)


def upsampled(shape: Sequence[int], axis: int, group: int = 1, scale: Any = None, *, paired: bool = True) -> Any:
    """A ConvTranspose."""

    def make() -> onnx.ModelProto:
        graph = SmallGraph()
        value = graph.pair("images", "pair") if paired else "images"
        weights = graph.weights("up", shape, axis, scale)
        return graph.model(graph.node("ConvTranspose", [value, weights], "up", strides=[2, 2], group=group))

    return make


# --- the tables -------------------------------------------------------------------------------------------------------

AXIS, SHUFFLED = np.array([2]), np.array([0, 4, 4, SIDE, SIDE])
WHOLE = np.array([0, CHANNELS, SIDE, SIDE])
SHUFFLE = (("Reshape", [SHUFFLED], {}), ("Transpose", [], {"perm": [0, 2, 1, 3, 4]}), ("Reshape", [WHOLE], {}))
POOL = ("MaxPool", [], {"kernel_shape": [2, 2]})
IDENTITY: tuple[str, list[Any], dict[str, Any]] = ("Identity", [], {})
PADS = np.array([0, 0, 1, 1, 0, 0, 1, 1])
NOT_FOLDED = {("Q038", "quantise"), ("Q038", "dequantise")}
INT8_ZERO = helper.make_tensor("zero", TensorProto.INT8, [1], [0])
MEAN = ("AveragePool", [], {"kernel_shape": [2, 2]})
SUBNORMAL = np.where(np.arange(16) == 3, 1e-40, 0.01)

HONEST: dict[str, Small] = {
    "a pair and weights": Small(scaled()),
    "Identity": Small(behind(IDENTITY)),
    "three times Identity": Small(behind(IDENTITY, IDENTITY, IDENTITY)),
    "Identity between Q and DQ": Small(between(IDENTITY)),
    "a Cast to the same type": Small(behind(("Cast", [], {"to": FLOAT}))),
    "Casts to float64 and back": Small(behind(("Cast", [], {"to": TensorProto.DOUBLE}), ("Cast", [], {"to": FLOAT}))),
    "Casts to float16 on both operands": Small(cast_to_half()),
    "a shuffle of channels": Small(behind(*SHUFFLE)),
    "a shuffle of channels between Q and DQ": Small(between(*SHUFFLE)),
    "Unsqueeze and Squeeze": Small(behind(("Unsqueeze", [AXIS], {}), ("Squeeze", [AXIS], {}))),
    "Flatten and Reshape": Small(behind(("Flatten", [], {}), ("Reshape", [np.array([-1, 16, 16, 16])], {}))),
    "a Slice": Small(behind(("Slice", [np.array([0]), np.array([8]), np.array([2]), np.array([2])], {}))),
    "a Pad with zeros": Small(behind(("Pad", [PADS], {}))),
    "a Pad with edges": Small(behind(("Pad", [PADS], {"mode": "edge"}))),
    "space to depth": Small(behind(("SpaceToDepth", [], {"blocksize": 2}), channels=64)),
    "depth to space": Small(behind(("DepthToSpace", [], {"blocksize": 2}), channels=4)),
    "a Gather of channels": Small(behind(("Gather", [np.arange(16)], {"axis": 1}))),
    "Dropout": Small(behind(("Dropout", [np.float32(0.5), np.array(False)], {}))),
    "a MaxPool and Identity": Small(behind(POOL, IDENTITY)),
    "a MaxPool between Q and DQ": Small(between(POOL)),
    "a MaxPool before a convolution alone": Small(pooled_int8()),
    "two pairs of one scale, joined": Small(joined(0.05, 0.05)),
    "a zero point of shape [1]": Small(scaled(zero=np.zeros(1, np.int8))),
    "a vector in Q and a scalar in DQ": Small(scaled(quantise=[0.05])),
    "zero points left out": Small(left_out),
    "a scale through Identity": Small(constants(made_by("Identity", np.float32(0.05)))),
    "a scale in float16, cast": Small(constants(made_by("Cast", np.float16(0.05), to=FLOAT))),
    "a scale out of a division": Small(constants(made_by("Div", np.float32(5), np.float32(100)))),
    "a scale that was a vector": Small(constants(squeezed("Identity", np.array([0.05], np.float32)))),
    "a scale out of value_float": Small(constants(made_by("Constant", value_float=0.05))),
    "a scale that an If chooses": Small(constants(chosen)),
    "a zero point through Identity": Small(constants(zero=made_by("Identity", ZERO))),
    "a zero point that is cast": Small(constants(zero=made_by("Cast", np.int32(0), to=TensorProto.INT8))),
    "all initialisers are inputs too": Small(listed_inputs),
    "a function of the file's own": Small(in_a_function),
    "float weights behind a pair": Small(weighted(whole_pair(float_weights))),
    "Identity on float weights before a pair": Small(weighted(whole_pair(through("Identity")(float_weights)))),
    "float weights that are scaled": Small(
        weighted(whole_pair(through("Mul", np.full((16, 1, 1, 1), 2, np.float32))(float_weights)))
    ),
    "Identity on dequantised weights": Small(weighted(through("Identity")(stored()))),
    "weights that are transposed": Small(
        weighted(through("Transpose", perm=[3, 2, 0, 1])(stored((3, 3, 16, 16), axis=3)))
    ),
    "weights that are reshaped": Small(weighted(through("Reshape", np.array([16, 16, 3, 3]))(stored((16, 144))))),
    "weights with a negative axis": Small(weighted(stored(axis=-4))),
    "levels that were INT32": Small(weighted(cast_levels)),
    "weights behind two pairs of one scale": Small(weighted(whole_pair(stored()))),
    "a bias through Identity": Small(with_bias(bias_through_identity)),
    "depthwise": Small(grouped(16)),
    "groups of four": Small(grouped(4)),
    "float16 throughout": Small(halved()),
    "float16 with scales below the normal numbers": Small(halved(scale=3e-7, weight_scale=3e-7)),
    "small scales in float32": Small(scaled(1e-9, 1e-9)),
    "FP8": Small(eight_bit_floats()),
    "a pair on the shortcut": Small(block(branch=False, shortcut=True, projected=True)),
    "a shared pair on the shortcut": Small(block(branch=False, shortcut=True, projected=False)),
    "BatchNormalization behind its convolution": Small(
        two(bn_relu_pair)
    ),
    "BatchNormalization before a pair": Small(two(relu_bn_pair)),
    "two pairs in series under one scale": Small(two(in_series(0.05))),
    "a pool with ceil_mode that ends in the image": Small(pooled("MaxPool", 6, 2, 2)),
    "a mean with ceil_mode that ends in the image": Small(pooled("AveragePool", 6, 3, 2)),
    "MatMul": Small(multiplied()),
    "MatMul with a negative axis": Small(multiplied(axis=-1)),
    "MatMul with its weights on the left": Small(multiplied_from_left),
    "MatMul of transposed weights": Small(transposed_weights),
    "Gemm": Small(multiplied("Gemm")),
    "Gemm of transposed weights": Small(multiplied("Gemm", (32, 16), 0, transB=1)),
}  # fmt: skip

BROKEN: dict[str, Small] = {
    "an activation scale of shape [1]": Small(
        scaled([0.05], [0.05], np.zeros(1, np.int8)), {("Q026", "conv")}, IN_FLOAT
    ),
    "a scalar in Q and a vector in DQ": Small(scaled(dequantise=[0.05]), {("Q026", "conv")}, IN_FLOAT),
    "a vector through a MaxPool": Small(
        two(vector_and_pool),
        {("Q026", "conv")},
        IN_FLOAT,
    ),
    "a vector out of value_floats": Small(
        constants(made_by("Constant", value_floats=[0.05])), {("Q026", "conv")}, IN_FLOAT
    ),
    "FP8 under a vector": Small(eight_bit_floats([0.05]), {("Q026", "conv")}, IN_FLOAT),
    "a ReLU behind the pair": Small(behind(("Relu", [], {})), {("Q011", "conv")}, IN_FLOAT),
    "a mean behind the pair": Small(behind(MEAN), {("Q011", "conv")}, IN_FLOAT),
    "a Pad with threes": Small(behind(("Pad", [PADS, np.float32(3)], {})), {("Q011", "conv")}, IN_FLOAT),
    "two pairs of different scales, joined": Small(joined(0.05, 0.1), {("Q011", "conv")}, IN_FLOAT),
    "dequantised to float16 and cast up": Small(cast_up, {("Q039", "conv")}, IN_FLOAT),
    "dequantised weights that are added to": Small(
        weighted(through("Add", np.float32(0.1))(stored())), {("Q011", "conv")}, IN_FLOAT
    ),
    "transposed weights by input channel": Small(
        weighted(through("Transpose", perm=[3, 2, 0, 1])(stored((3, 3, 16, 16), axis=2))), {("Q019", "conv")}, IN_FLOAT
    ),
    "a scale that is the largest of constants": Small(
        constants(made_by("ReduceMax", np.array([0.05, 0.01], np.float32), keepdims=0)), NOT_FOLDED, REFUSED
    ),
    "a zero point out of ConstantOfShape": Small(
        constants(zero=made_by("ConstantOfShape", np.zeros(0, np.int64), value=INT8_ZERO)), NOT_FOLDED, REFUSED
    ),
    "Identity on stored levels": Small(weighted(moved_levels("Identity")), {("Q037", "conv.weight")}, REFUSED),
    "stored levels that are transposed": Small(
        weighted(moved_levels("Transpose", (3, 3, 16, 16), perm=[3, 2, 0, 1])), {("Q037", "conv.weight")}, REFUSED
    ),
    "a bias in INT32 through Identity": Small(with_bias(wide_bias), {("Q005", "conv")}, REFUSED),
    "a bias in INT8": Small(with_bias(bias_in_int8), {("Q005", "conv")}),
    "groups of two": Small(grouped(8), {("Q010", "conv")}),
    "weights quantised along one axis and dequantised along another": Small(unlike_axes, {("Q028", "conv.weight")}),
    "Q in float32 and DQ in float16": Small(
        half_behind, {("Q028", "pair")}
    ),
    "FP8 that does not saturate": Small(eight_bit_floats(saturate=0), {("Q029", "pair")}),
    "a weight scale below the normal numbers": Small(
        weighted(lambda graph: graph.weights("conv", scale=SUBNORMAL)), {("Q030", "conv.weight")}
    ),
    "an activation scale below the normal numbers": Small(scaled(1e-40, 1e-40), {("Q030", "pair")}),
    "a scale that is 0 in float16": Small(cast_to_half(1e-9), {("Q030", "pair")}),
    "float16 in opset 17": Small(halved(17), {("Q031", "pair"), ("Q031", "conv.weight")}),
    "blocks of channels": Small(blocks(8, 8), {("Q036", "pair")}, REFUSED),
    "a pair on the branch, a convolution on the shortcut": Small(
        block(branch=True, shortcut=False, projected=True), {("Q027", "block")}
    ),
    "a pair on the branch, none on the shortcut": Small(
        block(branch=True, shortcut=False, projected=False), {("Q027", "block")}
    ),
    "pairs on both": Small(block(branch=True, shortcut=True, projected=True), {("Q007", "block")}),
    "pairs on none": Small(block(branch=False, shortcut=False, projected=True), {("Q008", "block")}),
    "a pair before a BatchNormalization": Small(
        two(pair_bn_pair),
        {("Q032", "bn")},
    ),
    "BatchNormalization in training mode": Small(
        two(training_bn_pair),
        {("Q033", "bn")},
        REFUSED,
    ),
    "Dropout in training mode": Small(
        behind(("Dropout", [np.float32(0.5), np.array(True)], {})), {("Q033", "moved0")}, REFUSED
    ),
    "two scales in series": Small(
        two(in_series(0.08)), {("Q034", "pair3")}
    ),
    "two scales in series through a MaxPool": Small(
        two(in_series(0.08, pool=True)),
        {("Q034", "pair3")},
    ),
    "a pool that starts in the padding": Small(pooled("MaxPool", 5, 2, 2), {("Q035", "pool")}),
    "a longer pool that starts in the padding": Small(pooled("MaxPool", 5, 3, 3), {("Q035", "pool")}),
    "a mean that starts in the padding": Small(pooled("AveragePool", 5, 2, 2), {("Q035", "pool")}, REFUSED),
    "a mean that counts the padding": Small(pooled("AveragePool", 5, 2, 2, count_include_pad=1), {("Q035", "pool")}),
    "a MaxPool that is read in float": Small(pooled_int8("Neg"), {("Q009", "pool")}),
    "MatMul scaled by its inputs": Small(multiplied(axis=0), {("Q019", "fc")}, IN_FLOAT),
    "MatMul under one scale": Small(multiplied(scale=0.01), {("Q004", "fc")}),
    "MatMul without a pair on its activation": Small(multiplied(paired=False), {("Q011", "fc")}, IN_FLOAT),
    "Gemm scaled by its inputs": Small(multiplied("Gemm", axis=0), {("Q019", "fc")}, IN_FLOAT),
}  # fmt: skip

# TensorRT-RTX 1.7.1 computes every ConvTranspose in float, whatever its pairs.
UPSAMPLED: dict[str, Small] = {
    "by output channel": Small(upsampled((16, 8, 2, 2), 1)),
    "by output channel of a group": Small(upsampled((16, 4, 2, 2), 1, 4)),
    "by input channel": Small(upsampled((16, 12, 2, 2), 0), {("Q019", "up")}),
    "grouped, by input channel": Small(upsampled((16, 4, 2, 2), 0, 4), {("Q019", "up")}),
    "under one scale": Small(upsampled((16, 8, 2, 2), 0, scale=0.01), {("Q004", "up")}),
    "no pair on its activation": Small(upsampled((16, 8, 2, 2), 1, paired=False), {("Q011", "up")}),
}

# What is a matter of taste or of another rule's: nothing is said of it.
UNSAID: dict[str, Small] = {"a MatMul of two activations": Small(attention)}
