"""All kinds of mutants as a table, and how one is made and judged.

A wrong kind is what a faulty tool could write, a harmless kind says the same in other words. A wrong mutant counts
where the answers move by more than float rounding explains, or where the labels are others; then its certificate must
refute it. A harmless one must be proven, and its answers must stay.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import harmless_kinds as harmless
import numpy as np
import onnx
import wrong_kinds as wrong
from graph_edits import PAIR, Absent
from onnx import numpy_helper
from stage_pairs import STAGES, images

from exporters import reference
from exporters.certify import certify

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray
    from stage_pairs import StagePair

# The largest relative difference of logits that float rounding explains.
ROUNDING = 1e-4
QUANTISING = {"int8", "int8 for onnxruntime", "fp8"}
# Stages that may hold new float16, and those that may not.
HALVING = {"fp16", "halve", "halve of fp8"}


@dataclass(frozen=True)
class Kind:
    """One kind of mutant.

    ``change`` changes the file ``where`` it says, or both at once. ``not_in`` are stages that may do just this: there
    it is no fault that a certificate could know of.
    """

    name: str
    change: Any
    verdict: Literal["wrong", "harmless"]
    where: Literal["after", "before", "both"] = "after"
    not_in: frozenset[str] = frozenset()


def _wrong(name: str, change: wrong.Change, *not_in: str) -> Kind:
    return Kind(name, change, "wrong", "after", frozenset(not_in))


def _wrong_both(name: str, change: wrong.ChangeOfBoth, *not_in: str) -> Kind:
    return Kind(name, change, "wrong", "both", frozenset(not_in))


RELU = ("Relu",)
POOLS = ("MaxPool", "AveragePool")
WRONG = [
    # Constants.
    _wrong("weight: sign of one", wrong.weight(wrong.at_largest(lambda x: -x))),
    _wrong("weight: one zero", wrong.weight(wrong.at_largest(lambda x: 0 * x))),
    _wrong("weight: one twice as large", wrong.weight(wrong.at_largest(lambda x: x / 2))),
    _wrong("weight: negated", wrong.weight(np.negative)),
    _wrong("weight: 1 % larger", wrong.weight(lambda w: w * 1.01)),
    _wrong("weight: a tenth larger", wrong.weight(lambda w: w * 1.1)),
    _wrong("weight: half", wrong.weight(lambda w: w / 2)),
    _wrong("weight: zeros", wrong.weight(np.zeros_like)),
    _wrong("weight: one channel zero", wrong.weight(wrong.first_channel(np.zeros_like))),
    _wrong("weight: one channel twice as large", wrong.weight(wrong.first_channel(lambda w: w * 2))),
    _wrong("weight: one channel negated", wrong.weight(wrong.first_channel(np.negative))),
    _wrong("weight: outputs permuted", wrong.weight(lambda w: np.roll(w, 1, 0))),
    _wrong("weight: outputs reversed", wrong.weight(lambda w: w[::-1])),
    _wrong("weight: inputs permuted", wrong.weight(lambda w: np.roll(w, 1, 1))),
    _wrong("weight: groups exchanged", wrong.weight(wrong.groups_exchanged, "Conv")),
    _wrong("weight: outputs and inputs exchanged", wrong.weight(wrong.square_turned)),
    _wrong("weight: rows and columns exchanged", wrong.weight(lambda w: np.swapaxes(w, -1, -2), "Conv")),
    _wrong("weight: turned by 180 degrees", wrong.weight(lambda w: w[:, :, ::-1, ::-1], "Conv")),
    _wrong("weight: read with channels last", wrong.weight(wrong.other_order, "Conv")),
    _wrong("weight: all outputs as the first", wrong.weight(lambda w: np.broadcast_to(w[:1], w.shape))),
    _wrong("weight: mean subtracted", wrong.weight(lambda w: w - w.mean())),
    _wrong("weight: bfloat16", wrong.weight(wrong.to_bfloat16)),
    _wrong("weight: four bits", wrong.weight(wrong.rounded_to(7))),
    _wrong("weight: two bits", wrong.weight(wrong.rounded_to(1))),
    _wrong("weight: clipped to half", wrong.weight(lambda w: np.clip(w, -np.abs(w).max() / 2, np.abs(w).max() / 2))),
    _wrong("weight: small ones pruned", wrong.weight(lambda w: np.where(np.abs(w) < np.abs(w).max() / 5, 0, w))),
    _wrong("weight: bytes in the other order", wrong.weight(wrong.bytes_turned)),
    _wrong("weight: all one level up", wrong.weight(lambda w: w + np.abs(w).max() / 100)),
    _wrong("weight: magnitudes", wrong.weight(np.abs)),
    _wrong("weight: the lowest level as -128", wrong.weight(lambda w: np.where(w == w.min(), w.min() * 128 / 127, w))),
    _wrong("weight: exchanged with another layer's", wrong.weights_exchanged),
    _wrong("weight: read from another layer", wrong.reads_another_weight),
    _wrong("weight: times 1.5 by a Mul", wrong.weight_through(wrong.arithmetic("Mul", 1.5))),
    _wrong("weight: plus 0.05 by an Add", wrong.weight_through(wrong.arithmetic("Add", 0.05))),
    _wrong("weight: negated by a Neg", wrong.weight_through(wrong.plain("Neg"))),
    _wrong("weight: magnitudes by an Abs", wrong.weight_through(wrong.plain("Abs"))),
    _wrong("weight: cut by a Relu", wrong.weight_through(wrong.plain("Relu"))),
    _wrong("weight: clipped by a Clip", wrong.weight_through(wrong.clip(-0.05, 0.05))),
    _wrong("weight: turned by a Transpose", wrong.weight_through(wrong.turned)),
    _wrong("weight: permuted by a Gather", wrong.weight_through(wrong.gathered)),
    _wrong(
        "weight: through whole numbers", wrong.weight_through(wrong.plain("Cast", to=onnx.TensorProto.INT32), wrong.cast_back)
    ),
    _wrong(
        "weight: through float16",
        wrong.weight_through(wrong.plain("Cast", to=onnx.TensorProto.FLOAT16), wrong.cast_back),
        *HALVING,
    ),
    _wrong(
        "weight: through bfloat16",
        wrong.weight_through(wrong.plain("Cast", to=onnx.TensorProto.BFLOAT16), wrong.cast_back),
    ),
    _wrong("weight: random noise added", wrong.random_noise),
    _wrong("weight: scaled by the images", wrong.scaled_by_the_images),
    _wrong("weight: halves exchanged by a Concat", wrong.halves_exchanged),
    _wrong("bias: lost", wrong.bias_lost),
    _wrong("bias: zeros", wrong.bias(np.zeros_like)),
    _wrong("bias: twice", wrong.bias(lambda b: 2 * b)),
    _wrong("bias: negated", wrong.bias(np.negative)),
    _wrong("bias: rolled", wrong.bias(lambda b: np.roll(b, 1))),
    _wrong("bias: reversed", wrong.bias(lambda b: b[::-1])),
    _wrong("bias: one changed", wrong.bias(wrong.at_largest(lambda x: x * 1.05))),
    _wrong("bias: a little more", wrong.bias(lambda b: b + 0.01)),
    _wrong("bias: rounded coarsely", wrong.bias(wrong.rounded_to(31))),
    _wrong("bias: not a number", wrong.bias(wrong.at_largest(lambda x: x * np.nan))),
    _wrong("bias: that of another layer", wrong.bias_of_another),
    _wrong("bias: where none was", wrong.bias_where_none_was),
    _wrong("bias: another one in a Constant node", wrong.constant_node(np.negative)),
    _wrong("bias: another default of a graph input", wrong.overridden_default),
    _wrong("BatchNormalization: gamma and beta exchanged", wrong.normalisation_inputs_exchanged(1, 2)),
    _wrong("BatchNormalization: mean and variance exchanged", wrong.normalisation_inputs_exchanged(3, 4)),
    _wrong("BatchNormalization: beta and mean exchanged", wrong.normalisation_inputs_exchanged(2, 3)),
    _wrong("BatchNormalization: exchanged with another", wrong.normalisation_of_another),
    _wrong("BatchNormalization: deviation for variance", wrong.normalisation(4, np.sqrt)),
    _wrong("BatchNormalization: variance inverted", wrong.normalisation(4, lambda v: 1 / (v + 0.1))),
    _wrong("BatchNormalization: mean lost", wrong.normalisation(3, np.zeros_like)),
    _wrong("BatchNormalization: mean negated", wrong.normalisation(3, np.negative)),
    _wrong("BatchNormalization: gamma ones", wrong.normalisation(1, np.ones_like)),
    _wrong("BatchNormalization: gamma plus one", wrong.normalisation(1, lambda g: g + 1)),
    _wrong("BatchNormalization: epsilon 1e-2", wrong.attribute(["BatchNormalization"], "epsilon", 1e-2)),
    _wrong("BatchNormalization: training mode", wrong.in_training_mode),
    _wrong("constant: larger", wrong.other_constant(lambda c: c * 1.1)),
    _wrong("constant: shifted", wrong.other_constant(lambda c: c + 0.1)),
    _wrong("constant: channels reversed", wrong.other_constant(lambda c: c[:, ::-1] if c.ndim == 4 else c)),
    # Attributes.
    _wrong("Conv: strides 2", wrong.conv(wrong.padded3x3, strides=[2, 2])),
    _wrong("Conv: strides 1", wrong.conv(wrong.strided3x3, strides=[1, 1])),
    _wrong("Conv: pads at the ends only", wrong.conv(wrong.padded3x3, pads=[0, 0, 2, 2])),
    _wrong("Conv: pads at the beginnings only", wrong.conv(wrong.padded3x3, pads=[2, 2, 0, 0])),
    _wrong("Conv: no pads", wrong.conv(wrong.padded3x3, pads=[0] * 4)),
    _wrong("Conv: pads of 2", wrong.conv(wrong.padded3x3, pads=[2] * 4)),
    _wrong("Conv: dilations 2", wrong.conv(wrong.padded3x3, pads=[2] * 4, dilations=[2, 2])),
    _wrong("Conv: same upper", wrong.conv(wrong.strided3x3, auto_pad="SAME_UPPER", pads=None)),
    _wrong("Conv: valid", wrong.conv(wrong.padded3x3, auto_pad="VALID", pads=None)),
    _wrong("MaxPool: pads at the ends", wrong.attribute(["MaxPool"], "pads", [0, 0, 1, 1])),
    _wrong("MaxPool: no pads", wrong.attribute(["MaxPool"], "pads", [0] * 4)),
    _wrong("MaxPool: smaller kernel", wrong.attribute(["MaxPool"], "kernel_shape", [2, 2])),
    _wrong("MaxPool: dilations 2", wrong.attribute(["MaxPool"], "dilations", [2, 2])),
    _wrong("MaxPool: ceil mode", wrong.attribute(["MaxPool"], "ceil_mode", lambda held: 0 if held else 1)),
    _wrong("MaxPool: strides", wrong.attribute(["MaxPool"], "strides", [1, 1])),
    _wrong("AveragePool: padding counted", wrong.attribute(["AveragePool"], "count_include_pad", lambda c: 0 if c else 1)),
    _wrong("AveragePool: ceil mode", wrong.attribute(["AveragePool"], "ceil_mode", lambda held: 0 if held else 1)),
    _wrong("AveragePool: pads", wrong.attribute(["AveragePool"], "pads", [0, 0, 1, 1])),
    _wrong("LeakyRelu: alpha", wrong.attribute(["LeakyRelu"], "alpha", 0.2)),
    _wrong("Elu: alpha", wrong.attribute(["Elu"], "alpha", 0.5)),
    _wrong("Gemm: alpha", wrong.attribute(["Gemm"], "alpha", 0.5)),
    _wrong("Gemm: beta", wrong.attribute(["Gemm"], "beta", 0.5)),
    _wrong("Gemm: transB", wrong.square_gemm_turned),
    _wrong("Softmax: axis", wrong.attribute(["Softmax"], "axis", 2)),
    # Operators.
    _wrong("Relu becomes LeakyRelu", wrong.other_operator(RELU, "LeakyRelu", alpha=0.1)),
    _wrong("Relu becomes Elu", wrong.other_operator(RELU, "Elu")),
    _wrong("Relu becomes Abs", wrong.other_operator(RELU, "Abs")),
    _wrong("Relu becomes Identity", wrong.other_operator(RELU, "Identity")),
    _wrong("Relu becomes Softplus", wrong.other_operator(RELU, "Softplus")),
    _wrong("Relu becomes Clip", wrong.relu_as_clip),
    _wrong("Sigmoid becomes HardSigmoid", wrong.other_operator(["Sigmoid"], "HardSigmoid")),
    _wrong("Sigmoid becomes Tanh", wrong.other_operator(["Sigmoid"], "Tanh")),
    _wrong("Erf becomes Tanh", wrong.other_operator(["Erf"], "Tanh")),
    _wrong("PRelu becomes Max", wrong.other_operator(["PRelu"], "Max")),
    _wrong("Softmax becomes LogSoftmax", wrong.other_operator(["Softmax"], "LogSoftmax")),
    _wrong("Softmax becomes Hardmax", wrong.other_operator(["Softmax"], "Hardmax")),
    _wrong("MaxPool becomes AveragePool", wrong.other_operator(["MaxPool"], "AveragePool")),
    _wrong("AveragePool becomes MaxPool", wrong.other_operator(["AveragePool"], "MaxPool")),
    _wrong("mean becomes maximum", wrong.other_operator(["GlobalAveragePool"], "GlobalMaxPool")),
    _wrong("ReduceMean becomes ReduceSum", wrong.other_operator(["ReduceMean"], "ReduceMax")),
    _wrong("Add becomes Sub", wrong.other_operator(["Add"], "Sub")),
    _wrong("Add becomes Mul", wrong.other_operator(["Add"], "Mul")),
    _wrong("Add becomes Max", wrong.other_operator(["Add"], "Max")),
    _wrong("Add becomes Mean", wrong.other_operator(["Add"], "Mean")),
    _wrong("Sub becomes Add", wrong.other_operator(["Sub"], "Add")),
    _wrong("Div becomes Mul", wrong.other_operator(["Div"], "Mul")),
    _wrong("Mul becomes Add", wrong.other_operator(["Mul"], "Add")),
    _wrong("Mul becomes Div", wrong.other_operator(["Mul"], "Div")),
    _wrong(
        "BatchNormalization becomes InstanceNormalization",
        wrong.without_inputs("InstanceNormalization", 3, "BatchNormalization"),
    ),
    _wrong("a node of another domain", wrong.own_domain),
    _wrong("an Identity of another domain", wrong.own_identity),
    _wrong("a Cast of another domain", wrong.own_cast),
    _wrong("a function named as an operator", wrong.overriding_function),
    # Edges.
    _wrong("residual from elsewhere", wrong.another_edge("Add")),
    _wrong("a layer reads another tensor", wrong.another_edge("Conv", "Gemm")),
    _wrong("another tensor anywhere", wrong.another_edge("Relu", "MaxPool", "QuantizeLinear", "Mul", "Sub", "Concat")),
    _wrong("Sub: inputs exchanged", wrong.inputs_exchanged("Sub")),
    _wrong("Div: inputs exchanged", wrong.inputs_exchanged("Div")),
    _wrong("Concat: inputs exchanged", wrong.inputs_exchanged("Concat")),
    _wrong("Add: one input twice", wrong.with_itself),
    _wrong("outputs of a node exchanged", wrong.outputs_exchanged),
    _wrong("Slices exchanged", wrong.slices_exchanged),
    # Nodes.
    _wrong("Relu removed", wrong.removed("Relu")),
    _wrong("BatchNormalization removed", wrong.removed("BatchNormalization")),
    _wrong("Add removed", wrong.removed("Add")),
    _wrong("Mul removed", wrong.removed("Mul")),
    _wrong("Sub removed", wrong.removed("Sub")),
    _wrong("Div removed", wrong.removed("Div")),
    _wrong("activation removed", wrong.removed("PRelu", "LeakyRelu", "Clip", "Sigmoid", "Elu", "Softmax")),
    _wrong("pool removed", wrong.removed("MaxPool", "AveragePool")),
    _wrong("layer removed", wrong.layer_removed),
    _wrong("Mul inserted", wrong.inserted(wrong.arithmetic("Mul", 1.1))),
    _wrong("Mul by -1 inserted", wrong.inserted(wrong.arithmetic("Mul", -1))),
    _wrong("Mul by 2 inserted", wrong.inserted(wrong.arithmetic("Mul", 2))),
    _wrong("Add inserted", wrong.inserted(wrong.arithmetic("Add", 0.1))),
    _wrong("Neg inserted", wrong.inserted(wrong.plain("Neg"))),
    _wrong("Abs inserted", wrong.inserted(wrong.plain("Abs"))),
    _wrong("Relu inserted", wrong.inserted(wrong.plain("Relu"))),
    _wrong("Clip inserted", wrong.inserted(wrong.clip(-1, 1))),
    _wrong("Round inserted", wrong.inserted(wrong.plain("Round"))),
    _wrong("Softmax inserted", wrong.inserted(wrong.plain("Softmax"))),
    _wrong("Sign inserted", wrong.inserted(wrong.plain("Sign"))),
    _wrong("Cast to INT32 and back inserted", wrong.inserted(wrong.plain("Cast", to=onnx.TensorProto.INT32), wrong.cast_back)),
    _wrong("Cast to INT8 and back inserted", wrong.inserted(wrong.plain("Cast", to=onnx.TensorProto.INT8), wrong.cast_back)),
    _wrong("Cast to UINT8 and back inserted", wrong.inserted(wrong.plain("Cast", to=onnx.TensorProto.UINT8), wrong.cast_back)),
    _wrong("Cast to BOOL and back inserted", wrong.inserted(wrong.plain("Cast", to=onnx.TensorProto.BOOL), wrong.cast_back)),
    _wrong(
        "Cast to FLOAT16 and back inserted",
        wrong.inserted(wrong.plain("Cast", to=onnx.TensorProto.FLOAT16), wrong.cast_back),
        *HALVING,
    ),
    _wrong(
        "Cast to BFLOAT16 and back inserted",
        wrong.inserted(wrong.plain("Cast", to=onnx.TensorProto.BFLOAT16), wrong.cast_back),
    ),
    _wrong(
        "Cast to FP8 and back inserted",
        wrong.inserted(wrong.plain("Cast", to=onnx.TensorProto.FLOAT8E4M3FN), wrong.cast_back),
    ),
    _wrong("far too large a number through FLOAT16", wrong.inserted(wrong.arithmetic("Mul", 1e3), wrong.arithmetic("Div", 1e2))),
    _wrong("Dropout in training mode inserted", wrong.training_dropout),
    _wrong("noise inserted", wrong.noise_inserted),
    _wrong("rows and columns exchanged", wrong.square_transposed),
    _wrong("channels permuted", wrong.channels_shuffled),
    _wrong("batch turned", wrong.batch_turned),
    _wrong("an If on the images", wrong.if_of_the_images),
    _wrong("an If on a constant", wrong.if_of_a_constant),
    _wrong("a Loop inserted", wrong.loop_inserted),
    # Pairs of Q and DQ.
    _wrong("pair inserted: INT8", wrong.pair_inserted(0.05, np.int8(0)), *QUANTISING),
    _wrong("pair inserted: coarse", wrong.pair_inserted(0.7, np.int8(0)), *QUANTISING),
    _wrong("pair inserted: far too narrow", wrong.pair_inserted(1e-4, np.int8(0)), *QUANTISING),
    _wrong("pair inserted: UINT8 without negatives", wrong.pair_inserted(0.02, np.uint8(0))),
    _wrong("pair inserted: UINT8 about 128", wrong.pair_inserted(0.05, np.uint8(128)), *QUANTISING),
    _wrong("pair inserted: INT8 about 30", wrong.pair_inserted(0.05, np.int8(30))),
    _wrong("pair inserted: a negative scale", wrong.pair_inserted(-0.05, np.int8(0))),
    _wrong("pair inserted: no scale", wrong.pair_inserted(0.0, np.int8(0))),
    _wrong("pair inserted on a weight", wrong.pair_on_weight(0.05)),
    _wrong("weight in levels where the stage has none", wrong.coarse_levels),
    _wrong("weight in the nearest levels where the stage has none", wrong.fine_levels, *QUANTISING),
    _wrong("activation: scale of DQ twice", wrong.activation_scale(lambda s: s * 2, quantise=False, dequantise=True)),
    _wrong("activation: scale of Q twice", wrong.activation_scale(lambda s: s * 2, quantise=True, dequantise=False)),
    _wrong("activation: scale of DQ 1 % more", wrong.activation_scale(lambda s: s * 1.01, quantise=False, dequantise=True)),
    _wrong("activation: scale of Q 1 % more", wrong.activation_scale(lambda s: s * 1.01, quantise=True, dequantise=False)),
    _wrong(
        "activation: both scales twice",
        wrong.activation_scale(lambda s: s * 2, quantise=True, dequantise=True),
        *QUANTISING,
    ),
    _wrong(
        "activation: both scales 1 % more",
        wrong.activation_scale(lambda s: s * 1.01, quantise=True, dequantise=True),
        *QUANTISING,
    ),
    _wrong("activation: both scales 0", wrong.activation_scale(np.zeros_like, quantise=True, dequantise=True)),
    _wrong("activation: both scales infinite", wrong.activation_scale(lambda s: s * np.inf, quantise=True, dequantise=True)),
    _wrong("activation: DQ has another pair's scale", wrong.scale_of_another_pair(both=False)),
    _wrong("activation: both have another pair's scale", wrong.scale_of_another_pair(both=True), *QUANTISING),
    _wrong("activation: zero point of DQ", wrong.activation_zero_point(9, quantise=False, dequantise=True)),
    _wrong("activation: zero point of Q", wrong.activation_zero_point(9, quantise=True, dequantise=False)),
    _wrong("activation: zero point of both", wrong.activation_zero_point(40, quantise=True, dequantise=True)),
    _wrong("activation: UINT8 0 becomes INT8 0", wrong.activation_type(np.int8(0), np.uint8(0))),
    _wrong("activation: UINT8 128 becomes UINT8 0", wrong.activation_type(np.uint8(0), np.uint8(128))),
    _wrong("activation: UINT8 0 becomes UINT8 128", wrong.activation_type(np.uint8(128), np.uint8(0))),
    _wrong("activation: INT8 becomes UINT8 0", wrong.cuts_what_is_negative),
    _wrong("activation: zero points omitted", wrong.zero_point_omitted),
    _wrong("activation: E5M2", wrong.small_float(onnx.TensorProto.FLOAT8E5M2)),
    _wrong("activation: E4M3FNUZ", wrong.small_float(onnx.TensorProto.FLOAT8E4M3FNUZ)),
    _wrong("activation: FP8 that does not saturate", wrong.not_saturating),
    _wrong("activation: Q along 1, DQ along 2", wrong.axes_of_pair(1, 2)),
    _wrong("activation: Q along 2, DQ along 1", wrong.axes_of_pair(2, 1)),
    _wrong("activation: Q along 3, DQ along 2", wrong.axes_of_pair(3, 2)),
    _wrong("activation: scale of DQ computed", wrong.scale_computed),
    _wrong("activation: scale of both computed", wrong.scale_of_both_computed, *QUANTISING),
    _wrong("activation: pair removed", wrong.pair_removed, *QUANTISING),
    _wrong("activation: pair passed over", wrong.pair_passed_over, *QUANTISING),
    _wrong("activation: DQ reads another pair's levels", wrong.pair_of_another),
    _wrong("activation: a second, coarser pair", wrong.requantised, *QUANTISING),
    _wrong("weight scale: twice", wrong.weight_scale(lambda s: s * 2)),
    _wrong("weight scale: 1 % more", wrong.weight_scale(lambda s: s * 1.01)),
    _wrong("weight scale: reversed", wrong.weight_scale(lambda s: s[::-1] if s.ndim else s)),
    _wrong("weight scale: rolled", wrong.weight_scale(lambda s: np.roll(s, 1))),
    _wrong("weight scale: the first for all", wrong.weight_scale(lambda s: np.full_like(s, s.ravel()[0]))),
    _wrong("weight scale: one negative", wrong.weight_scale(wrong.at_largest(lambda x: -x))),
    _wrong("weight scale: one 0", wrong.weight_scale(wrong.at_largest(lambda x: 0 * x))),
    _wrong("weight scale: infinite", wrong.weight_scale(wrong.at_largest(lambda x: x * np.inf))),
    _wrong("weight scale: ones", wrong.weight_scale(np.ones_like)),
    _wrong("weight scale: of DQ alone", wrong.weight_scale_of_one_half(lambda s: s * 2)),
    _wrong("weight scale: computed", wrong.weight_scale_computed),
    _wrong("weight pair: axis of Q", wrong.weight_pair_axis(1, quantise=True, dequantise=False)),
    _wrong("weight pair: axis of DQ", wrong.weight_pair_axis(1, quantise=False, dequantise=True)),
    _wrong("weight pair: axis of both", wrong.weight_pair_axis(1, quantise=True, dequantise=True)),
    _wrong("weight pair: UINT8 without negatives", wrong.unsigned_weight_pair),
    _wrong("weight: levels as numbers", wrong.levels_as_numbers),
    _wrong("weight: levels behind a Cast", wrong.levels_behind_cast(1)),
    _wrong("weight: levels behind a Cast under one scale", wrong.levels_behind_cast(0.01)),
    _wrong("weight: whole numbers behind a Cast", wrong.whole_numbers_behind_cast),
    _wrong("weight: a Cast behind larger scales", wrong.cast_behind_dequantise),
    _wrong("weight: a scale for every block", wrong.blocked),
    # What the file says of itself.
    _wrong("metadata: classes reversed", wrong.metadata("classes", harmless.reversed_list)),
    _wrong("metadata: a class renamed", wrong.metadata("classes", lambda text: text.replace("class 3", "class 30"))),
    _wrong("metadata: another mean", wrong.metadata("preprocessing", lambda text: text.replace("0.485", "0.5"))),
    _wrong("metadata: no classes", wrong.metadata("classes", lambda text: None)),
    _wrong("metadata: no preprocessing", wrong.metadata("preprocessing", lambda text: None)),
    _wrong("output: another tensor", wrong.other_output),
    _wrong("output: another name", wrong.output_renamed),
    _wrong("output: another type", wrong.output_of_another_type),
    _wrong("input: a fixed batch", wrong.fixed_batch),
    _wrong("opset 19 by its number", wrong.opset(19)),
    _wrong("opset 21 by its number", wrong.opset(21)),
    _wrong("opset 23 by its number", wrong.opset(23)),
    # Both files have what the stage did not make, and it differs.
    _wrong_both("function: another body", wrong.in_both(wrong.function_call(0.1), wrong.function_call(0.3))),
    _wrong_both(
        "function: another default",
        wrong.in_both(wrong.function_call(0.1, default=True), wrong.function_call(0.3, default=True)),
    ),
    _wrong_both("If: branches exchanged", wrong.in_both(wrong.an_if(True, "Neg", "Abs"), wrong.an_if(True, "Abs", "Neg"))),
    _wrong_both("If: another condition", wrong.in_both(wrong.an_if(True, "Neg", "Abs"), wrong.an_if(False, "Neg", "Abs"))),
    _wrong_both("If: another operator", wrong.in_both(wrong.an_if(True, "Neg", "Abs"), wrong.an_if(True, "Sign", "Abs"))),
    _wrong_both(
        "If on the images: branches exchanged",
        wrong.in_both(wrong.if_bright("Neg", "Abs"), wrong.if_bright("Abs", "Neg")),
    ),
    _wrong_both(
        "If on the images: another operator",
        wrong.in_both(wrong.if_bright("Neg", "Abs"), wrong.if_bright("Neg", "Relu")),
    ),
    _wrong_both("Loop: more turns", wrong.in_both(wrong.a_loop(1, "Neg"), wrong.a_loop(2, "Neg"))),
    _wrong_both("Loop: another body", wrong.in_both(wrong.a_loop(2, "Neg"), wrong.a_loop(2, "Abs"))),
    _wrong_both(
        "HardSigmoid: alpha",
        wrong.in_both(wrong.chain(("HardSigmoid", {"alpha": 0.2})), wrong.chain(("HardSigmoid", {"alpha": 0.3}))),
    ),
    _wrong_both(
        "LRN: size", wrong.in_both(wrong.chain(("LRN", {"size": 3, "alpha": 1.0})), wrong.chain(("LRN", {"size": 5, "alpha": 1.0})))
    ),
    _wrong_both(
        "Softmax: another axis", wrong.in_both(wrong.chain(("Softmax", {"axis": 1})), wrong.chain(("Softmax", {"axis": 3})))
    ),
    _wrong_both("Split: outputs exchanged", wrong.in_both(wrong.one_output_of_two("low"), wrong.one_output_of_two("high"))),
    _wrong_both("outputs of the graph exchanged", wrong.in_both(wrong.two_answers(exchanged=False), wrong.two_answers(exchanged=True))),
    _wrong_both("Softmax of another opset", wrong.in_both(wrong.softmax_at(12), wrong.softmax_at(13))),
]


def _harmless(name: str, change: harmless.Change, *not_in: str) -> Kind:
    return Kind(name, change, "harmless", "after", frozenset(not_in))


def _harmless_before(name: str, change: harmless.Change, *not_in: str) -> Kind:
    return Kind(f"{name}, before", change, "harmless", "before", frozenset(not_in))


def _simplified(name: str, change: harmless.ChangeOfBoth) -> Kind:
    """What a simplifier does: it is no other stage's work."""
    return Kind(name, change, "harmless", "both", STAGES - {"simplify"})


def _unchanged(name: str, change: harmless.ChangeOfBoth) -> Kind:
    return Kind(name, change, "harmless", "both")


# What may stand in either file.
_EITHER: list[tuple[str, harmless.Change]] = [
    ("nothing changed", lambda model, generator: None),
    ("Constant node", harmless.constant_node("", 0, lambda array: {"value": numpy_helper.from_array(array)})),
    ("Constant node: value_float", harmless.constant_node("f4", 0, lambda array: {"value_float": float(array)})),
    ("Constant node: value_floats", harmless.constant_node("f4", 1, lambda array: {"value_floats": array.tolist()})),
    ("Constant node: value_int", harmless.constant_node("i8", 0, lambda array: {"value_int": int(array)})),
    ("Constant node: value_ints", harmless.constant_node("i8", 1, lambda array: {"value_ints": array.tolist()})),
    ("Constant nodes: all", harmless.all_constant_nodes),
    ("Constant nodes: layers", harmless.constants_of("Conv", "Gemm")),
    ("Constant nodes: normalisations", harmless.constants_of("BatchNormalization")),
    ("Constant nodes: scales and zero points", harmless.constants_of(*PAIR, places=slice(1, 3))),
    ("Constant nodes: levels", harmless.constants_of("DequantizeLinear", places=slice(0, 1))),
    ("Constant nodes: other operands", harmless.constants_of("Sub", "Div", "Mul", "Add", "PRelu", "Slice", "Split")),
    ("through Identity", harmless.spelt(harmless.through_identity)),
    ("through Identity: all", harmless.spelt(harmless.through_identity, everywhere=True)),
    ("through a wider type", harmless.spelt(harmless.through_cast)),
    ("through a wider type: all", harmless.spelt(harmless.through_cast, everywhere=True)),
    ("through two Transposes", harmless.spelt(harmless.through_transposes)),
    ("through two Transposes: all", harmless.spelt(harmless.through_transposes, everywhere=True)),
    ("through two Reshapes", harmless.spelt(harmless.through_reshapes)),
    ("through two Reshapes: all", harmless.spelt(harmless.through_reshapes, everywhere=True)),
    ("through Unsqueeze and Squeeze", harmless.spelt(harmless.through_squeeze)),
    ("through Unsqueeze and Squeeze: all", harmless.spelt(harmless.through_squeeze, everywhere=True)),
    ("through Split and Concat", harmless.spelt(harmless.through_concat)),
    ("through a Mul by 1", harmless.spelt(harmless.through_arithmetic("Mul", 1))),
    ("through a Div by 1", harmless.spelt(harmless.through_arithmetic("Div", 1))),
    ("through an Add of 0", harmless.spelt(harmless.through_arithmetic("Sub", 0))),
    ("through its half, twice", harmless.spelt(harmless.through_doubling)),
    ("through two Negs", harmless.spelt(harmless.through_negations)),
    ("through a Gather of all", harmless.spelt(harmless.through_gather)),
    ("through an If on a constant", harmless.spelt(harmless.through_constant_if)),
    ("by ConstantOfShape", harmless.constant_of_shape),
    ("by Expand", harmless.expanded),
    ("initializers listed as inputs", harmless.listed_as_inputs),
    ("numbers in typed fields", harmless.typed_storage),
    ("a constant for every reader", harmless.a_copy_for_every_reader),
    ("equal constants merged", harmless.equal_constants_merged),
    ("tensors renamed", harmless.tensors_renamed),
    ("nodes renamed", harmless.nodes_renamed),
    ("nodes without names", harmless.nodes_without_names),
    ("another order", harmless.other_order),
    ("Add: inputs exchanged", harmless.operands_exchanged("Add")),
    ("Mul: inputs exchanged", harmless.operands_exchanged("Mul")),
    ("axes from the end", harmless.axes_from_the_end("Concat", "Softmax", "Flatten", "Split", "Gather")),
    ("axes of pairs from the end", harmless.axes_from_the_end(*PAIR)),
    ("an axis where one scale has none", harmless.axis_left_out),
    ("defaults written", harmless.defaults_written),
    ("defaults left out", harmless.defaults_left_out),
    ("automatic pads: SAME_UPPER", harmless.automatic_pads("SAME_UPPER")),
    ("automatic pads: SAME_LOWER", harmless.automatic_pads("SAME_LOWER")),
    ("automatic pads: VALID", harmless.automatic_pads("VALID")),
    ("another momentum", harmless.attribute_without_meaning("BatchNormalization", "momentum", 0.3)),
    ("another order of unread indices", harmless.attribute_without_meaning("MaxPool", "storage_order", 1)),
    ("Identity inserted", harmless.inserted("Identity")),
    ("Identity behind the images", harmless.identity_on_a_graph_input),
    ("Dropout inserted", harmless.inserted("Dropout")),
    ("Dropout inserted with its ratio", harmless.inserted("Dropout", np.float32(0.3))),
    ("Dropout inserted, not in training", harmless.inserted("Dropout", np.float32(0.3), np.bool_(False))),
    ("an If that never turns", harmless.an_if_that_never_turns),
    ("a node twice", harmless.duplicated()),
    ("a pair for every reader", harmless.pair_for_every_reader),
    ("zero points left out", harmless.zero_points_left_out),
    ("a missing bias by an empty name", harmless.empty_operand),
    ("other texts", harmless.doc_strings),
    ("no shapes of inner tensors", harmless.no_value_info),
    ("all shapes of inner tensors", harmless.value_info_inferred),
    ("metadata in another order", harmless.metadata_in_another_order),
    ("an unused initializer", harmless.unused_initializer),
    ("an unused node", harmless.unused_node),
    ("an unused domain", harmless.unused_domain),
    ("a function around Relu", harmless.in_a_function("Relu")),
    ("a function around a layer", harmless.in_a_function("Conv", "Gemm")),
]
HARMLESS = [
    *(_harmless(name, change) for name, change in _EITHER),
    *(_harmless_before(name, change) for name, change in _EITHER[1:]),
    *(_harmless(f"opset {version}", harmless.later_opset(version)) for version in (18, 19, 20, 21, 22)),
    _simplified("Mul by one number merged", harmless.merged("Mul", a_channel=False)),
    _simplified("Mul by numbers merged", harmless.merged("Mul", a_channel=True)),
    _simplified("number times convolution merged", harmless.merged("Mul", a_channel=True, turned=True)),
    _simplified("Div by one number merged", harmless.merged("Div", a_channel=False)),
    _simplified("Div by numbers merged", harmless.merged("Div", a_channel=True)),
    _simplified("Add of numbers merged", harmless.merged("Add", a_channel=True)),
    _simplified("Add of one number merged", harmless.merged("Add", a_channel=False)),
    _simplified("Sub of numbers merged", harmless.merged("Sub", a_channel=True)),
    _simplified("number less convolution merged", harmless.merged("Sub", a_channel=True, turned=True)),
    _simplified("Pad taken into a convolution", harmless.pad_taken_in),
    _simplified("Pad taken into a convolution with pads", harmless.pad_taken_in_partly),
    _simplified("Pad taken into a MaxPool", harmless.pad_in_front_of_pool("MaxPool", -np.inf)),
    _simplified("Pad taken into an AveragePool", harmless.pad_in_front_of_pool("AveragePool", 0)),
    _simplified("constants folded: Sub of the maximum", harmless.constants_folded(harmless.standardised)),
    _simplified("constants folded: Mul", harmless.constants_folded(harmless.doubled)),
    _simplified("constants folded: Max", harmless.constants_folded(harmless.clipped)),
    _simplified("If on a constant folded", harmless.if_folded),
    _simplified("function inlined", harmless.function_inlined),
    _unchanged("unchanged: an infinite bound", harmless.same_in_both(harmless.infinite_bound)),
    _unchanged("unchanged: ConstantOfShape", harmless.same_in_both(harmless.zeros_of_a_shape)),
    _unchanged("unchanged: an If on the images", harmless.same_in_both(wrong.if_bright("Neg", "Abs"))),
    _unchanged("unchanged: an If on a constant", harmless.same_in_both(wrong.an_if(True, "Neg", "Abs"))),
    _unchanged("unchanged: a Loop", harmless.same_in_both(harmless.a_loop)),
    _unchanged("unchanged: a function", harmless.same_in_both(wrong.function_call(0.1))),
    _unchanged("unchanged: a function's default", harmless.same_in_both(wrong.function_call(0.1, default=True))),
    _unchanged("unchanged: Softmax", harmless.same_in_both(wrong.chain(("Softmax", {"axis": 1})))),
    _unchanged("unchanged: LRN", harmless.same_in_both(wrong.chain(("LRN", {"size": 3})))),
    _unchanged("unchanged: Split and Concat", harmless.same_in_both(wrong.one_output_of_two("low"))),
    _unchanged("unchanged: two answers", harmless.same_in_both(wrong.two_answers(exchanged=False))),
]

KINDS = [*WRONG, *HARMLESS]


@dataclass(frozen=True)
class Judged:
    """What came of one mutant: ``moved`` by which relative difference; ``refused`` where no runtime takes it."""

    kind: Kind
    network: str
    stage: str
    proven: bool
    moved: float
    refused: str = ""
    found: str = ""

    @property
    def fault(self) -> str:
        """What is wrong with its certificate; empty where it is as it must be."""
        if self.refused:
            return ""
        if self.kind.verdict == "wrong":
            return "proven and moved" if self.proven and self.moved > ROUNDING else ""
        return "" if self.proven else "harmless and refuted"


class Judge:
    """Makes mutants of one honest pair in ``folder``, runs them and certifies them.

    ``told``: the certificate is told which stage it judges; else it guesses.
    """

    def __init__(self, pair: StagePair, folder: Path, *, told: bool = True) -> None:
        self.pair = pair
        self.folder = folder
        self.pixels = images(99, wrong.IMAGES)
        self.honest = answers(pair.after, self.pixels)
        self.certify = partial(certify, **({"stage": pair.certified_as} if told else {}))

    def judge(self, kind: Kind, seed: int = 0) -> Judged | None:
        """None where the pair has nothing for this kind, or may differ in it."""
        if self.pair.stage in kind.not_in:
            return None
        generator = np.random.default_rng([seed, zlib.crc32(kind.name.encode())])
        before = _copy(self.pair.before)
        after = _copy(self.pair.after)
        try:
            honest = change(kind, before, after, generator)
        except Absent:
            return None
        if kind.verdict == "wrong":
            # A tool infers the shapes anew: those that were there are no part of the fault.
            del after.graph.value_info[:]

        refused = _refused(before) or _refused(after)
        if refused:
            return Judged(kind, self.pair.network, self.pair.stage, proven=False, moved=0.0, refused=refused)
        moved = self._moved(kind, before, after, honest)
        proven, found = self._certified(before, after)
        return Judged(kind, self.pair.network, self.pair.stage, proven, moved, found=found)

    def _moved(
        self, kind: Kind, before: onnx.ModelProto, after: onnx.ModelProto, honest: onnx.ModelProto | None
    ) -> float:
        """How far the answers of ``after`` are from those of the honest file."""
        if kind.verdict == "wrong" and not _same_face(before, after):
            return np.inf
        if honest is not None:
            expected = answers(honest, self.pixels)
        elif kind.where == "after":
            expected = self.honest
        else:
            # What changes the trusted file keeps its answers, as the stage does.
            expected = answers(before, self.pixels)
            after = before if kind.where == "before" else after
            if kind.where == "before":
                expected = answers(self.pair.before, self.pixels)
        return difference(expected, answers(after, self.pixels))

    def _certified(self, before: onnx.ModelProto, after: onnx.ModelProto) -> tuple[bool, str]:
        """Whether it is proven, and the first refutation."""
        paths = [self.folder / "before.onnx", self.folder / "after.onnx"]
        for path, model in zip(paths, (before, after), strict=True):
            path.write_bytes(model.SerializeToString())
        try:
            certificate = self.certify(*paths)
        except ValueError as error:
            return False, str(error)
        if certificate.proven:
            return True, ""
        return False, f"{certificate.refuted[0].module}: {certificate.refuted[0].found}"


def change(
    kind: Kind, before: onnx.ModelProto, after: onnx.ModelProto, generator: np.random.Generator
) -> onnx.ModelProto | None:
    """Make the mutant in place; raises Absent where these files have nothing for it.

    Returns the honest file after where that is another one than before.
    """
    if kind.where == "both":
        honest: onnx.ModelProto | None = kind.change(before, after, generator)
        return honest
    kind.change(before if kind.where == "before" else after, generator)
    return None


def _refused(model: onnx.ModelProto) -> str:
    """Why ONNX or its runtime does not take the model, in a line; empty where they do."""
    try:
        onnx.checker.check_model(model.SerializeToString(), full_check=True)
        answers(model, images(99, wrong.IMAGES))
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError, *reference.refusals()) as error:
        return f"{type(error).__name__}: {error}".splitlines()[0]
    return ""


def answers(model: onnx.ModelProto, pixels: NDArray[np.float32]) -> NDArray[np.float64]:
    """All outputs of the model, one row an image."""
    session = reference.session(model.SerializeToString())
    read = session.get_inputs()[0]
    given = pixels.astype(np.uint8) if read.type == "tensor(uint8)" else pixels
    outputs = session.run(None, {read.name: given})
    return np.concatenate([np.asarray(output, np.float64).reshape(len(pixels), -1) for output in outputs], 1)


def difference(expected: NDArray[np.float64], found: NDArray[np.float64]) -> float:
    """The largest relative difference of an image's answers; infinite where they are no numbers or not as many."""
    if found.shape != expected.shape or not np.isfinite(found).all():
        return np.inf
    size = np.linalg.norm(expected, axis=1)
    return float((np.linalg.norm(found - expected, axis=1) / np.maximum(size, 1e-30)).max())


def _same_face(before: onnx.ModelProto, after: onnx.ModelProto) -> bool:
    """Whether both say the same of their classes, inputs and outputs to whoever calls them."""
    if {entry.key: entry.value for entry in before.metadata_props} != {
        entry.key: entry.value for entry in after.metadata_props
    }:
        return False
    named = {tensor.name for tensor in after.graph.initializer}
    faces = []
    for model in (before, after):
        ends = [*model.graph.input, *model.graph.output]
        faces.append([(value.name, _shape(value)) for value in ends if value.name not in named])
    return faces[0] == faces[1]


def _shape(value: onnx.ValueInfoProto) -> list[Any]:
    return [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim]


def _copy(model: onnx.ModelProto) -> onnx.ModelProto:
    return onnx.ModelProto.FromString(model.SerializeToString())
