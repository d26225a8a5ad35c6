"""Q/DQ pairs that a runtime refuses, or that keep it from fusing: rules with stable ids, and the module at fault.

Sources: TensorRT developer guide, "Explicit Quantization"; onnx-tensorrt, docs/operators.md; NvInfer.h, setNbGroups.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import onnx
import onnx_ir as ir

from exporters import lint_layers as layers
from exporters import lint_pairs as pairs
from exporters import onnx_file
from exporters.lint_graph import LintedGraph, is_a
from exporters.pairs import MOVING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

# Operators of ONNX 1.23 that TensorRT's parser does not build (measured: supports_operator of TensorRT-RTX 1.7.1).
UNKNOWN = {
    "AffineGrid", "Bernoulli", "BitCast", "BitShift", "BitwiseAnd", "BitwiseNot", "BitwiseOr", "BitwiseXor",
    "CenterCropPad", "Col2Im", "Compress", "ConcatFromSequence", "ConvInteger", "CumProd", "DFT", "DeformConv",
    "Det", "DynamicQuantizeLinear", "ImageDecoder", "MatMulInteger", "MaxRoiPool", "MaxUnpool", "MelWeightMatrix",
    "Multinomial", "NegativeLogLikelihoodLoss", "Optional", "OptionalGetElement", "OptionalHasElement",
    "QLinearConv", "QLinearMatMul", "RegexFullMatch", "SequenceAt", "SequenceConstruct", "SequenceEmpty",
    "SequenceErase", "SequenceInsert", "SequenceLength", "SequenceMap", "SoftmaxCrossEntropyLoss",
    "SplitToSequence", "StringConcat", "StringNormalizer", "StringSplit", "SwiGLU", "TfIdfVectorizer", "Unique",
}  # fmt: skip


@dataclass(frozen=True)
class Finding:
    """A rule that ``module`` breaks: the ``rule``'s id, and a sentence.

    ``effect``: what TensorRT makes of it: REFUSED, a layer in FLOAT, or neither (empty).
    """

    rule: str
    module: str
    sentence: str
    effect: str = ""


@dataclass(frozen=True)
class Opset:
    """The opset that a file declares, and the ``newest`` that its reader knows."""

    declared: int
    newest: int


Subject = ir.Node | ir.Value | Opset
# Whose rules they are; a rule of TensorRT is one of TensorRT 8 as well.
TENSORRT_8 = ("tensorrt-8",)
TENSORRT = ("tensorrt", "tensorrt-8")
ONNXRUNTIME = ("onnxruntime",)
PLACEMENTS = (*TENSORRT, *ONNXRUNTIME)
# What TensorRT makes of a fault, where it does not build as if there were none.
REFUSED = "refused"
FLOAT = "float"


def _always(_: Subject, __: LintedGraph) -> bool:
    return True


@dataclass(frozen=True)
class Rule:
    """``broken`` tells of each ``subject`` and its graph whether it breaks the rule; ``placements`` have the rule.

    A subject is a node, an input of the graph or the opset; ``sentence`` may name what it says. ``refused`` and
    ``in_float`` tell of a subject that breaks it whether TensorRT refuses the file, or computes a layer in float.
    """

    sentence: str
    broken: Callable[[Any, LintedGraph], bool]
    placements: tuple[str, ...] = PLACEMENTS
    subject: type = ir.Node
    refused: Callable[[Any, LintedGraph], bool] | None = None
    in_float: bool = False


RULES: dict[str, Rule] = {
    "Q001": Rule("its activation pair is not symmetric INT8 or FP8, the only ones TensorRT reads",
                 pairs.activation_asymmetric, TENSORRT, refused=pairs.zero_point_refused),
    "Q002": Rule("its pair cuts values off: its zero point is neither symmetric nor behind a ReLU",
                 pairs.cuts, ONNXRUNTIME),
    "Q003": Rule("its activation has one scale a channel, under which it silently runs in float",
                 pairs.activation_by_channel, in_float=True),
    "Q004": Rule("its weights have one scale for all output channels", layers.weights_under_one_scale),
    "Q005": Rule("its bias is quantised", layers.bias_paired, refused=layers.bias_refused),
    "Q006": Rule("a pair stands between it and its convolution, and keeps them from fusing",
                 layers.after_pair, TENSORRT),
    "Q007": Rule("both inputs of the residual Add have a pair, which keeps convolution and Add apart",
                 layers.both_paired, TENSORRT),
    "Q008": Rule("no input of the residual Add has a pair, so its INT8 convolution answers in float",
                 layers.none_paired),
    "Q009": Rule("it pools what is quantised and hands it on in float", layers.pooled_to_float),
    "Q010": Rule("the channels of a group are no multiple of 4, which TensorRT asks of INT8",
                 layers.uneven_groups, TENSORRT),
    "Q011": Rule("its weights have a pair and its activation has none, or the other way round",
                 layers.half_quantised, in_float=True),
    "Q012": Rule("its operands are dequantised to different types", layers.mixed_types, refused=_always),
    "Q013": Rule("a scale of its pair is no positive number", pairs.not_positive, refused=pairs.scale_refused),
    "Q014": Rule("a scale or zero point of its pair is computed, and only a constant is taken",
                 pairs.computed, refused=_always),
    "Q015": Rule("what it quantises is dequantised by another scale or zero point",
                 pairs.unlike, refused=pairs.zero_point_refused),
    "Q016": Rule("its zero point has another type than the levels it belongs to",
                 pairs.ill_typed, refused=pairs.zero_point_refused),
    "Q017": Rule("its scales are not as many as its zero points, or as the channels they scale",
                 pairs.miscounted, refused=_always),
    "Q018": Rule("it is quantised under two scales, and written once for each", pairs.under_two_scales),
    "Q019": Rule("its weights are not scaled along their output channels, and it silently runs in float",
                 layers.weights_along_another_axis, in_float=True),
    "Q020": Rule("its weights are not symmetric INT8 or FP8, the only ones TensorRT reads",
                 layers.weights_asymmetric, TENSORRT, refused=_always),
    "Q021": Rule("its weights are stored quantised, and TensorRT 8 reads float ones behind a whole pair only",
                 layers.weights_stored, TENSORRT_8),
    "Q022": Rule("TensorRT's parser does not know {0.op_type} (node {0.name})",
                 lambda node, _: is_a(node, *UNKNOWN), TENSORRT, refused=_always),
    "Q023": Rule("TensorRT takes {0.op_type} of {0.domain} (node {0.name}) for a plugin, or ONNX's own of that name",
                 lambda node, _: node.domain != "", TENSORRT, refused=_always),
    "Q024": Rule("the file is written in opset {0.declared}, and {0.newest} is the newest that is read",
                 lambda opset, _: opset.declared > opset.newest, subject=Opset),
    "Q025": Rule("its shape {0.shape} leaves more than the batch open, and needs a profile of its sizes",
                 lambda value, _: not _is_fixed_but_batch(value), TENSORRT, ir.Value, refused=_always),
    "Q026": Rule("its activation's scale has the shape [1], not [], under which TensorRT silently runs it in float",
                 layers.scaled_in_a_vector, TENSORRT, in_float=True),
    "Q027": Rule("the branch of its convolution has a pair and its shortcut has none, which keeps them apart",
                 layers.shortcut_unpaired),
    "Q028": Rule("its QuantizeLinear and its DequantizeLinear differ in axis, block_size or the type of their scale",
                 pairs.told_apart),
    "Q029": Rule("it does not saturate, and makes NaN of what is beyond its range", pairs.not_saturating),
    "Q030": Rule("a scale of its pair is 0 in the precision of the graph, and all that it scales with it",
                 pairs.vanishing),
    "Q031": Rule("its scale has a type that {0.op_type} of this opset does not take, as float16 below opset 19",
                 pairs.type_not_taken),
    "Q032": Rule("a pair stands between it and its convolution, and keeps them from folding",
                 layers.normalised_after_pair),
    "Q033": Rule("{0.op_type} is in training mode, which TensorRT's parser refuses, and answers by its batch",
                 layers.in_training, refused=_always),
    "Q034": Rule("what it quantises was quantised before under another scale, and is rounded twice", pairs.in_series),
    "Q035": Rule("its last window starts in the padding, where TensorRT answers one more row, or refuses it",
                 layers.pooled_from_padding, TENSORRT, refused=layers.pool_refused),
    "Q036": Rule("its 8-bit levels are scaled by blocks, which TensorRT's parser refuses",
                 pairs.by_block, TENSORRT, refused=_always),
    "Q037": Rule("its stored levels are read through another node, and TensorRT takes them at DequantizeLinear only",
                 pairs.moved_levels, TENSORRT, refused=_always),
    "Q038": Rule("a scale or zero point of its pair is a constant that TensorRT does not compute before it builds",
                 pairs.not_folded, TENSORRT, refused=_always),
    "Q039": Rule("an operand is dequantised to float16 and cast up, and it silently runs in float",
                 layers.cast_up, TENSORRT, in_float=True),
}  # fmt: skip


def lint(model: ir.Model, placement: str = "tensorrt", opset: int | None = None) -> list[Finding]:
    """What breaks the rules of ``placement``, in the order of the graph; ``opset`` is the newest that is read there.

    Raises ValueError where a function of the file calls itself, or a constant of it is too large to compute.
    """
    # Each once: several nodes of one module may break the same rule.
    return list(dict.fromkeys(_findings(_inlined(model), placement, opset)))


def _inlined(model: ir.Model) -> ir.Model:
    """``model`` with the nodes of its functions in the place of their calls, as TensorRT's parser reads it."""
    if not model.functions:
        return model
    from onnx_ir.passes.common import InlinePass

    copy = model.clone()
    try:
        InlinePass()(copy)
    except Exception as error:
        raise ValueError(f"its functions cannot be inlined ({str(error).splitlines()[0]})") from error
    return copy


def _findings(model: ir.Model, placement: str, newest_opset: int | None) -> Iterator[Finding]:
    imports = model.graph.opset_imports
    newest = newest_opset if newest_opset is not None else onnx.defs.onnx_opset_version()
    opset = Opset(imports.get("", imports.get("ai.onnx", 0)), newest)  # two names of ONNX's own domain
    graph = LintedGraph(model, opset.declared)

    # An input that is an initialiser too has a value, and what that is of it is never open.
    inputs = [value for value in model.graph.inputs if value.const_value is None]
    subjects: list[Subject] = [opset, *inputs, *model.graph.all_nodes()]
    for subject in subjects:
        for rule_id, rule in RULES.items():
            if placement not in rule.placements or not isinstance(subject, rule.subject):
                continue
            if rule.broken(subject, graph):
                sentence = rule.sentence.format(subject)
                yield Finding(rule_id, module_of(subject), sentence, _effect(rule, subject, graph))


def _effect(rule: Rule, subject: Subject, graph: LintedGraph) -> str:
    """What TensorRT makes of ``subject``, which breaks ``rule``."""
    if rule.refused is not None and rule.refused(subject, graph):
        return REFUSED
    return FLOAT if rule.in_float else ""


def _is_fixed_but_batch(value: ir.Value) -> bool:
    """Whether every axis of ``value`` behind the first has a size."""
    if value.shape is None:
        return False
    return all(isinstance(size, int) and size > 0 for size in value.shape[1:])


def module_of(subject: Subject) -> str:
    """Where it is: the module of a node, and of a pair without one that of what reads it; the name of an input."""
    if isinstance(subject, Opset):
        return ""
    if isinstance(subject, ir.Value):
        return str(subject.name)

    # Breadth first, so that the nearest reader with a module is named.
    nodes = [subject]
    for node in nodes:
        module = onnx_file.module_of(node)
        if module:
            return module
        if not is_a(node, *pairs.PAIR, *MOVING):
            continue
        for value in node.outputs:
            for use in value.uses():
                if use.node not in nodes:
                    nodes.append(use.node)
    return subject.name or subject.op_type


def placement_of(model: ir.Model) -> str:
    """Whose placement the activations' zero points speak of."""
    graph = LintedGraph(model, onnx.defs.onnx_opset_version())
    for node in model.graph:
        zero_point = graph.zero_point(node) if pairs.on_activation(node, graph) else None
        if zero_point is not None and zero_point.dtype.name == "uint8":
            return "onnxruntime"
    return "tensorrt"
