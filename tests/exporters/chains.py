"""Nodes one behind the other, to be put on an edge of a model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import graph_edits as edit
import numpy as np
from onnx import TensorProto, helper

if TYPE_CHECKING:
    from collections.abc import Callable

    from onnx import ModelProto, NodeProto

    # From a model and an array of the type that flows there to one node.
    Link = Callable[[ModelProto, np.ndarray], NodeProto]


def linked(chain: list[NodeProto]) -> list[NodeProto]:
    """The nodes one behind the other, from ``<`` to ``>``."""
    for place, node in enumerate(chain):
        node.input[0] = "<" if place == 0 else f"~{place}"
        node.output[0] = ">" if place == len(chain) - 1 else f"~{place + 1}"
    return chain


def arithmetic(operator: str, number: float) -> Link:
    def make(model: ModelProto, like: np.ndarray) -> NodeProto:
        return helper.make_node(operator, ["<", edit.constant(model, np.asarray(number, like.dtype))], [">"])

    return make


def plain(operator: str, **attributes: Any) -> Link:
    def make(model: ModelProto, like: np.ndarray) -> NodeProto:
        del model, like
        return helper.make_node(operator, ["<"], [">"], **attributes)

    return make


def cast_back(model: ModelProto, like: np.ndarray) -> NodeProto:
    del model
    return helper.make_node("Cast", ["<"], [">"], to=helper.np_dtype_to_tensor_dtype(like.dtype))


def rows_turned(model: ModelProto, like: np.ndarray) -> NodeProto:
    del like
    constants = [edit.constant(model, np.int64([number])) for number in (-1, -(2**40), 2, -1)]
    return helper.make_node("Slice", ["<", *constants], [">"])


def padded(rows: int) -> Link:
    """That many rows of zeros in front of all others; below 0 so many are cut off."""

    def make(model: ModelProto, like: np.ndarray) -> NodeProto:
        pads = edit.constant(model, np.int64([0, 0, rows, 0, 0, 0, 0, 0]))
        return helper.make_node("Pad", ["<", pads, edit.constant(model, np.zeros((), like.dtype))], [">"])

    return make


def clip(low: float, high: float) -> Link:
    def make(model: ModelProto, like: np.ndarray) -> NodeProto:
        bounds = [edit.constant(model, np.asarray(bound, like.dtype)) for bound in (low, high)]
        return helper.make_node("Clip", ["<", *bounds], [">"])

    return make


def through_if(model: ModelProto, tensor: str, outcome: Any, then: str, otherwise: str) -> None:
    """An If between ``tensor`` and its readers; ``outcome`` is its condition, a number or the name of a tensor."""
    name = outcome if isinstance(outcome, str) else edit.constant(model, np.bool_(outcome))
    kind = edit.float_types(model)[tensor]
    branches = {}
    inner = edit.fresh(model, "if_input")
    # The branches read it from the graph around them.
    for place, operator in (("then_branch", then), ("else_branch", otherwise)):
        output = helper.make_tensor_value_info(f"{inner} {place}", kind, None)
        node = helper.make_node(operator, [inner], [output.name], f"planted/{place}")
        branches[place] = helper.make_graph([node], place, [], [output])
    chain = [
        helper.make_node("Identity", ["<"], [inner]),
        helper.make_node("If", [name], [">"], **branches),
    ]
    edit.insert_behind(model, tensor, chain)


def loop(model: ModelProto, tensor: str, turns: int, operator: str) -> None:
    """``operator`` on ``tensor``, ``turns`` times."""
    kind = edit.float_types(model)[tensor]
    inputs = [
        helper.make_tensor_value_info("turn", TensorProto.INT64, []),
        helper.make_tensor_value_info("go_on", TensorProto.BOOL, []),
        helper.make_tensor_value_info("x_in", kind, None),
    ]
    outputs = [
        helper.make_tensor_value_info("go_on_out", TensorProto.BOOL, []),
        helper.make_tensor_value_info("x_out", kind, None),
    ]
    body_nodes = [
        helper.make_node("Identity", ["go_on"], ["go_on_out"], "planted/go_on"),
        helper.make_node(operator, ["x_in"], ["x_out"], "planted/x"),
    ]
    body = helper.make_graph(body_nodes, "body", inputs, outputs)
    count = edit.constant(model, np.int64(turns))
    edit.insert_behind(model, tensor, [helper.make_node("Loop", [count, "", "<"], [">"], body=body)])
