"""The table of what changed between opsets is what the schemas say, and what the runtimes do."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from onnx import helper, numpy_helper

from exporters.opset_versions import VERSIONS
from exporters.opsets import canonical_attributes, changed, defaults_to_write, moved, spelt_as_inputs

# The newest opset that onnxruntime answers in.
NEWEST_RUN = 24
NEWEST = onnx.defs.onnx_opset_version()

OPERATORS = """
    Abs Add And ArgMax ArgMin AveragePool BatchNormalization Cast CastLike Ceil Celu Clip Concat Constant
    ConstantOfShape Conv ConvTranspose CumSum DepthToSpace DequantizeLinear Div Dropout DynamicQuantizeLinear Einsum
    Elu Equal Erf Exp Expand EyeLike Flatten Floor Gather GatherElements GatherND Gelu Gemm GlobalAveragePool
    GlobalMaxPool Greater GreaterOrEqual GroupNormalization HardSigmoid HardSwish Hardmax Identity If
    InstanceNormalization IsInf IsNaN LRN LayerNormalization LeakyRelu Less LessOrEqual Log LogSoftmax Loop
    LpNormalization LpPool MatMul Max MaxPool Mean Min Mish Mod Mul Neg NonZero Not OneHot Or PRelu Pad Pow
    QuantizeLinear Range Reciprocal ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin
    ReduceProd ReduceSum ReduceSumSquare Relu Reshape Resize Round Scan ScatterElements ScatterND Selu Shape Sigmoid
    Sign Size Slice Softmax Softplus Softsign SpaceToDepth Split Sqrt Squeeze Sub Sum Tanh Tile TopK Transpose Trilu
    Unsqueeze Upsample Where Xor
""".split()


@cache
def versions(operator: str) -> list[int]:
    """The versions of ``operator`` from opset 7 on, the one of opset 7 among them."""
    numbers = []
    number = NEWEST
    while onnx.defs.has(operator, number):
        number = onnx.defs.get_schema(operator, number).since_version
        numbers.append(number)
        number -= 1
    return sorted(number for number in numbers if number >= 7 or number == max(old for old in numbers if old <= 7))


# The other ways to write a constant.
CONSTANTS = ["sparse_value", "value_float", "value_floats", "value_int", "value_ints", "value_string", "value_strings"]


@pytest.mark.parametrize("operator", sorted(VERSIONS))
def test_every_row_stands_on_the_schemas(operator: str) -> None:
    for version in VERSIONS[operator]:
        schema = onnx.defs.get_schema(operator, version.number)
        assert schema.since_version == version.number
        inputs = [value.name for value in schema.inputs]
        for name, place in version.moved.items():
            assert name not in schema.attributes
            assert place < len(inputs)
        if not onnx.defs.has(operator, version.number - 1):
            continue
        older = onnx.defs.get_schema(operator, version.number - 1)
        if version.matters is not None:
            continue
        new = {name for name in schema.attributes if name not in older.attributes}
        gone = {name for name in older.attributes if name not in schema.attributes}
        assert new - set(version.added) - set(CONSTANTS) == set()
        assert gone - set(version.moved) <= {"consumed_inputs"}


@pytest.mark.parametrize("operator", OPERATORS)
def test_every_version_that_is_described_otherwise_has_an_entry(operator: str) -> None:
    node = ir.node(operator, [], attributes={"mode": "constant"} if operator == "Pad" else {})
    for one, other in zip(versions(operator), versions(operator)[1:], strict=False):
        if onnx.defs.get_schema(operator, other).deprecated or other < 8:
            continue
        assert "no row" not in changed(node, one, other)


def floats(*shape: int) -> np.ndarray:
    return np.random.default_rng(3).uniform(-2, 2, shape).astype(np.float32)


IMAGE = floats(2, 4, 7, 7)
FILTER = floats(4, 4, 3, 3)
CHANNEL = np.abs(floats(4)) + np.float32(0.5)
BYTES = np.arange(24, dtype=np.int8).reshape(2, 3, 4)
POOL = {"kernel_shape": [2, 2], "strides": [2, 2]}
FIRST = np.array([0, 1], np.int64)

# Operator, what goes in (an array that stands in a list is a constant), attributes, and the opset of all that.
CASES: list[tuple[str, list[Any], dict[str, Any], int]] = [
    *((name, [IMAGE], {}, 7) for name in ("Abs", "Ceil", "Exp", "Floor", "Identity", "Neg", "Reciprocal", "Relu")),
    *((name, [IMAGE], {}, 7) for name in ("Elu", "HardSigmoid", "LeakyRelu", "Selu", "Sigmoid", "Softplus")),
    *(
        (name, [IMAGE], {}, 7)
        for name in ("Flatten", "GlobalAveragePool", "GlobalMaxPool", "Shape", "Size", "Softsign")
    ),
    *((name, [IMAGE], {}, 9) for name in ("Erf", "IsNaN", "NonZero", "Sign")),
    *((name, [IMAGE], {}, 14) for name in ("HardSwish", "Trilu")),
    *((name, [np.abs(IMAGE)], {}, 7) for name in ("Log", "Softsign", "Sqrt", "Tanh")),
    *((name, [IMAGE, IMAGE[:1]], {}, 7) for name in ("Add", "Sub", "Mul", "Div")),
    *((name, [IMAGE, IMAGE[:1]], {}, 8) for name in ("Max", "Min", "Mean", "Sum")),
    *((name, [IMAGE > 0, IMAGE > 1], {}, 7) for name in ("And", "Or", "Xor")),
    *((name, [IMAGE, IMAGE[:1]], {}, 9) for name in ("Less", "Greater")),
    ("Pow", [np.abs(IMAGE), np.float32(2)], {}, 7),
    ("Not", [IMAGE > 0], {}, 7),
    ("Equal", [BYTES.astype(np.int64), BYTES.astype(np.int64)], {}, 7),
    ("Where", [IMAGE > 0, IMAGE, -IMAGE], {}, 9),
    ("Round", [IMAGE], {}, 11),
    ("Mod", [BYTES.astype(np.int64), np.array(3, np.int64)], {}, 10),
    ("Mod", [IMAGE, np.float32(0.7)], {"fmod": 1}, 10),
    ("IsInf", [IMAGE], {}, 10),
    ("Celu", [IMAGE], {"alpha": 0.5}, 12),
    ("Conv", [IMAGE, FILTER], {}, 7),
    ("Conv", [IMAGE, FILTER], {"auto_pad": "SAME_UPPER", "strides": [2, 2]}, 7),
    ("ConvTranspose", [IMAGE, FILTER], {"strides": [2, 2]}, 7),
    ("Gemm", [floats(3, 4), floats(4, 5), floats(5)], {"alpha": 0.5}, 7),
    ("MatMul", [floats(3, 4), floats(4, 5)], {}, 7),
    ("BatchNormalization", [IMAGE, CHANNEL, CHANNEL, CHANNEL, CHANNEL], {"epsilon": 1e-3}, 7),
    ("InstanceNormalization", [IMAGE, CHANNEL, CHANNEL], {}, 7),
    ("LRN", [IMAGE], {"size": 3}, 7),
    ("PRelu", [IMAGE, floats(4, 1, 1)], {}, 7),
    ("LpPool", [IMAGE], {"kernel_shape": [2, 2]}, 7),
    ("LpNormalization", [IMAGE], {}, 7),
    *((name, [IMAGE], {"kernel_shape": [3, 3], "pads": [1] * 4}, 7) for name in ("AveragePool", "MaxPool")),
    *((name, [IMAGE], {"kernel_shape": [3, 3], "auto_pad": "SAME_LOWER"}, 7) for name in ("AveragePool", "MaxPool")),
    *(
        (name, [IMAGE], {"kernel_shape": [2, 2], "strides": [2, 2], "ceil_mode": 1}, 10)
        for name in ("AveragePool", "MaxPool")
    ),
    ("AveragePool", [IMAGE], {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1] * 4, "count_include_pad": 1}, 7),
    (
        "AveragePool",
        [IMAGE[..., :6]],
        {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [0, 0, 1, 1], "count_include_pad": 1, "ceil_mode": 1},
        10,
    ),
    ("Clip", [IMAGE], {"min": -0.5, "max": 0.5}, 7),
    ("Clip", [IMAGE], {"max": 0.5}, 7),
    ("Concat", [IMAGE, IMAGE], {"axis": 1}, 7),
    ("Dropout", [IMAGE], {"ratio": 0.3}, 7),
    ("Cast", [IMAGE], {"to": onnx.TensorProto.INT32}, 7),
    ("CastLike", [IMAGE, BYTES.astype(np.float16)], {}, 15),
    ("ArgMax", [IMAGE], {"axis": 1}, 7),
    ("ArgMin", [IMAGE], {"axis": 1, "keepdims": 0}, 7),
    ("CumSum", [IMAGE, [np.array(1, np.int64)]], {}, 11),
    ("DepthToSpace", [IMAGE], {"blocksize": 2}, 7),
    ("SpaceToDepth", [IMAGE[..., :6, :6]], {"blocksize": 2}, 7),
    ("QuantizeLinear", [IMAGE, [np.float32(0.1)], [np.int8(3)]], {}, 10),
    ("QuantizeLinear", [IMAGE, [CHANNEL], [np.zeros(4, np.int8)]], {"axis": 1}, 13),
    ("DequantizeLinear", [BYTES, [np.float32(0.1)], [np.int8(3)]], {}, 10),
    ("DequantizeLinear", [BYTES, [CHANNEL[:3]]], {}, 13),
    ("Gather", [IMAGE, [FIRST]], {"axis": 2}, 7),
    ("GatherElements", [IMAGE, [np.zeros((2, 4, 7, 1), np.int64)]], {"axis": 3}, 11),
    ("GatherND", [IMAGE, [np.array([[0, 1], [1, 2]], np.int64)]], {}, 11),
    ("ScatterElements", [IMAGE, [np.zeros((1, 1, 1, 1), np.int64)], floats(1, 1, 1, 1)], {"axis": 2}, 11),
    ("ScatterND", [floats(4), [np.array([[1], [3]], np.int64)], floats(2)], {}, 11),
    ("Expand", [floats(4, 1), [np.array([2, 4, 3], np.int64)]], {}, 8),
    ("Tile", [floats(2, 3), [np.array([2, 1], np.int64)]], {}, 7),
    ("ConstantOfShape", [[np.array([2, 3], np.int64)]], {}, 9),
    ("Range", [[np.float32(0)], [np.float32(3)], [np.float32(0.5)]], {}, 11),
    ("EyeLike", [floats(3, 3)], {}, 9),
    ("OneHot", [[np.array([1, 2])], [np.array(4, np.int64)], [np.array([0, 1], np.float32)]], {}, 9),
    ("Einsum", [floats(3, 4), floats(4, 5)], {"equation": "ij,jk->ik"}, 12),
    ("Softmax", [floats(3, 5)], {}, 7),
    ("LogSoftmax", [IMAGE], {"axis": 3}, 7),
    ("Softmax", [floats(2, 5, 1, 1)], {"axis": 1}, 11),
    ("Hardmax", [floats(3, 5)], {"axis": -1}, 11),
    ("Pad", [IMAGE], {"pads": [0, 0, 1, 2, 0, 0, 3, 4], "value": 1.5}, 7),
    ("Pad", [IMAGE], {"pads": [0, 0, 1, 2, 0, 0, 3, 4], "mode": "reflect"}, 7),
    ("Reshape", [IMAGE, [np.array([0, -1], np.int64)]], {}, 7),
    ("Slice", [IMAGE], {"starts": [1, 0], "ends": [3, 2**31 - 1], "axes": [1, 2]}, 7),
    ("Slice", [IMAGE], {"starts": [1, -4], "ends": [2, -1]}, 7),
    ("Slice", [IMAGE, [np.array([5])], [np.array([-(2**31)])], [np.array([3])], [np.array([-2])]], {}, 10),
    ("Split", [IMAGE], {"axis": 1, "split": [1, 3]}, 7),
    ("Split", [IMAGE], {"axis": 1}, 7),
    ("Squeeze", [floats(1, 3, 1)], {"axes": [0]}, 7),
    ("Squeeze", [floats(1, 3, 1)], {}, 7),
    ("Unsqueeze", [floats(3, 2)], {"axes": [0, 2]}, 7),
    ("Transpose", [IMAGE], {"perm": [0, 2, 3, 1]}, 7),
    ("TopK", [IMAGE], {"k": 2, "axis": 1}, 7),
    ("Resize", [IMAGE, [np.zeros(0, np.float32)], [np.array([1, 1, 2, 2], np.float32)]], {"mode": "linear"}, 11),
    ("Resize", [IMAGE, [np.zeros(0, np.float32)], [np.array([1, 1, 1.5, 2], np.float32)]], {}, 11),
    ("Upsample", [IMAGE], {"scales": [1.0, 1.0, 2.0, 2.0]}, 7),
    ("LayerNormalization", [IMAGE, floats(7)], {}, 17),
    ("Gelu", [IMAGE], {}, 20),
    ("Mish", [IMAGE], {}, 18),
    *(
        (f"Reduce{name}", [np.abs(IMAGE)], {"axes": [2, 3], "keepdims": 0}, 7)
        for name in ("L1", "L2", "LogSum", "LogSumExp", "Max", "Mean", "Min", "Prod", "Sum", "SumSquare")
    ),
    ("ReduceMean", [IMAGE], {}, 7),
]


def outputs_of(operator: str) -> int:
    return {"Split": 2, "TopK": 2}.get(operator, 1)


def model(operator: str, operands: list[Any], attributes: dict[str, Any], opset: int) -> tuple[onnx.ModelProto, dict]:
    """A graph of one node, and what to feed it."""
    constants = []
    inputs = []
    feed = {}
    names = []
    for place, operand in enumerate(operands):
        name = "" if operand is None else f"in{place}"
        names.append(name)
        if isinstance(operand, list):
            constants.append(numpy_helper.from_array(np.asarray(operand[0]), name))
        elif operand is not None:
            array = np.asarray(operand)
            feed[name] = array
            kind = helper.np_dtype_to_tensor_dtype(array.dtype)
            inputs.append(helper.make_tensor_value_info(name, kind, array.shape))
    outputs = [f"out{place}" for place in range(outputs_of(operator))]
    node = helper.make_node(operator, names, outputs, **attributes)
    ends = [onnx.ValueInfoProto(name=name) for name in outputs]
    graph = helper.make_graph([node], "one", inputs, ends, constants)
    written = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)
    return onnx.shape_inference.infer_shapes(written), feed


def node_of(written: onnx.ModelProto) -> ir.Node:
    return ir.from_proto(written).graph[0]


def raised(case: tuple[str, list[Any], dict[str, Any], int], opset: int) -> tuple[str, list[Any], dict[str, Any]]:
    """The node of ``case`` as ``opset`` spells it."""
    operator, operands, attributes, old = case
    node = node_of(model(operator, operands, attributes, old)[0])
    attributes = {**attributes, **defaults_to_write(node, old, opset)}
    operands = list(operands)
    for name, place in moved(node, old, opset).items():
        operands += [None] * (place + 1 - len(operands))
        number = attributes.pop(name)
        kind = np.float32 if np.asarray(number).dtype.kind == "f" else np.int64
        array = np.asarray(number, kind)
        is_k = operator == "TopK"
        operands[place] = [array.reshape(-1) if is_k else array]
    return operator, operands, attributes


def answers(written: onnx.ModelProto, feed: dict) -> list[np.ndarray]:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(written.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, feed)


def name_of(case: Any) -> str:
    operator, _, attributes, opset = case
    return f"{operator}-{opset}-{'-'.join(attributes)}"


@pytest.mark.parametrize("case", CASES, ids=name_of)
def test_what_means_the_same_answers_the_same_and_is_read_the_same(case: Any) -> None:
    operator, _, _, old = case
    first, feed = model(*case)
    node = node_of(first)
    meaning = canonical_attributes(node, old)
    expected = answers(first, feed)

    later = [number for number in versions(operator) if old < number <= NEWEST_RUN]
    later = [number for number in later if not onnx.defs.get_schema(operator, number).deprecated]
    for opset in later:
        assert changed(node, old, opset) == ""
        spelt, _ = model(*raised(case, opset), opset)
        onnx.checker.check_model(spelt)
        assert canonical_attributes(node_of(spelt), opset) == meaning
        for answer, right in zip(answers(spelt, feed), expected, strict=True):
            # Another kernel of the same operator may add in another order.
            np.testing.assert_allclose(answer, right, rtol=1e-5, atol=1e-6)


def one_node(operator: str, operands: list[Any], attributes: dict[str, Any], opset: int) -> ir.Node:
    return node_of(model(operator, operands, attributes, opset)[0])


FLOAT16 = IMAGE.astype(np.float16)
SCALES = [np.array([1, 1, 2, 2], np.float32)]
NOTHING = [np.zeros(0, np.float32)]


# Operator, operands, attributes, the two opsets, and what is said of the difference.
CHANGED = [
    ("Softmax", [IMAGE], {}, 12, 13, "works along one axis"),
    ("Softmax", [IMAGE], {"axis": 1}, 12, 13, "works along one axis"),
    ("Softmax", [IMAGE], {"axis": -1}, 12, 13, ""),
    ("Softmax", [IMAGE], {"axis": -2}, 13, 12, "works along one axis"),
    ("Softmax", [floats(3, 4)], {}, 12, 17, ""),  # with its default written out
    ("LogSoftmax", [floats(3, 4, 1, 1)], {}, 12, 17, ""),
    ("Hardmax", [IMAGE], {"axis": 2}, 11, 13, "works along one axis"),
    ("AveragePool", [IMAGE], {**POOL, "ceil_mode": 1}, 17, 22, ""),
    ("AveragePool", [IMAGE], {**POOL, "ceil_mode": 1, "pads": [0, 0, 1, 1]}, 17, 19, ""),
    ("AveragePool", [IMAGE], {**POOL, "ceil_mode": 1, "pads": [0, 0, 1, 1]}, 17, 22, ""),
    ("AveragePool", [IMAGE], {**POOL, "ceil_mode": 1, "pads": [1, 1, 1, 1]}, 17, 22, "starts in the padding"),
    ("MaxPool", [IMAGE], {**POOL, "ceil_mode": 1, "pads": [1, 1, 1, 1]}, 22, 17, "starts in the padding"),
    ("MaxPool", [IMAGE], {**POOL, "ceil_mode": 0, "pads": [1, 1, 1, 1]}, 17, 22, ""),
    ("MaxPool", [IMAGE], {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1] * 4, "ceil_mode": 1}, 17, 22, ""),
    ("GroupNormalization", [IMAGE, floats(2), floats(2)], {"num_groups": 2}, 18, 21, "of every channel"),
    ("GroupNormalization", [IMAGE, floats(2), floats(2)], {"num_groups": 2}, 18, 20, ""),
    ("Cast", [IMAGE], {"to": onnx.TensorProto.FLOAT16}, 17, 24, ""),
    ("Cast", [IMAGE], {"to": onnx.TensorProto.FLOAT8E4M3FNUZ}, 19, 24, "largest float8"),
    ("Cast", [IMAGE], {"to": onnx.TensorProto.FLOAT8E4M3FN}, 19, 24, ""),
    ("Cast", [IMAGE], {"to": onnx.TensorProto.STRING}, 7, 9, "text"),
    ("BatchNormalization", [IMAGE, *[CHANNEL] * 4], {}, 9, 15, ""),
    ("BatchNormalization", [IMAGE, *[CHANNEL] * 4], {"spatial": 0}, 7, 9, "every pixel"),
    ("BatchNormalization", [IMAGE, *[CHANNEL] * 4], {"training_mode": 1}, 14, 15, "while it trains"),
    ("ConvTranspose", [IMAGE, FILTER], {"strides": [2, 2], "auto_pad": "SAME_UPPER"}, 7, 11, "other side"),
    ("ConvTranspose", [IMAGE, FILTER], {"strides": [2, 2], "output_shape": [14, 14]}, 7, 11, "other side"),
    ("Range", [[np.float16(0)], [np.float16(9)], [np.float16(1)]], {}, 17, 27, "float32"),
    ("Range", [[np.float32(0)], [np.float32(9)], [np.float32(1)]], {}, 17, 27, ""),
    ("OneHot", [BYTES.astype(np.int64), [np.array(3)], [np.array([0, 1])]], {}, 9, 11, "negative indices"),
    ("Clip", [IMAGE, [np.float32(2)], [np.float32(1)]], {}, 12, 13, "min is above it"),
    ("Clip", [IMAGE, [np.float32(1)], [np.float32(2)]], {}, 12, 13, ""),
    ("Dropout", [IMAGE, None, [np.array(True)]], {}, 13, 12, ""),
    ("Dropout", [IMAGE, None, [np.array(True)]], {}, 13, 11, "whether it trains"),
    ("Resize", [IMAGE, SCALES], {}, 10, 11, "which pixel"),
    ("Resize", [IMAGE, NOTHING, SCALES], {}, 11, 19, ""),
    ("Upsample", [IMAGE, SCALES], {}, 9, 10, "Upsample was withdrawn from opset 10"),
    ("Swish", [IMAGE], {}, 24, 17, "Swish is unknown to opset 17"),
    ("GridSample", [IMAGE, floats(2, 7, 7, 2)], {}, 17, 20, "described otherwise than before, and no row"),
    ("Relu", [IMAGE], {}, 17, NEWEST + 1, "is newer than"),
    ("Relu", [IMAGE], {}, 17, 17, ""),
]


@pytest.mark.parametrize(("operator", "operands", "attributes", "old", "new", "said"), CHANGED)
def test_what_changed_is_said_where_it_matters(
    operator: str, operands: list[Any], attributes: dict[str, Any], old: int, new: int, said: str
) -> None:
    node = one_node(operator, operands, attributes, old)
    found = changed(node, old, new)
    assert said in found
    assert bool(found) == bool(said)


def test_operators_of_other_domains_are_the_same_in_the_same_version_alone() -> None:
    node = ir.node("Gelu", [], domain="com.microsoft")
    assert changed(node, 1, 1) == ""
    assert "unknown to opset 1 of com.microsoft" in changed(node, 1, 2)
    assert spelt_as_inputs("Clip", 17, "com.microsoft") == {}


# A node whose answers really differ, in onnxruntime, where the table says so.
DIFFERING = [
    (("Softmax", [IMAGE], {"axis": 1}, 12), 13),
    (("LogSoftmax", [IMAGE], {"axis": 2}, 11), 13),
    (("Hardmax", [IMAGE], {"axis": 1}, 11), 13),
]


@pytest.mark.parametrize(("case", "opset"), DIFFERING)
def test_what_the_table_calls_changed_answers_otherwise(case: Any, opset: int) -> None:
    operator, operands, attributes, _ = case
    assert changed(one_node(*case), case[-1], opset)
    (old,) = answers(*model(*case))
    (new,) = answers(*model(operator, operands, attributes, opset))
    assert not np.allclose(old, new)


# Two spellings of one node, and whether they mean the same: operands and attributes of either, and their opsets.
IN_INT8 = [IMAGE, [CHANNEL[0]], [np.int8(0)]]
WRITTEN_OUT = {"kernel_shape": [3, 3], "pads": [0] * 4, "auto_pad": "NOTSET"}
SIDES = {"pads": [0, 0, 1, 2] * 2}
PADS = [np.array(SIDES["pads"])]
NORM = [IMAGE, *[CHANNEL] * 4]
SPELLINGS = [
    ("DequantizeLinear", ([BYTES, [CHANNEL[:3]]], {"axis": 1}, 13), ([BYTES, [CHANNEL[:3]]], {"axis": -2}, 17), True),
    ("DequantizeLinear", ([BYTES, [CHANNEL[:3]]], {"axis": 1}, 13), ([BYTES, [CHANNEL[:3]]], {"axis": 0}, 13), False),
    ("DequantizeLinear", ([BYTES, [CHANNEL[0]]], {"axis": 0}, 13), ([BYTES, [CHANNEL[0]]], {"axis": 2}, 21), True),
    ("QuantizeLinear", ([IMAGE, [CHANNEL[0]]], {}, 13), ([IMAGE, [CHANNEL[0]], [np.uint8(0)]], {}, 21), True),
    ("QuantizeLinear", ([IMAGE, [CHANNEL[0]]], {}, 13), ([IMAGE, [CHANNEL[0]], [np.int8(0)]], {}, 21), False),
    (
        "QuantizeLinear",
        ([IMAGE, [CHANNEL[0]]], {"output_dtype": onnx.TensorProto.INT8}, 21),
        ([IMAGE, [CHANNEL[0]], [np.int8(0)]], {}, 13),
        True,
    ),
    (
        "QuantizeLinear",
        ([IMAGE, [CHANNEL[0]], [np.int8(0)]], {}, 13),
        ([IMAGE, [CHANNEL[0]], [np.int8(0)]], {"saturate": 0}, 19),
        True,
    ),
    (
        "Conv",
        ([IMAGE, FILTER], {}, 17),
        ([IMAGE, FILTER], {"kernel_shape": [3, 3], "pads": [0] * 4, "auto_pad": "NOTSET"}, 17),
        True,
    ),
    ("Conv", ([IMAGE, FILTER], {"auto_pad": "VALID"}, 17), ([IMAGE, FILTER], {}, 17), True),
    ("Conv", ([IMAGE, FILTER], {"auto_pad": "SAME_UPPER"}, 17), ([IMAGE, FILTER], {"pads": [1] * 4}, 17), True),
    (
        "Conv",
        ([IMAGE[..., :6, :6], FILTER], {"auto_pad": "SAME_UPPER", "strides": [2, 2]}, 17),
        ([IMAGE[..., :6, :6], FILTER], {"pads": [0, 0, 1, 1], "strides": [2, 2]}, 22),
        True,
    ),
    (
        "Conv",
        ([IMAGE[..., :6, :6], FILTER], {"auto_pad": "SAME_LOWER", "strides": [2, 2]}, 17),
        ([IMAGE[..., :6, :6], FILTER], {"pads": [0, 0, 1, 1], "strides": [2, 2]}, 22),
        False,
    ),
    ("ReduceMean", ([IMAGE], {"axes": [-1, -2]}, 17), ([IMAGE, [np.array([2, 3])]], {}, 18), True),
    (
        "ReduceMean",
        ([IMAGE], {"axes": [2, 3]}, 17),
        ([IMAGE, [np.array([2, 3])]], {"noop_with_empty_axes": 1}, 18),
        True,
    ),
    ("ReduceMean", ([IMAGE], {}, 17), ([IMAGE, [np.array([0, 1, 2, 3])]], {}, 18), True),
    ("ReduceMean", ([IMAGE], {}, 17), ([IMAGE], {"noop_with_empty_axes": 1}, 18), False),
    ("ReduceMean", ([IMAGE], {"axes": [2, 3]}, 17), ([IMAGE, [np.array([3])]], {}, 18), False),
    ("ReduceMean", ([IMAGE], {"axes": [2, 3]}, 17), ([IMAGE, [np.array([2, 3])]], {"keepdims": 0}, 18), False),
    ("Clip", ([IMAGE], {"min": 0.0}, 7), ([IMAGE, [np.float32(0)], [np.float32(np.inf)]], {}, 17), True),
    ("Clip", ([IMAGE], {"min": 0.0, "max": 6.0}, 7), ([IMAGE, [np.float32(0)], [np.float32(5)]], {}, 17), False),
    ("Clip", ([FLOAT16, [np.float16(0)], [np.float16(65504)]], {}, 17), ([FLOAT16, [np.float16(0)]], {}, 13), True),
    (
        "Pad",
        ([IMAGE, [np.array([1, 2, 1, 2])], None, [np.array([-2, -1])]], {}, 18),
        ([IMAGE], SIDES, 7),
        True,
    ),
    (
        "Pad",
        ([IMAGE, PADS, [np.float32(0)]], {}, 17),
        ([IMAGE], SIDES, 7),
        True,
    ),
    (
        "Pad",
        ([IMAGE, PADS, [np.float32(1)]], {}, 17),
        ([IMAGE], SIDES, 7),
        False,
    ),
    (
        "Slice",
        ([IMAGE, [np.array([1, 0])], [np.array([2**63 - 1, 3])], [np.array([-1, 0])]], {}, 13),
        ([IMAGE], {"starts": [0, 1], "ends": [3, 2**31 - 1], "axes": [0, 3]}, 7),
        True,
    ),
    (
        "Slice",
        ([IMAGE, [np.array([1, 0])], [np.array([2**63 - 1, 3])], [np.array([-1, 0])], [np.array([2, 1])]], {}, 13),
        ([IMAGE], {"starts": [0, 1], "ends": [3, 2**31 - 1], "axes": [0, 3]}, 7),
        False,
    ),
    ("Split", ([IMAGE, [np.array([2, 2])]], {"axis": 1}, 13), ([IMAGE], {"axis": -3, "num_outputs": 2}, 18), True),
    ("Split", ([IMAGE, [np.array([1, 3])]], {"axis": 1}, 13), ([IMAGE], {"axis": 1, "num_outputs": 2}, 18), False),
    ("Split", ([IMAGE, [np.array([4, 3])]], {"axis": 2}, 13), ([IMAGE], {"axis": 2, "num_outputs": 2}, 18), True),
    ("Unsqueeze", ([floats(3, 2), [np.array([0, 3])]], {}, 13), ([floats(3, 2)], {"axes": [-1, 0]}, 11), True),
    ("Squeeze", ([floats(1, 3, 1), [np.array([2])]], {}, 13), ([floats(1, 3, 1)], {"axes": [-1]}, 11), True),
    ("Squeeze", ([floats(1, 3, 1), [np.array([2])]], {}, 13), ([floats(1, 3, 1)], {"axes": [0]}, 11), False),
    ("TopK", ([IMAGE, [np.array([2])]], {"axis": -1}, 11), ([IMAGE], {"k": 2, "axis": 3}, 7), True),
    ("Dropout", ([IMAGE], {"ratio": 0.3}, 7), ([IMAGE, [np.float32(0.5)], [np.array(False)]], {}, 13), True),
    ("Dropout", ([IMAGE], {"ratio": 0.3}, 7), ([IMAGE, [np.float32(0.3)], [np.array(True)]], {}, 13), False),
    ("Resize", ([IMAGE, NOTHING, SCALES], {}, 13), ([IMAGE, None, SCALES], {"cubic_coeff_a": -0.5}, 18), True),
    ("Resize", ([IMAGE, NOTHING, SCALES], {}, 13), ([IMAGE, None, SCALES], {"nearest_mode": "floor"}, 18), False),
    ("Reshape", ([IMAGE, [np.array([2, -1])]], {"allowzero": 1}, 14), ([IMAGE, [np.array([2, -1])]], {}, 13), True),
    ("Reshape", ([IMAGE, [np.array([0, -1])]], {"allowzero": 1}, 14), ([IMAGE, [np.array([0, -1])]], {}, 13), False),
    ("Softmax", ([floats(3, 4)], {}, 12), ([floats(3, 4)], {}, 13), True),
    ("BatchNormalization", ([IMAGE, *[CHANNEL] * 4], {"momentum": 0.5}, 7), ([IMAGE, *[CHANNEL] * 4], {}, 15), True),
    (
        "BatchNormalization",
        ([IMAGE, *[CHANNEL] * 4], {"training_mode": 1}, 15),
        ([IMAGE, *[CHANNEL] * 4], {}, 15),
        False,
    ),
    ("Cast", ([IMAGE], {"to": 10}, 13), ([IMAGE], {"to": 10, "saturate": 0}, 19), True),
    ("Cast", ([IMAGE], {"to": 17}, 19), ([IMAGE], {"to": 17, "saturate": 0}, 19), False),
]


@pytest.mark.parametrize(("operator", "one", "other", "same"), SPELLINGS)
def test_attributes_are_compared_by_what_they_mean(operator: str, one: Any, other: Any, same: bool) -> None:
    meanings = []
    for operands, attributes, opset in (one, other):
        meanings.append(canonical_attributes(one_node(operator, operands, attributes, opset), opset))
    assert (meanings[0] == meanings[1]) == same


def test_an_input_that_is_computed_is_told_from_one_that_is_not_given() -> None:
    computed = one_node("ReduceMean", [IMAGE, np.array([2, 3])], {}, 18)
    assert canonical_attributes(computed, 18)["axes"] == "computed"
    assert canonical_attributes(one_node("ReduceMean", [IMAGE], {}, 18), 18)["axes"] is None


def test_shapes_of_the_same_node_in_another_file_count_its_axes() -> None:
    bare = ir.node("Softmax", [ir.Value(name="x")], attributes={"axis": -1})
    known = one_node("Softmax", [IMAGE], {"axis": 3}, 13)
    assert canonical_attributes(bare, 13)["axis"] == -1
    assert canonical_attributes(bare, 13, like=known) == canonical_attributes(known, 13, like=bare)
    positive = ir.node("Softmax", [ir.Value(name="x")], attributes={"axis": 3})
    assert changed(positive, 12, 13)
    assert changed(positive, 12, 13, like=known) == ""


def test_where_inputs_stand_that_once_were_attributes() -> None:
    assert spelt_as_inputs("ReduceSum", 11) == {}
    assert spelt_as_inputs("ReduceSum", 13) == {1: "axes"}
    assert spelt_as_inputs("ReduceMean", 13) == {}
    assert spelt_as_inputs("Slice", 13) == {1: "starts", 2: "ends", 3: "axes", 4: "steps"}
    assert spelt_as_inputs("Resize", 10) == {1: "scales"}
    assert spelt_as_inputs("Resize", 11) == {1: "roi", 2: "scales", 3: "sizes"}
    node = one_node("ReduceMean", [IMAGE], {"axes": [2]}, 17)
    assert moved(node, 17, 18) == {"axes": 1}
    assert moved(node, 17, 17) == {}
    assert defaults_to_write(one_node("Split", [IMAGE], {"axis": 1}, 17), 17, 18) == {"num_outputs": 2}
    assert defaults_to_write(one_node("Softmax", [IMAGE], {}, 12), 12, 13) == {"axis": 1}


# What the checker of ONNX may let pass is no fault of this program.
BROKEN = [
    ("MaxPool", {"kernel_shape": [2, 2], "strides": [2], "ceil_mode": 1}),
    ("MaxPool", {"kernel_shape": [2, 2], "strides": [0, 0], "ceil_mode": 1, "pads": [0, 0, 5, 5]}),
    ("MaxPool", {"auto_pad": "SAME_UPPER", "kernel_shape": [2, 2], "strides": [0, 0]}),
    ("AveragePool", {}),
    ("Softmax", {"axis": 9}),
    ("Split", {"axis": 9}),
    ("Pad", {"pads": [1], "axes": [7]}),
    ("Slice", {"starts": [1, 2], "ends": [3]}),
    ("ReduceMean", {"axes": [-9]}),
    ("Cast", {}),
    ("Resize", {}),
]


@pytest.mark.parametrize(("operator", "attributes"), BROKEN)
@pytest.mark.parametrize("opset", [7, 12, 17, 22])
def test_a_broken_node_is_read_without_a_word(operator: str, attributes: dict[str, Any], opset: int) -> None:
    value = ir.Value(name="x", shape=ir.Shape([2, 4, 7, 7]), type=ir.TensorType(ir.DataType.FLOAT))
    node = ir.node(operator, [value], attributes=attributes)
    assert canonical_attributes(node, opset) == canonical_attributes(node, opset)
    assert isinstance(changed(node, opset, 17), str)
