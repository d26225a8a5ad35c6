"""One constant, however it is spelt: the same numbers; and computed ones within a bound that every runtime keeps."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn
from torch.nn.functional import batch_norm, conv2d

from exporters import simplify
from exporters.constant import LARGEST, evaluate_constant

if TYPE_CHECKING:
    from pathlib import Path

WEIGHT = np.arange(-6, 6, dtype=np.float32).reshape(3, 4) / 4


def value_in(nodes: list[onnx.NodeProto], *, opset: int = 17, listed: bool = False, **initializers: Any) -> ir.Value:
    """The value ``y`` of a graph with one input ``x``; ``listed`` initialisers are inputs as well."""
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, [3, 4])]
    tensors = [numpy_helper.from_array(np.asarray(array), name) for name, array in initializers.items()]
    if listed:
        inputs += [helper.make_tensor_value_info(item.name, item.data_type, item.dims) for item in tensors]
    use = helper.make_node("Add", ["x", "y"], ["answer"])
    output = helper.make_tensor_value_info("answer", TensorProto.FLOAT, None)
    graph = helper.make_graph([*nodes, use], "graph", inputs, [output], tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    read = ir.from_proto(model)
    [add] = [node for node in read.graph if node.outputs[0].name == "answer"]
    assert add.inputs[1] is not None
    return add.inputs[1]


def node(operator: str, *inputs: str, output: str = "y", **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(operator, list(inputs), [output], **attributes)


def branch(*nodes: onnx.NodeProto, output: str) -> onnx.GraphProto:
    return helper.make_graph(
        list(nodes), "branch", [], [helper.make_tensor_value_info(output, TensorProto.FLOAT, None)]
    )


HELD = node("Constant", output="held", value=numpy_helper.from_array(WEIGHT))
SPELLINGS: dict[str, ir.Value] = {
    "initialiser": value_in([], y=WEIGHT),
    "listed as an input": value_in([], listed=True, y=WEIGHT),
    "Constant": value_in([node("Constant", value=numpy_helper.from_array(WEIGHT))]),
    "Identity": value_in([HELD, node("Identity", "held")]),
    "Cast there and back": value_in(
        [node("Cast", "w", output="wide", to=TensorProto.DOUBLE), node("Cast", "wide", to=TensorProto.FLOAT)], w=WEIGHT
    ),
    "Transpose twice": value_in([node("Transpose", "w", output="turned"), node("Transpose", "turned")], w=WEIGHT),
    "Reshape": value_in([HELD, node("Reshape", "held", "shape")], shape=np.array([3, -1])),
    "Unsqueeze and Squeeze": value_in(
        [node("Unsqueeze", "w", "axes", output="more"), node("Squeeze", "more", "axes")], w=WEIGHT, axes=np.array([1])
    ),
    "Squeeze of opset 11": value_in([node("Squeeze", "w", axes=[0])], opset=11, w=WEIGHT[None]),
    "values in a Constant": value_in(
        [node("Constant", output="flat", value_floats=WEIGHT.ravel().tolist()), node("Reshape", "flat", "shape")],
        shape=np.array([3, 4]),
    ),
    "Concat of slices": value_in(
        [
            node("Slice", "w", "zero", "one", output="head"),
            node("Slice", "w", "one", "three", output="tail"),
            node("Concat", "head", "tail", axis=0),
        ],
        w=WEIGHT, zero=np.array([0]), one=np.array([1]), three=np.array([3]),
    ),
    "levels": value_in(
        [node("DequantizeLinear", "levels", "scale")],
        levels=(WEIGHT * 4).astype(np.int8), scale=np.float32(0.25),
    ),
    "levels about a zero point, by channel": value_in(
        [node("DequantizeLinear", "levels", "scale", "zero", axis=-2)],
        levels=(WEIGHT * 4 + 128).astype(np.uint8), scale=np.full(3, 0.25, np.float32), zero=np.full(3, 128, np.uint8),
    ),
    "quantised and back": value_in(
        [
            node("QuantizeLinear", "w", "scale", "zero", output="levels"),
            node("DequantizeLinear", "levels", "scale", "zero"),
        ],
        w=WEIGHT, scale=np.float32(0.25), zero=np.int8(0),
    ),
    "levels cast, under a scale": value_in(
        [node("Cast", "levels", output="numbers", to=TensorProto.FLOAT), node("Mul", "numbers", "scale")],
        levels=(WEIGHT * 4).astype(np.int8), scale=np.float32(0.25),
    ),
    "If": value_in(
        [
            helper.make_node(
                "If", ["yes"], ["y"],
                then_branch=branch(node("Identity", "w", output="same"), output="same"),
                else_branch=branch(node("Neg", "w", output="turned"), output="turned"),
            )
        ],
        w=WEIGHT, yes=np.array(True),
    ),
    "Where": value_in([node("Where", "mask", "w", "other")], w=WEIGHT, mask=np.ones((3, 4), bool), other=-WEIGHT),
}  # fmt: skip


@pytest.mark.parametrize("value", SPELLINGS.values(), ids=SPELLINGS)
def test_a_constant_is_the_same_however_it_is_spelt(value: ir.Value) -> None:
    constant = evaluate_constant(value)
    assert constant is not None
    assert constant.exact
    assert constant.array.dtype == np.float32
    np.testing.assert_array_equal(constant.array, WEIGHT)
    np.testing.assert_array_equal(constant.values, WEIGHT)


def test_levels_and_scale_behind_a_pair_are_told() -> None:
    constant = evaluate_constant(SPELLINGS["levels about a zero point, by channel"])
    assert constant is not None
    assert constant.quantised is not None
    levels, scale = constant.quantised
    np.testing.assert_array_equal(levels.values, WEIGHT * 4)
    assert levels.dtype == np.uint8
    assert scale.shape == (3, 1)


NO_CONSTANT = {
    "an input": value_in([node("Identity", "x")]),
    "computed from an input": value_in([node("Mul", "x", "w")], w=WEIGHT),
    "an operator without a rule": value_in([node("Softmax", "w")], w=WEIGHT),
    "another domain": value_in([node("Identity", "w", domain="elsewhere")], w=WEIGHT),
    "random": value_in([node("RandomNormalLike", "w")], w=WEIGHT),
}


@pytest.mark.parametrize("value", NO_CONSTANT.values(), ids=NO_CONSTANT)
def test_what_depends_on_more_is_no_constant(value: ir.Value) -> None:
    assert evaluate_constant(value) is None


def test_quantising_cuts_off_what_the_type_does_not_hold() -> None:
    pair = [
        node("QuantizeLinear", "w", "scale", "zero", output="levels"),
        node("DequantizeLinear", "levels", "scale", "zero"),
    ]
    constant = evaluate_constant(value_in(pair, w=WEIGHT, scale=np.float32(0.25), zero=np.uint8(0)))
    assert constant is not None
    np.testing.assert_array_equal(constant.array, np.maximum(WEIGHT, 0))


def test_ten_thousand_nodes_in_a_row_and_in_diamonds() -> None:
    chain = [node("Identity", f"chain_{index}", output=f"chain_{index + 1}") for index in range(10_000)]
    diamonds = [node("Identity", "chain_10000", output="sum_0")]
    diamonds += [node("Add", f"sum_{index}", f"sum_{index}", output=f"sum_{index + 1}") for index in range(60)]
    constant = evaluate_constant(value_in([*chain, *diamonds, node("Identity", "sum_60")], chain_0=WEIGHT))
    assert constant is not None
    np.testing.assert_array_equal(constant.array, WEIGHT * 2.0**60)


LARGE = {
    "ConstantOfShape": [node("ConstantOfShape", "shape")],
    "Expand": [node("Expand", "one", "shape")],
    "Tile": [node("Reshape", "one", "ones", output="flat"), node("Tile", "flat", "shape")],
    "Add": [
        node("Expand", "one", "tall", output="a"),
        node("Expand", "one", "wide", output="b"),
        node("Add", "a", "b"),
    ],
}


@pytest.mark.parametrize("nodes", LARGE.values(), ids=LARGE)
def test_a_constant_of_two_gigabytes_is_refused_before_it_is_computed(nodes: list[onnx.NodeProto]) -> None:
    value = value_in(
        nodes,
        shape=np.array([2**15, 2**14]),
        tall=np.array([2**15, 1]),
        wide=np.array([1, 2**14]),
        one=np.float32(1),
        ones=np.array([1, 1]),
    )
    with pytest.raises(ValueError, match=f"of [0-9]+ MB, and at most {LARGEST / 1e6:.0f} MB are computed; store it"):
        evaluate_constant(value)


class Standardised(nn.Conv2d):
    """Weight standardisation, Qiao et al. 2019, arXiv 1903.10520."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        mean = self.weight.mean((1, 2, 3), keepdim=True)
        variance = self.weight.var((1, 2, 3), keepdim=True)
        return conv2d(x, (self.weight - mean) / torch.sqrt(variance + 1e-5), self.bias)


class StandardisedByBatchNorm(nn.Conv2d):
    """The same as timm writes it."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        flat = self.weight.reshape(1, self.out_channels, -1)
        weight = batch_norm(flat, None, None, training=True, momentum=0.0).reshape_as(self.weight)
        return conv2d(x, weight, self.bias)


COMPUTED = {
    "weight standardisation": Standardised(64, 64, 3),
    "weight standardisation by BatchNormalization": StandardisedByBatchNorm(64, 64, 3),
    "weight_norm": nn.utils.parametrizations.weight_norm(nn.Conv2d(64, 64, 3)),
    "gain": nn.utils.parametrizations.weight_norm(nn.Conv2d(64, 64, 3), dim=None),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("layer", COMPUTED.values(), ids=COMPUTED)
def test_a_computed_weight_is_within_its_bound_in_every_runtime(layer: nn.Module, tmp_path: Path) -> None:
    path = tmp_path / "layer.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        example = (torch.zeros(1, 64, 5, 5),)
        torch.onnx.export(layer, example, path, dynamo=False, opset_version=17, do_constant_folding=False)
    model = onnx.load(path)
    constant = evaluate_constant(weight_of(ir.from_proto(model)))
    assert constant is not None
    assert not constant.exact
    error = np.broadcast_to(constant.error, constant.shape)
    # The bound is worth something: no weight may be off by a hundredth of the largest.
    assert error.max() < 1e-2 * np.abs(constant.values).max()

    simplify.simplify(path, tmp_path / "simplified.onnx")
    simplified = weight_of(ir.from_proto(onnx.load(tmp_path / "simplified.onnx")))
    assert simplified.const_value is not None
    assert (np.abs(simplified.const_value.numpy() - constant.values) <= error).all()

    [conv] = [item for item in model.graph.node if item.op_type == "Conv"]
    model.graph.output.append(onnx.ValueInfoProto(name=conv.input[1]))
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    [computed] = session.run([conv.input[1]], {model.graph.input[0].name: example[0].numpy()})
    assert (np.abs(computed - constant.values) <= error).all()


def weight_of(model: ir.Model) -> ir.Value:
    [conv] = [item for item in model.graph if item.op_type == "Conv"]
    assert conv.inputs[1] is not None
    return conv.inputs[1]
