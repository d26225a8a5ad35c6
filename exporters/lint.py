"""Q/DQ pairs that a runtime refuses, or that keep it from fusing: rules with stable ids, and the module at fault.

Sources: TensorRT developer guide, "Explicit Quantization"; onnx-tensorrt, docs/operators.md; NvInfer.h, setNbGroups.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from exporters import onnx_file, pairs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import onnx_ir as ir

WEIGHTED = {"Conv", "Gemm"}
PER_GROUP = 4  # channels of an INT8 convolution's group are a multiple of it in TensorRT


@dataclass(frozen=True)
class Finding:
    """A rule that ``module`` breaks: the ``rule``'s id, and a sentence."""

    rule: str
    module: str
    sentence: str


@dataclass(frozen=True)
class Rule:
    """``broken`` tells of each node whether it breaks the rule; ``placements`` are those that have it."""

    sentence: str
    broken: Callable[[ir.Node], bool]
    placements: tuple[str, ...] = ("tensorrt", "onnxruntime")


def _made_by(node: ir.Node, index: int) -> ir.Node | None:
    value = node.inputs[index] if index < len(node.inputs) else None
    return value.producer() if value is not None else None


def _dequantised(node: ir.Node, index: int) -> bool:
    maker = _made_by(node, index)
    return maker is not None and maker.op_type == "DequantizeLinear"


def _on_activation(node: ir.Node) -> bool:
    return node.op_type == "QuantizeLinear" and onnx_file.weight(node.inputs[0]) is None


def _quantised(node: ir.Node) -> bool:
    return node.op_type in WEIGHTED and _dequantised(node, 0) and _dequantised(node, 1)


def _residual(node: ir.Node) -> bool:
    return node.op_type == "Add" and all(onnx_file.weight(value) is None for value in node.inputs)


def _scale_size(node: ir.Node) -> int:
    scale = onnx_file.weight(node.inputs[1])
    return 1 if scale is None else int(scale.size)


def _not_int8(node: ir.Node) -> bool:
    zero = onnx_file.weight(node.inputs[2]) if len(node.inputs) > 2 else None
    return _on_activation(node) and (
        zero is None or zero.dtype.name not in {"int8", "float8_e4m3fn"} or bool(zero.any())
    )


def _cuts(node: ir.Node) -> bool:
    return _on_activation(node) and pairs.levels(node) is None


def _before_relu(node: ir.Node) -> bool:
    maker = _made_by(node, 0)
    if node.op_type != "Relu" or maker is None or maker.op_type != "DequantizeLinear":
        return False
    quantise = _made_by(maker, 0)
    source = _made_by(quantise, 0) if quantise is not None else None
    return source is not None and source.op_type in WEIGHTED


def _half_pooled(node: ir.Node) -> bool:
    readers = [use.node for value in node.outputs for use in value.uses()]
    return node.op_type == "MaxPool" and _dequantised(node, 0) and any(r.op_type != "QuantizeLinear" for r in readers)


def _groups(node: ir.Node) -> bool:
    groups = node.attributes["group"].as_int() if "group" in node.attributes else 1
    if node.op_type != "Conv" or groups == 1 or not _quantised(node):
        return False
    value = node.inputs[1]
    while (weight := onnx_file.weight(value)) is None:
        maker = value.producer() if value is not None else None
        if maker is None:
            return False
        value = maker.inputs[0]
    return any(size % PER_GROUP for size in (len(weight) // groups, weight.shape[1]))


def _both(node: ir.Node) -> bool:
    return _residual(node) and _dequantised(node, 0) and _dequantised(node, 1)


def _mixed(node: ir.Node) -> bool:
    makers = [_made_by(node, index) for index in (0, 1)] if _quantised(node) else []
    scales = [onnx_file.weight(maker.inputs[1]) for maker in makers if maker is not None]
    return len({scale.dtype for scale in scales if scale is not None}) > 1


def _lone_add(node: ir.Node) -> bool:
    makers = [_made_by(node, index) for index in (0, 1)] if _residual(node) else []
    return any(m is not None and _quantised(m) for m in makers) and not any(_dequantised(node, i) for i in (0, 1))


TENSORRT, ONNXRUNTIME = ("tensorrt",), ("onnxruntime",)
RULES: dict[str, Rule] = {
    "Q001": Rule("its activation pair is not symmetric INT8 or FP8, the only ones TensorRT reads", _not_int8, TENSORRT),
    "Q002": Rule("its pair cuts values off: its zero point is neither symmetric nor behind a ReLU", _cuts, ONNXRUNTIME),
    "Q003": Rule("its activation has one scale a channel, under which it silently runs in float",
                 lambda node: _on_activation(node) and _scale_size(node) > 1),
    "Q004": Rule("its weights have one scale for all output channels",
                 lambda node: node.op_type in WEIGHTED and _dequantised(node, 1)
                 and _scale_size(_made_by(node, 1) or node) == 1),
    "Q005": Rule("its bias is quantised", lambda node: node.op_type in WEIGHTED and _dequantised(node, 2)),
    "Q006": Rule("a pair stands between it and its convolution, and keeps them from fusing", _before_relu, TENSORRT),
    "Q007": Rule("both inputs of the residual Add have a pair, which keeps convolution and Add apart", _both,
                 TENSORRT),
    "Q008": Rule("no input of the residual Add has a pair, so its INT8 convolution answers in float", _lone_add),
    "Q009": Rule("it pools what is quantised and hands it on in float", _half_pooled),
    "Q010": Rule("the channels of a group are no multiple of 4, which TensorRT asks of INT8", _groups, TENSORRT),
    "Q011": Rule("its weights have a pair and its activation has none, or the other way round",
                 lambda node: node.op_type in WEIGHTED and _dequantised(node, 0) != _dequantised(node, 1)),
    "Q012": Rule("its operands are dequantised to different types", _mixed),
}  # fmt: skip


def lint(model: ir.Model, placement: str = "tensorrt") -> list[Finding]:
    """What breaks the rules of ``placement``, in the order of the graph."""
    return list(_found(model, placement))


def _found(model: ir.Model, placement: str) -> Iterator[Finding]:
    for node in model.graph:
        for rule, each in RULES.items():
            if placement in each.placements and each.broken(node):
                yield Finding(rule, onnx_file.module_of(node) or str(node.name), each.sentence)


def placement_of(model: ir.Model) -> str:
    """Whose placement the activations' zero points speak of."""
    zeros = [onnx_file.weight(node.inputs[2]) for node in model.graph if _on_activation(node) and len(node.inputs) > 2]
    return "onnxruntime" if any(zero is not None and zero.dtype.name == "uint8" for zero in zeros) else "tensorrt"
