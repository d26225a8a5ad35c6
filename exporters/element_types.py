"""The types of the values of a graph, and which of them an operator takes."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

import onnx
import onnx_ir as ir
from onnx_ir.passes.common import ShapeInferencePass

if TYPE_CHECKING:
    from collections.abc import Sequence

    from onnx.defs import OpSchema

FLOAT16 = "tensor(float16)"


def infer(model: ir.Model) -> None:
    """Give every value of ``model`` the type that ONNX infers; what it cannot infer is float32."""
    ShapeInferencePass(check_type=False, strict_mode=False, data_prop=False)(model)
    for node in model.graph:
        for output in node.outputs:
            if output.type is None:
                output.type = ir.TensorType(ir.DataType.FLOAT)


def is_fixed(node: ir.Node, index: int, opset: int) -> bool:
    """Whether the operand at ``index`` has one type whatever the others have, as the scales of a Resize."""
    schema = _schema(node.op_type, node.domain, opset)
    return schema is not None and _is_one_type(_formal(schema.inputs, index))


def takes_float16(node: ir.Node, opset: int) -> bool:
    """Whether all float32 that ``node`` reads and answers, but for fixed operands, may be float16 instead."""
    schema = _schema(node.op_type, node.domain, opset)
    if schema is None or "dtype" in node.attributes:
        return False
    read = [_formal(schema.inputs, index) for index, value in enumerate(node.inputs) if _is_float32(value)]
    answered = [_formal(schema.outputs, index) for index, value in enumerate(node.outputs) if _is_float32(value)]
    choices = [formal for formal in read if not _is_one_type(formal)]
    return all(FLOAT16 in formal.types for formal in (*choices, *answered))


@cache
def _schema(operator: str, domain: str, opset: int) -> OpSchema | None:
    """What ONNX says of an operator of its own; None of any other."""
    if domain not in {"", "ai.onnx"} or not onnx.defs.has(operator, opset):
        return None
    return onnx.defs.get_schema(operator, opset)


def _formal(formals: Sequence[OpSchema.FormalParameter], index: int) -> OpSchema.FormalParameter:
    """What stands at ``index``; the last of a schema may stand for any number."""
    return formals[min(index, len(formals) - 1)]


def _is_one_type(formal: OpSchema.FormalParameter) -> bool:
    # A schema names a type as tensor(float), and a choice of types by a letter.
    return "(" in formal.type_str


def _is_float32(value: ir.Value | None) -> bool:
    return value is not None and value.dtype == ir.DataType.FLOAT
