"""Values that are always equal have one number; all that could differ in any way has another."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper

from exporters.constant import Memo
from exporters.value_numbers import ValueNumbers

SUMS = [
    helper.make_node("Relu", ["x"], ["one"]),
    helper.make_node("Relu", ["x"], ["same"]),
    helper.make_node("Add", ["one", "w"], ["sum"]),
    helper.make_node("Add", ["same", "equal w"], ["same sum"]),
    helper.make_node("Add", ["w", "one"], ["turned sum"]),
    helper.make_node("Add", ["one", "other w"], ["other sum"]),
    helper.make_node("LeakyRelu", ["x"], ["leaky"], alpha=0.1),
    helper.make_node("LeakyRelu", ["x"], ["leakier"], alpha=0.2),
    helper.make_node("LeakyRelu", ["x"], ["default"]),
    helper.make_node("LeakyRelu", ["x"], ["written default"], alpha=0.01),
    helper.make_node("RandomNormalLike", ["x"], ["noise"]),
    helper.make_node("RandomNormalLike", ["x"], ["other noise"]),
    helper.make_node("Split", ["x"], ["head", "tail"], axis=0),
    helper.make_node("ConstantOfShape", ["sizes"], ["zeros"], value=numpy_helper.from_array(np.zeros(1, np.float32))),
    helper.make_node("ConstantOfShape", ["sizes"], ["ones"], value=numpy_helper.from_array(np.ones(1, np.float32))),
    helper.make_node("Shape", ["x"], ["sizes"]),
]


@pytest.fixture(scope="module")
def values() -> dict[str, ir.Value]:
    weight = np.arange(4, dtype=np.float32)
    stored = {"w": weight, "equal w": weight.copy(), "other w": weight + 1}
    tensors = [numpy_helper.from_array(array, name) for name, array in stored.items()]
    shape = helper.make_tensor_value_info("x", TensorProto.FLOAT, [4])
    answer = helper.make_tensor_value_info("sum", TensorProto.FLOAT, [4])
    graph = helper.make_graph(SUMS, "graph", [shape], [answer], tensors)
    model = ir.from_proto(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8))
    return {str(value.name): value for node in model.graph for value in node.outputs}


@pytest.mark.parametrize(
    ("one", "other", "equal"),
    [
        ("one", "same", True),
        ("sum", "same sum", True),
        ("sum", "other sum", False),
        ("sum", "turned sum", False),  # not known, so not said
        ("leaky", "leakier", False),
        ("default", "written default", True),
        ("noise", "other noise", False),
        ("head", "tail", False),
        ("zeros", "ones", False),
    ],
)
def test_what_is_always_equal_has_one_number(values: dict[str, ir.Value], one: str, other: str, equal: bool) -> None:
    assert ValueNumbers(Memo()).equal(values[one], values[other]) == equal
