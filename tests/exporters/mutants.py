"""All kinds of mutants as a table.

A wrong kind is what a faulty tool could write, a harmless kind says the same in other words.
"""

from __future__ import annotations

import chains
import harmless_constants as spelling
import harmless_graphs as rewriting
import harmless_in_both as simplifying
import numpy as np
import onnx
import wrong_constants as constants
import wrong_graphs as graphs
import wrong_in_both as both
import wrong_pairs as pairs
from graph_edits import PAIR
from mutant_judge import HALVING, Kind
from onnx import numpy_helper
from stage_pairs import STAGES

QUANTISING = {"int8", "int8 for onnxruntime", "fp8"}


def _wrong(name: str, change: graphs.Change, *not_in: str) -> Kind:
    return Kind(name, change, "wrong", "after", frozenset(not_in))


def _wrong_both(name: str, change: both.ChangeOfBoth, *not_in: str) -> Kind:
    return Kind(name, change, "wrong", "both", frozenset({"equalise", *not_in}))


RELU = ("Relu",)
POOLS = ("MaxPool", "AveragePool")
WRONG = [
    # Constants.
    _wrong("weight: sign of one", constants.weight(constants.at_largest(lambda x: -x))),
    _wrong("weight: one zero", constants.weight(constants.at_largest(lambda x: 0 * x))),
    _wrong("weight: one twice as large", constants.weight(constants.at_largest(lambda x: x / 2))),
    _wrong("weight: negated", constants.weight(np.negative)),
    _wrong("weight: 1 % larger", constants.weight(lambda w: w * 1.01)),
    _wrong("weight: a tenth larger", constants.weight(lambda w: w * 1.1)),
    _wrong("weight: half", constants.weight(lambda w: w / 2)),
    _wrong("weight: zeros", constants.weight(np.zeros_like)),
    _wrong("weight: one channel zero", constants.weight(constants.first_channel(np.zeros_like))),
    _wrong("weight: one channel twice as large", constants.weight(constants.first_channel(lambda w: w * 2))),
    _wrong("weight: one channel negated", constants.weight(constants.first_channel(np.negative))),
    _wrong("weight: outputs permuted", constants.weight(lambda w: np.roll(w, 1, 0))),
    _wrong("weight: outputs reversed", constants.weight(lambda w: w[::-1])),
    _wrong("weight: inputs permuted", constants.weight(lambda w: np.roll(w, 1, 1))),
    _wrong("weight: groups exchanged", constants.weight(constants.groups_exchanged, "Conv")),
    _wrong("weight: outputs and inputs exchanged", constants.weight(constants.square_turned)),
    _wrong("weight: rows and columns exchanged", constants.weight(lambda w: np.swapaxes(w, -1, -2), "Conv")),
    _wrong("weight: turned by 180 degrees", constants.weight(lambda w: w[:, :, ::-1, ::-1], "Conv")),
    _wrong("weight: read with channels last", constants.weight(constants.other_order, "Conv")),
    _wrong("weight: all outputs as the first", constants.weight(lambda w: np.broadcast_to(w[:1], w.shape))),
    _wrong("weight: mean subtracted", constants.weight(lambda w: w - w.mean())),
    _wrong("weight: bfloat16", constants.weight(constants.to_bfloat16)),
    _wrong("weight: four bits", constants.weight(constants.rounded_to(7))),
    _wrong("weight: two bits", constants.weight(constants.rounded_to(1))),
    _wrong(
        "weight: clipped to half", constants.weight(lambda w: np.clip(w, -np.abs(w).max() / 2, np.abs(w).max() / 2))
    ),
    _wrong("weight: small ones pruned", constants.weight(lambda w: np.where(np.abs(w) < np.abs(w).max() / 5, 0, w))),
    _wrong("weight: bytes in the other order", constants.weight(constants.bytes_turned)),
    _wrong("weight: all one level up", constants.weight(lambda w: w + np.abs(w).max() / 100)),
    _wrong("weight: magnitudes", constants.weight(np.abs)),
    _wrong(
        "weight: the lowest level as -128", constants.weight(lambda w: np.where(w == w.min(), w.min() * 128 / 127, w))
    ),
    _wrong("weight: exchanged with another layer's", constants.weights_exchanged),
    _wrong("weight: read from another layer", constants.reads_another_weight),
    _wrong("weight: times 1.5 by a Mul", constants.weight_through(chains.arithmetic("Mul", 1.5))),
    _wrong("weight: plus 0.05 by an Add", constants.weight_through(chains.arithmetic("Add", 0.05))),
    _wrong("weight: negated by a Neg", constants.weight_through(chains.plain("Neg"))),
    _wrong("weight: magnitudes by an Abs", constants.weight_through(chains.plain("Abs"))),
    _wrong("weight: cut by a Relu", constants.weight_through(chains.plain("Relu"))),
    _wrong("weight: clipped by a Clip", constants.weight_through(chains.clip(-0.05, 0.05))),
    _wrong("weight: turned by a Transpose", constants.weight_through(constants.turned)),
    _wrong("weight: permuted by a Gather", constants.weight_through(constants.gathered)),
    _wrong(
        "weight: through whole numbers",
        constants.weight_through(chains.plain("Cast", to=onnx.TensorProto.INT32), chains.cast_back),
    ),
    _wrong(
        "weight: through float16",
        constants.weight_through(chains.plain("Cast", to=onnx.TensorProto.FLOAT16), chains.cast_back),
        *HALVING,
    ),
    _wrong(
        "weight: through bfloat16",
        constants.weight_through(chains.plain("Cast", to=onnx.TensorProto.BFLOAT16), chains.cast_back),
    ),
    _wrong("weight: random noise added", constants.random_noise),
    _wrong("weight: scaled by the images", constants.scaled_by_the_images),
    _wrong("weight: halves exchanged by a Concat", constants.halves_exchanged),
    _wrong("bias: lost", constants.bias_lost),
    _wrong("bias: zeros", constants.bias(np.zeros_like)),
    _wrong("bias: twice", constants.bias(lambda b: 2 * b)),
    _wrong("bias: negated", constants.bias(np.negative)),
    _wrong("bias: rolled", constants.bias(lambda b: np.roll(b, 1))),
    _wrong("bias: reversed", constants.bias(lambda b: b[::-1])),
    _wrong("bias: one changed", constants.bias(constants.at_largest(lambda x: x * 1.05))),
    _wrong("bias: a little more", constants.bias(lambda b: b + 0.01)),
    _wrong("bias: rounded coarsely", constants.bias(constants.rounded_to(31))),
    _wrong("bias: not a number", constants.bias(constants.at_largest(lambda x: x * np.nan))),
    _wrong("bias: that of another layer", constants.bias_of_another),
    _wrong("bias: where none was", constants.bias_where_none_was),
    _wrong("bias: another one in a Constant node", constants.constant_node(np.negative)),
    _wrong("bias: another default of a graph input", constants.overridden_default),
    _wrong("BatchNormalization: gamma and beta exchanged", constants.normalisation_inputs_exchanged(1, 2)),
    _wrong("BatchNormalization: mean and variance exchanged", constants.normalisation_inputs_exchanged(3, 4)),
    _wrong("BatchNormalization: beta and mean exchanged", constants.normalisation_inputs_exchanged(2, 3)),
    _wrong("BatchNormalization: exchanged with another", constants.normalisation_of_another),
    _wrong("BatchNormalization: deviation for variance", constants.normalisation(4, np.sqrt)),
    _wrong("BatchNormalization: variance inverted", constants.normalisation(4, lambda v: 1 / (v + 0.1))),
    _wrong("BatchNormalization: mean lost", constants.normalisation(3, np.zeros_like)),
    _wrong("BatchNormalization: mean negated", constants.normalisation(3, np.negative)),
    _wrong("BatchNormalization: gamma ones", constants.normalisation(1, np.ones_like)),
    _wrong("BatchNormalization: gamma plus one", constants.normalisation(1, lambda g: g + 1)),
    _wrong("BatchNormalization: epsilon 1e-2", graphs.attribute(["BatchNormalization"], "epsilon", 1e-2)),
    _wrong("BatchNormalization: training mode", constants.in_training_mode),
    _wrong("constant: larger", constants.other_constant(lambda c: c * 1.1)),
    _wrong("constant: shifted", constants.other_constant(lambda c: c + 0.1)),
    _wrong("constant: channels reversed", constants.other_constant(lambda c: c[:, ::-1] if c.ndim == 4 else c)),
    # Attributes.
    _wrong("Conv: strides 2", graphs.conv(graphs.stepping3x3, strides=[2, 2])),
    _wrong("Conv: strides 1", graphs.conv(graphs.strided3x3, strides=[1, 1])),
    _wrong("Conv: pads at the ends only", graphs.conv(graphs.padded3x3, pads=[0, 0, 2, 2])),
    _wrong("Conv: pads at the beginnings only", graphs.conv(graphs.padded3x3, pads=[2, 2, 0, 0])),
    _wrong("Conv: no pads", graphs.conv(graphs.padded3x3, pads=[0] * 4)),
    _wrong("Conv: pads of 2", graphs.conv(graphs.padded3x3, pads=[2] * 4)),
    _wrong("Conv: dilations 2", graphs.conv(graphs.padded3x3, pads=[2] * 4, dilations=[2, 2])),
    _wrong("Conv: same upper", graphs.conv(graphs.strided3x3, auto_pad="SAME_UPPER", pads=None)),
    _wrong("Conv: valid", graphs.conv(graphs.padded3x3, auto_pad="VALID", pads=None)),
    _wrong("MaxPool: pads at the ends", graphs.attribute(["MaxPool"], "pads", [0, 0, 1, 1])),
    _wrong("MaxPool: no pads", graphs.attribute(["MaxPool"], "pads", [0] * 4)),
    _wrong("MaxPool: smaller kernel", graphs.attribute(["MaxPool"], "kernel_shape", [2, 2])),
    _wrong("MaxPool: dilations 2", graphs.attribute(["MaxPool"], "dilations", [2, 2])),
    _wrong("MaxPool: ceil mode", graphs.attribute(["MaxPool"], "ceil_mode", lambda held: 0 if held else 1)),
    _wrong("MaxPool: strides", graphs.attribute(["MaxPool"], "strides", [1, 1])),
    _wrong(
        "AveragePool: padding counted", graphs.attribute(["AveragePool"], "count_include_pad", lambda c: 0 if c else 1)
    ),
    _wrong("AveragePool: pads", graphs.attribute(["AveragePool"], "pads", [0, 0, 1, 1])),
    _wrong("LeakyRelu: alpha", graphs.attribute(["LeakyRelu"], "alpha", 0.2)),
    _wrong("Elu: alpha", graphs.attribute(["Elu"], "alpha", 0.5)),
    _wrong("Gemm: alpha", graphs.attribute(["Gemm"], "alpha", 0.5)),
    _wrong("Gemm: beta", graphs.attribute(["Gemm"], "beta", 0.5)),
    _wrong("Gemm: transB", graphs.square_gemm_turned),
    _wrong("Softmax: axis", graphs.attribute(["Softmax"], "axis", 2)),
    # Operators.
    _wrong("Relu becomes LeakyRelu", graphs.other_operator(RELU, "LeakyRelu", alpha=0.1)),
    _wrong("Relu becomes Elu", graphs.other_operator(RELU, "Elu")),
    _wrong("Relu becomes Abs", graphs.other_operator(RELU, "Abs")),
    _wrong("Relu becomes Identity", graphs.other_operator(RELU, "Identity")),
    _wrong("Relu becomes Softplus", graphs.other_operator(RELU, "Softplus")),
    _wrong("Relu becomes Clip", graphs.relu_as_clip),
    _wrong("Sigmoid becomes HardSigmoid", graphs.other_operator(["Sigmoid"], "HardSigmoid")),
    _wrong("Sigmoid becomes Tanh", graphs.other_operator(["Sigmoid"], "Tanh")),
    _wrong("Erf becomes Tanh", graphs.other_operator(["Erf"], "Tanh")),
    _wrong("PRelu becomes Max", graphs.other_operator(["PRelu"], "Max")),
    _wrong("Softmax becomes LogSoftmax", graphs.other_operator(["Softmax"], "LogSoftmax")),
    _wrong("Softmax becomes Hardmax", graphs.other_operator(["Softmax"], "Hardmax")),
    _wrong("MaxPool becomes AveragePool", graphs.other_operator(["MaxPool"], "AveragePool")),
    _wrong("AveragePool becomes MaxPool", graphs.other_operator(["AveragePool"], "MaxPool")),
    _wrong("mean becomes maximum", graphs.other_operator(["GlobalAveragePool"], "GlobalMaxPool")),
    _wrong("ReduceMean becomes ReduceSum", graphs.other_operator(["ReduceMean"], "ReduceMax")),
    _wrong("Add becomes Sub", graphs.other_operator(["Add"], "Sub")),
    _wrong("Add becomes Mul", graphs.other_operator(["Add"], "Mul")),
    _wrong("Add becomes Max", graphs.other_operator(["Add"], "Max")),
    _wrong("Add becomes Mean", graphs.other_operator(["Add"], "Mean")),
    _wrong("Sub becomes Add", graphs.other_operator(["Sub"], "Add")),
    _wrong("Div becomes Mul", graphs.other_operator(["Div"], "Mul")),
    _wrong("Mul becomes Add", graphs.other_operator(["Mul"], "Add")),
    _wrong("Mul becomes Div", graphs.other_operator(["Mul"], "Div")),
    _wrong(
        "BatchNormalization becomes InstanceNormalization",
        graphs.without_inputs("InstanceNormalization", 3, "BatchNormalization"),
    ),
    _wrong("a node of another domain", graphs.own_domain),
    _wrong("an Identity of another domain", graphs.own_identity),
    _wrong("a Cast of another domain", graphs.own_cast),
    # Edges.
    _wrong("residual from elsewhere", graphs.another_edge("Add")),
    _wrong("a layer reads another tensor", graphs.another_edge("Conv", "Gemm")),
    _wrong("another tensor anywhere", graphs.another_edge("Relu", "MaxPool", "QuantizeLinear", "Mul", "Sub", "Concat")),
    _wrong("Sub: inputs exchanged", graphs.inputs_exchanged("Sub")),
    _wrong("Div: inputs exchanged", graphs.inputs_exchanged("Div")),
    _wrong("Concat: inputs exchanged", graphs.inputs_exchanged("Concat")),
    _wrong("Add: one input twice", graphs.with_itself),
    _wrong("Slices exchanged", graphs.slices_exchanged),
    # Nodes.
    _wrong("Relu removed", graphs.removed("Relu")),
    _wrong("BatchNormalization removed", graphs.removed("BatchNormalization")),
    _wrong("Add removed", graphs.removed("Add")),
    _wrong("Mul removed", graphs.removed("Mul")),
    _wrong("Sub removed", graphs.removed("Sub")),
    _wrong("Div removed", graphs.removed("Div")),
    _wrong("activation removed", graphs.removed("PRelu", "LeakyRelu", "Clip", "Sigmoid", "Elu", "Softmax")),
    _wrong("pool removed", graphs.removed("MaxPool", "AveragePool")),
    _wrong("layer removed", graphs.layer_removed),
    _wrong("Mul inserted", graphs.inserted(chains.arithmetic("Mul", 1.1))),
    _wrong("Mul by -1 inserted", graphs.inserted(chains.arithmetic("Mul", -1))),
    _wrong("Mul by 2 inserted", graphs.inserted(chains.arithmetic("Mul", 2))),
    _wrong("Add inserted", graphs.inserted(chains.arithmetic("Add", 0.1))),
    _wrong("Add of a little inserted", graphs.inserted(chains.arithmetic("Add", 1e-3))),
    _wrong("rows turned round by a Slice", graphs.inserted(chains.rows_turned)),
    _wrong("a row cut off and zeros for it", graphs.inserted(chains.padded(-1), chains.padded(1)), *QUANTISING),
    _wrong("Neg inserted", graphs.inserted(chains.plain("Neg"))),
    _wrong("Abs inserted", graphs.inserted(chains.plain("Abs"))),
    _wrong("Relu inserted", graphs.inserted(chains.plain("Relu"))),
    _wrong("Clip inserted", graphs.inserted(chains.clip(-1, 1))),
    _wrong("Round inserted", graphs.inserted(chains.plain("Round"))),
    _wrong("Softmax inserted", graphs.inserted(chains.plain("Softmax"))),
    _wrong("Sign inserted", graphs.inserted(chains.plain("Sign"))),
    _wrong(
        "Cast to INT32 and back inserted",
        graphs.inserted(chains.plain("Cast", to=onnx.TensorProto.INT32), chains.cast_back),
    ),
    _wrong(
        "Cast to INT8 and back inserted",
        graphs.inserted(chains.plain("Cast", to=onnx.TensorProto.INT8), chains.cast_back),
    ),
    _wrong(
        "Cast to UINT8 and back inserted",
        graphs.inserted(chains.plain("Cast", to=onnx.TensorProto.UINT8), chains.cast_back),
    ),
    _wrong(
        "Cast to BOOL and back inserted",
        graphs.inserted(chains.plain("Cast", to=onnx.TensorProto.BOOL), chains.cast_back),
    ),
    _wrong(
        "Cast to FLOAT16 and back inserted",
        graphs.inserted(chains.plain("Cast", to=onnx.TensorProto.FLOAT16), chains.cast_back),
        *HALVING,
    ),
    _wrong(
        "Cast to BFLOAT16 and back inserted",
        graphs.inserted(chains.plain("Cast", to=onnx.TensorProto.BFLOAT16), chains.cast_back),
    ),
    _wrong(
        "Cast to FP8 and back inserted",
        graphs.inserted(chains.plain("Cast", to=onnx.TensorProto.FLOAT8E4M3FN), chains.cast_back),
    ),
    _wrong(
        "far too large a number through FLOAT16",
        graphs.inserted(chains.arithmetic("Mul", 1e3), chains.arithmetic("Div", 1e2)),
    ),
    _wrong("Dropout in training mode inserted", graphs.training_dropout),
    _wrong("noise inserted", graphs.noise_inserted),
    _wrong("rows and columns exchanged", graphs.square_transposed),
    _wrong("channels permuted", graphs.channels_shuffled),
    _wrong("batch turned", graphs.batch_turned),
    _wrong("an If on the images", graphs.if_of_the_images),
    _wrong("an If on a constant", graphs.if_of_a_constant),
    _wrong("a Loop inserted", graphs.loop_inserted),
    # Pairs of Q and DQ.
    _wrong("pair inserted: INT8", pairs.pair_inserted(0.05, np.int8(0)), *QUANTISING),
    _wrong("pair inserted: coarse", pairs.pair_inserted(0.7, np.int8(0)), *QUANTISING),
    _wrong("pair inserted: far too narrow", pairs.pair_inserted(1e-4, np.int8(0)), *QUANTISING),
    _wrong("pair inserted: UINT8 without negatives", pairs.pair_inserted(0.02, np.uint8(0))),
    _wrong("pair inserted: UINT8 about 128", pairs.pair_inserted(0.05, np.uint8(128)), *QUANTISING),
    _wrong("pair inserted: INT8 about 30", pairs.pair_inserted(0.05, np.int8(30))),
    _wrong("pair inserted: a negative scale", pairs.pair_inserted(-0.05, np.int8(0))),
    _wrong("pair inserted: no scale", pairs.pair_inserted(0.0, np.int8(0))),
    _wrong("pair inserted on a weight", pairs.pair_on_weight(0.05)),
    _wrong("weight in levels where the stage has none", pairs.coarse_levels),
    _wrong("weight in the nearest levels where the stage has none", pairs.fine_levels, *QUANTISING),
    _wrong("activation: scale of DQ twice", pairs.activation_scale(lambda s: s * 2, quantise=False, dequantise=True)),
    _wrong("activation: scale of Q twice", pairs.activation_scale(lambda s: s * 2, quantise=True, dequantise=False)),
    _wrong(
        "activation: scale of DQ 1 % more", pairs.activation_scale(lambda s: s * 1.01, quantise=False, dequantise=True)
    ),
    _wrong(
        "activation: scale of Q 1 % more", pairs.activation_scale(lambda s: s * 1.01, quantise=True, dequantise=False)
    ),
    _wrong(
        "activation: both scales twice",
        pairs.activation_scale(lambda s: s * 2, quantise=True, dequantise=True),
        *QUANTISING,
    ),
    _wrong(
        "activation: both scales 1 % more",
        pairs.activation_scale(lambda s: s * 1.01, quantise=True, dequantise=True),
        *QUANTISING,
    ),
    _wrong("activation: both scales 0", pairs.activation_scale(np.zeros_like, quantise=True, dequantise=True)),
    _wrong(
        "activation: both scales infinite", pairs.activation_scale(lambda s: s * np.inf, quantise=True, dequantise=True)
    ),
    _wrong("activation: DQ has another pair's scale", pairs.scale_of_another_pair(both=False)),
    _wrong("activation: both have another pair's scale", pairs.scale_of_another_pair(both=True), *QUANTISING),
    _wrong("activation: zero point of DQ", pairs.activation_zero_point(9, quantise=False, dequantise=True)),
    _wrong("activation: zero point of Q", pairs.activation_zero_point(9, quantise=True, dequantise=False)),
    _wrong("activation: zero point of both", pairs.activation_zero_point(40, quantise=True, dequantise=True)),
    _wrong("activation: UINT8 0 becomes INT8 0", pairs.activation_type(np.int8(0), np.uint8(0))),
    _wrong("activation: UINT8 128 becomes UINT8 0", pairs.activation_type(np.uint8(0), np.uint8(128))),
    _wrong("activation: UINT8 0 becomes UINT8 128", pairs.activation_type(np.uint8(128), np.uint8(0)), *QUANTISING),
    _wrong("activation: INT8 becomes UINT8 0", pairs.cuts_what_is_negative),
    _wrong("activation: zero points omitted", pairs.zero_point_omitted),
    _wrong("activation: E5M2", pairs.small_float(onnx.TensorProto.FLOAT8E5M2)),
    _wrong("activation: E4M3FNUZ", pairs.small_float(onnx.TensorProto.FLOAT8E4M3FNUZ)),
    _wrong("activation: FP8 that does not saturate", pairs.not_saturating),
    _wrong("activation: Q along 1, DQ along 2", pairs.axes_of_pair(1, 2)),
    _wrong("activation: Q along 2, DQ along 1", pairs.axes_of_pair(2, 1)),
    _wrong("activation: Q along 3, DQ along 2", pairs.axes_of_pair(3, 2)),
    _wrong("activation: scale of DQ computed", pairs.scale_computed),
    _wrong("activation: scale of both computed", pairs.scale_of_both_computed, *QUANTISING),
    _wrong("activation: pair removed", pairs.pair_removed, *QUANTISING),
    _wrong("activation: pair passed over", pairs.pair_passed_over, *QUANTISING),
    _wrong("activation: DQ reads another pair's levels", pairs.pair_of_another),
    _wrong("activation: a second, coarser pair", pairs.requantised, *QUANTISING),
    _wrong("weight scale: twice", pairs.weight_scale(lambda s: s * 2)),
    _wrong("weight scale: 1 % more", pairs.weight_scale(lambda s: s * 1.01)),
    _wrong("weight scale: reversed", pairs.weight_scale(lambda s: s[::-1] if s.ndim else s)),
    _wrong("weight scale: rolled", pairs.weight_scale(lambda s: np.roll(s, 1))),
    _wrong("weight scale: the first for all", pairs.weight_scale(lambda s: np.full_like(s, s.ravel()[0]))),
    _wrong("weight scale: one negative", pairs.weight_scale(constants.at_largest(lambda x: -x))),
    _wrong("weight scale: one 0", pairs.weight_scale(constants.at_largest(lambda x: 0 * x))),
    _wrong("weight scale: infinite", pairs.weight_scale(constants.at_largest(lambda x: x * np.inf))),
    _wrong("weight scale: ones", pairs.weight_scale(np.ones_like)),
    _wrong("weight scale: of DQ alone", pairs.weight_scale_of_one_half(lambda s: s * 2)),
    _wrong("weight scale: computed", pairs.weight_scale_computed),
    _wrong("weight pair: axis of Q", pairs.weight_pair_axis(1, quantise=True, dequantise=False)),
    _wrong("weight pair: axis of DQ", pairs.weight_pair_axis(1, quantise=False, dequantise=True)),
    _wrong("weight pair: axis of both", pairs.weight_pair_axis(1, quantise=True, dequantise=True)),
    _wrong("weight pair: UINT8 without negatives", pairs.unsigned_weight_pair),
    _wrong("weight: levels as numbers", pairs.levels_as_numbers),
    _wrong("weight: levels behind a Cast", pairs.levels_behind_cast(1)),
    _wrong("weight: levels behind a Cast under one scale", pairs.levels_behind_cast(0.01)),
    _wrong("weight: whole numbers behind a Cast", pairs.whole_numbers_behind_cast),
    _wrong("weight: a Cast behind larger scales", pairs.cast_behind_dequantise),
    _wrong("weight: a scale for every block", pairs.blocked),
    # What the file says of itself.
    _wrong("metadata: classes reversed", graphs.metadata("classes", graphs.reversed_list)),
    _wrong("metadata: a class renamed", graphs.metadata("classes", lambda text: text.replace("class 3", "class 30"))),
    _wrong("metadata: another mean", graphs.metadata("preprocessing", lambda text: text.replace("0.485", "0.5"))),
    _wrong("metadata: no classes", graphs.metadata("classes", graphs.nothing)),
    _wrong("metadata: no preprocessing", graphs.metadata("preprocessing", graphs.nothing)),
    _wrong("output: another name", graphs.output_renamed),
    _wrong("output: another type", graphs.output_of_another_type),
    _wrong("input: a fixed batch", graphs.fixed_batch),
    # Both files have what the stage did not make, and it differs.
    _wrong_both("function: another body", both.in_both(both.function_call(0.1), both.function_call(0.3))),
    _wrong_both(
        "function: another attribute",
        both.in_both(both.function_call(0.1, told=True), both.function_call(0.3, told=True)),
    ),
    _wrong_both("images with a default: another deviation", both.images_with_a_default),
    _wrong_both("If: branches exchanged", both.in_both(both.an_if(True, "Neg", "Abs"), both.an_if(True, "Abs", "Neg"))),
    _wrong_both("If: another condition", both.in_both(both.an_if(True, "Neg", "Abs"), both.an_if(False, "Neg", "Abs"))),
    _wrong_both("If: another operator", both.in_both(both.an_if(True, "Neg", "Abs"), both.an_if(True, "Sign", "Abs"))),
    _wrong_both(
        "If on the images: branches exchanged",
        both.in_both(both.if_bright("Neg", "Abs"), both.if_bright("Abs", "Neg")),
    ),
    _wrong_both(
        "If on the images: another operator",
        both.in_both(both.if_bright("Abs", "Neg"), both.if_bright("Abs", "Relu")),
    ),
    _wrong_both("Loop: more turns", both.in_both(both.a_loop(1, "Neg"), both.a_loop(2, "Neg"))),
    _wrong_both("Loop: another body", both.in_both(both.a_loop(2, "Neg"), both.a_loop(2, "Abs"))),
    _wrong_both(
        "HardSigmoid: alpha",
        both.in_both(both.chain(("HardSigmoid", {"alpha": 0.2})), both.chain(("HardSigmoid", {"alpha": 0.3}))),
    ),
    _wrong_both(
        "LRN: size",
        both.in_both(both.chain(("LRN", {"size": 3, "alpha": 1.0})), both.chain(("LRN", {"size": 5, "alpha": 1.0}))),
    ),
    _wrong_both(
        "Softmax: another axis",
        both.in_both(both.chain(("Softmax", {"axis": 1})), both.chain(("Softmax", {"axis": 3}))),
    ),
    _wrong_both(
        "Split: outputs exchanged", both.in_both(both.one_output_of_two("low"), both.one_output_of_two("high"))
    ),
    _wrong_both(
        "outputs of the graph exchanged",
        both.in_both(both.two_answers(exchanged=False), both.two_answers(exchanged=True)),
    ),
    _wrong_both("Softmax of another opset", both.in_both(both.softmax_at(12), both.softmax_at(13))),
]


def _harmless(name: str, change: graphs.Change, *not_in: str) -> Kind:
    return Kind(name, change, "harmless", "after", frozenset(not_in))


def _harmless_before(name: str, change: graphs.Change, *not_in: str) -> Kind:
    return Kind(f"{name}, before", change, "harmless", "before", frozenset(not_in))


def _simplified(name: str, change: both.ChangeOfBoth) -> Kind:
    """What a simplifier does: it is no other stage's work."""
    return Kind(name, change, "harmless", "both", STAGES - {"simplify"})


def _unchanged(name: str, change: both.ChangeOfBoth) -> Kind:
    # What is not proportional to its input does not go with channels that are rescaled.
    return Kind(name, change, "harmless", "both", frozenset({"equalise"}))


# What may stand in either file.
_EITHER: list[tuple[str, graphs.Change]] = [
    ("nothing changed", rewriting.nothing),
    ("Constant node", spelling.constant_node("", 0, lambda array: {"value": numpy_helper.from_array(array)})),
    ("Constant node: value_float", spelling.constant_node("f4", 0, lambda array: {"value_float": float(array)})),
    ("Constant node: value_floats", spelling.constant_node("f4", 1, lambda array: {"value_floats": array.tolist()})),
    ("Constant node: value_ints", spelling.constant_node("i8", 1, lambda array: {"value_ints": array.tolist()})),
    ("Constant nodes: all", spelling.all_constant_nodes),
    ("Constant nodes: layers", spelling.constants_of("Conv", "Gemm")),
    ("Constant nodes: normalisations", spelling.constants_of("BatchNormalization")),
    ("Constant nodes: scales and zero points", spelling.constants_of(*PAIR, places=slice(1, 3))),
    ("Constant nodes: levels", spelling.constants_of("DequantizeLinear", places=slice(0, 1))),
    ("Constant nodes: other operands", spelling.constants_of("Sub", "Div", "Mul", "Add", "PRelu", "Slice", "Split")),
    ("through Identity", spelling.spelt(spelling.through_identity)),
    ("through Identity: all", spelling.spelt(spelling.through_identity, everywhere=True)),
    ("through a wider type", spelling.spelt(spelling.through_cast)),
    ("through a wider type: all", spelling.spelt(spelling.through_cast, everywhere=True)),
    ("through two Transposes", spelling.spelt(spelling.through_transposes)),
    ("through two Transposes: all", spelling.spelt(spelling.through_transposes, everywhere=True)),
    ("through two Reshapes", spelling.spelt(spelling.through_reshapes)),
    ("through two Reshapes: all", spelling.spelt(spelling.through_reshapes, everywhere=True)),
    ("through Unsqueeze and Squeeze", spelling.spelt(spelling.through_squeeze)),
    ("through Unsqueeze and Squeeze: all", spelling.spelt(spelling.through_squeeze, everywhere=True)),
    ("through Split and Concat", spelling.spelt(spelling.through_concat)),
    ("through a Mul by 1", spelling.spelt(spelling.through_arithmetic("Mul", 1))),
    ("through a Div by 1", spelling.spelt(spelling.through_arithmetic("Div", 1))),
    ("through an Add of 0", spelling.spelt(spelling.through_arithmetic("Sub", 0))),
    ("through its half, twice", spelling.spelt(spelling.through_doubling)),
    ("through two Negs", spelling.spelt(spelling.through_negations)),
    ("through a Gather of all", spelling.spelt(spelling.through_gather)),
    ("through an If on a constant", spelling.spelt(spelling.through_constant_if)),
    ("by ConstantOfShape", spelling.constant_of_shape),
    ("by Expand", spelling.expanded),
    ("initializers listed as inputs", spelling.listed_as_inputs),
    ("numbers in typed fields", spelling.typed_storage),
    ("a constant for every reader", spelling.a_copy_for_every_reader),
    ("equal constants merged", spelling.equal_constants_merged),
    ("tensors renamed", rewriting.tensors_renamed),
    ("nodes renamed", rewriting.nodes_renamed),
    ("nodes without names", rewriting.nodes_without_names),
    ("another order", rewriting.other_order),
    ("Add: inputs exchanged", rewriting.operands_exchanged("Add")),
    ("Mul: inputs exchanged", rewriting.operands_exchanged("Mul")),
    ("axes from the end", rewriting.axes_from_the_end("Concat", "Softmax", "Flatten", "Split", "Gather")),
    ("axes of pairs from the end", rewriting.axes_from_the_end(*PAIR)),
    ("an axis where one scale has none", rewriting.axis_left_out),
    ("defaults written", rewriting.defaults_written),
    ("defaults left out", rewriting.defaults_left_out),
    ("automatic pads: SAME_UPPER", rewriting.automatic_pads("SAME_UPPER")),
    ("automatic pads: SAME_LOWER", rewriting.automatic_pads("SAME_LOWER")),
    ("automatic pads: VALID", rewriting.automatic_pads("VALID")),
    ("another momentum", rewriting.attribute_without_meaning("BatchNormalization", "momentum", 0.3)),
    ("another order of unread indices", rewriting.attribute_without_meaning("MaxPool", "storage_order", 1)),
    ("Identity inserted", rewriting.inserted("Identity")),
    ("Identity behind the images", rewriting.identity_on_a_graph_input),
    ("Dropout inserted", rewriting.inserted("Dropout")),
    ("Dropout inserted with its ratio", rewriting.inserted("Dropout", np.float32(0.3))),
    ("Dropout inserted, not in training", rewriting.inserted("Dropout", np.float32(0.3), np.bool_(False))),
    ("zero added", rewriting.inserted("Add", np.float32(0))),
    ("zero subtracted", rewriting.inserted("Sub", np.float32([0]))),
    ("one multiplied by", rewriting.inserted("Mul", np.float32(1))),
    ("divided by one", rewriting.inserted("Div", np.float32([[1]]))),
    ("Pad of no width inserted", rewriting.inserted("Pad", np.zeros(8, np.int64))),
    ("Slice of everything inserted", rewriting.inserted("Slice", np.int64([0]), np.int64([2**40]), np.int64([1]))),
    ("an If that never turns", rewriting.an_if_that_never_turns),
    ("a node twice", rewriting.duplicated()),
    ("a pair for every reader", rewriting.pair_for_every_reader),
    ("zero points left out", rewriting.zero_points_left_out),
    ("a missing bias by an empty name", rewriting.empty_operand),
    ("other texts", rewriting.doc_strings),
    ("no shapes of inner tensors", rewriting.no_value_info),
    ("all shapes of inner tensors", rewriting.value_info_inferred),
    ("metadata in another order", rewriting.metadata_in_another_order),
    ("an unused initializer", rewriting.unused_initializer),
    ("an unused node", rewriting.unused_node),
    ("an unused domain", rewriting.unused_domain),
    ("a function around Relu", rewriting.in_a_function("Relu")),
    ("a function around a layer", rewriting.in_a_function("Conv", "Gemm")),
]
HARMLESS = [
    *(_harmless(name, change) for name, change in _EITHER),
    *(_harmless_before(name, change) for name, change in _EITHER[1:]),
    *(_harmless(f"opset {version}", rewriting.later_opset(version)) for version in (18, 19, 20, 21, 22)),
    _simplified("Mul by one number merged", simplifying.merged("Mul", a_channel=False)),
    _simplified("Mul by numbers merged", simplifying.merged("Mul", a_channel=True)),
    _simplified("number times convolution merged", simplifying.merged("Mul", a_channel=True, turned=True)),
    _simplified("Div by one number merged", simplifying.merged("Div", a_channel=False)),
    _simplified("Div by numbers merged", simplifying.merged("Div", a_channel=True)),
    _simplified("Add of numbers merged", simplifying.merged("Add", a_channel=True)),
    _simplified("Add of one number merged", simplifying.merged("Add", a_channel=False)),
    _simplified("Sub of numbers merged", simplifying.merged("Sub", a_channel=True)),
    _simplified("number less convolution merged", simplifying.merged("Sub", a_channel=True, turned=True)),
    _simplified("Pad taken into a convolution", simplifying.pad_taken_in),
    _simplified("Pad taken into a convolution with pads", simplifying.pad_taken_in_partly),
    _simplified("Pad taken into a MaxPool", simplifying.pad_in_front_of_pool("MaxPool", -np.inf)),
    _simplified("Pad taken into an AveragePool", simplifying.pad_in_front_of_pool("AveragePool", 0)),
    _simplified("constants folded: Sub of the maximum", simplifying.constants_folded(simplifying.standardised)),
    _simplified("constants folded: Mul", simplifying.constants_folded(simplifying.doubled)),
    _simplified("constants folded: Max", simplifying.constants_folded(simplifying.clipped)),
    _simplified("If on a constant folded", simplifying.if_folded),
    _simplified("function inlined", simplifying.function_inlined),
    _unchanged("unchanged: an infinite bound", simplifying.same_in_both(simplifying.infinite_bound)),
    _unchanged("unchanged: ConstantOfShape", simplifying.same_in_both(simplifying.zeros_of_a_shape)),
    _unchanged("unchanged: an If on the images", simplifying.same_in_both(both.if_bright("Neg", "Abs"))),
    _unchanged("unchanged: an If on a constant", simplifying.same_in_both(both.an_if(True, "Neg", "Abs"))),
    _unchanged("unchanged: a Loop", simplifying.same_in_both(simplifying.a_loop)),
    _unchanged("unchanged: a function", simplifying.same_in_both(both.function_call(0.1))),
    _unchanged("unchanged: a function's attribute", simplifying.same_in_both(both.function_call(0.1, told=True))),
    _unchanged("unchanged: Softmax", simplifying.same_in_both(both.chain(("Softmax", {"axis": 1})))),
    _unchanged("unchanged: LRN", simplifying.same_in_both(both.chain(("LRN", {"size": 3})))),
    _unchanged("unchanged: Split and Concat", simplifying.same_in_both(both.one_output_of_two("low"))),
    _unchanged("unchanged: two answers", simplifying.same_in_both(both.two_answers(exchanged=False))),
]

KINDS = [*WRONG, *HARMLESS]
