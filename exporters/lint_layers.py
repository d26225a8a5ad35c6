"""What can be wrong between Q/DQ pairs and the layers that read them: one question to one node each."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from exporters import number_formats
from exporters.lint_graph import WEIGHTED, is_a
from exporters.lint_pairs import asymmetric, blocked, quantised_by, scales
from exporters.pairs import MOVING, made_by, makers, operand

if TYPE_CHECKING:
    import onnx_ir as ir

    from exporters.lint_graph import LintedGraph, Operand

# Where a layer reads them; a MatMul may have its weights in either place.
ACTIVATION, WEIGHT, BIAS = 0, 1, 2
# In TensorRT the channels of a group of an INT8 convolution are a multiple of this.
PER_GROUP = 4
POOLS = ("AveragePool", "LpPool", "MaxPool")


class _Weights(NamedTuple):
    """The weights of a layer: their ``dequantise`` node, their ``shape``, and two axes of it.

    ``output_axis``: that of the output channels; ``scaled_axis``: that of the scales, None where it was moved away.
    """

    dequantise: ir.Node
    shape: tuple[int, ...]
    output_axis: int
    scaled_axis: int | None


def _operands(node: ir.Node, graph: LintedGraph) -> list[Operand | None]:
    """The pairs that its first two inputs come from, None for an input without one."""
    found = []
    for index in (ACTIVATION, WEIGHT):
        reached = graph.reaches(operand(node, index))
        found.append(None if reached is None or reached.widened else reached)
    return found


def _is_layer(node: ir.Node | None, graph: LintedGraph) -> bool:
    """Whether ``node`` is a layer with weights; a MatMul of two computed tensors is none."""
    if not is_a(node, *WEIGHTED):
        return False
    assert node is not None
    return not is_a(node, "MatMul") or any(graph.is_constant(value) for value in node.inputs)


def _is_quantised_layer(node: ir.Node | None, graph: LintedGraph) -> bool:
    """Whether ``node`` is a layer whose activation and weights both have a pair."""
    if not _is_layer(node, graph):
        return False
    assert node is not None
    return all(_operands(node, graph))


def _weight_index(node: ir.Node, graph: LintedGraph) -> int:
    """Where a layer reads its weights."""
    if is_a(node, "MatMul") and not graph.is_constant(operand(node, WEIGHT)):
        return ACTIVATION
    return WEIGHT


def _output_axis(node: ir.Node, weight_index: int, rank: int) -> int:
    """The axis of the weights of a layer that runs over its outputs."""
    if is_a(node, "MatMul"):
        return rank - 1 if weight_index == WEIGHT else rank - 2
    if is_a(node, "Gemm"):
        return 0 if node.attributes.get_int("transB", 0) else 1
    # Of a grouped ConvTranspose the axis runs over the outputs of one group.
    return 1 if is_a(node, "ConvTranspose") else 0


def _weights(node: ir.Node, graph: LintedGraph) -> _Weights | None:
    """The quantised weights of a layer; None of anything else, or where they are computed or have no outputs."""
    if not _is_layer(node, graph):
        return None
    index = _weight_index(node, graph)
    reached = graph.along(operand(node, index))
    if reached is None or blocked(reached.dequantise):
        return None
    shape = graph.constant_shape(operand(node, index))
    if shape is None or len(shape) < 2:
        return None
    return _Weights(reached.dequantise, shape, _output_axis(node, index, len(shape)), _scaled_axis(reached, graph))


def _scaled_axis(reached: Operand, graph: LintedGraph) -> int | None:
    """The axis of the scales of weights, behind all that moved them; None where no axis is theirs alone."""
    axis: int | None = reached.dequantise.attributes.get_int("axis", 1)
    for node in (reached.dequantise, *reached.moved_by):
        before = graph.constant_shape(operand(node, 0))
        after = graph.constant_shape(node.outputs[0])
        if axis is None or before is None or after is None or not -len(before) <= axis < len(before):
            return None
        axis %= len(before)  # a negative axis counts from the end
        axis = _moved_axis(node, axis, before, after)
    return axis


def _moved_axis(node: ir.Node, axis: int, before: tuple[int, ...], after: tuple[int, ...]) -> int | None:
    """Where ``node``, which makes the shape ``after`` out of ``before``, puts the elements along ``axis``."""
    if is_a(node, "Transpose"):
        reverse = tuple(reversed(range(len(before))))
        return list(node.attributes.get_ints("perm", reverse)).index(axis)
    # Nothing else changes the order of the elements: it is the axis of that size behind as many elements.
    for place in range(len(after)):
        if after[place] == before[axis] and np.prod(after[:place]) == np.prod(before[:axis]):
            return place
    return None


def weights_under_one_scale(node: ir.Node, graph: LintedGraph) -> bool:
    """Whether all output channels share one scale."""
    weights = _weights(node, graph)
    if weights is None:
        return False
    outputs = weights.shape[weights.output_axis]
    return scales(weights.dequantise, graph) == 1 and outputs > 1


def weights_along_another_axis(node: ir.Node, graph: LintedGraph) -> bool:
    """Whether the scales of the weights belong to other than their output channels."""
    weights = _weights(node, graph)
    if weights is None or scales(weights.dequantise, graph) == 1:
        return False
    return weights.scaled_axis is not None and weights.scaled_axis != weights.output_axis


def weights_asymmetric(node: ir.Node, graph: LintedGraph) -> bool:
    """Whether the zero point of the weights is not one that TensorRT reads."""
    weights = _weights(node, graph)
    return weights is not None and asymmetric(weights.dequantise, graph)


def weights_stored(node: ir.Node, graph: LintedGraph) -> bool:
    """Whether the weights are stored quantised, with no QuantizeLinear in the file."""
    weights = _weights(node, graph)
    return weights is not None and quantised_by(weights.dequantise) is None


def bias_paired(node: ir.Node, graph: LintedGraph) -> bool:
    """Whether the bias is quantised."""
    return is_a(node, *WEIGHTED) and graph.along(operand(node, BIAS)) is not None


def bias_refused(node: ir.Node, graph: LintedGraph) -> bool:
    """Whether TensorRT's parser refuses the quantised bias, as it does in INT32."""
    reached = graph.along(operand(node, BIAS))
    zero_point = None if reached is None else graph.zero_point(reached.dequantise)
    return zero_point is not None and number_formats.symmetric_in(zero_point.dtype) is None


def uneven_groups(node: ir.Node, graph: LintedGraph) -> bool:
    """Whether an INT8 convolution's groups have channels that are no multiple of 4, on either side."""
    if not is_a(node, "Conv") or not _is_quantised_layer(node, graph):
        return False
    weights = _weights(node, graph)
    groups = node.attributes.get_int("group", 1)
    if weights is None or groups < 2:
        return False
    outputs_per_group = weights.shape[0] // groups
    inputs_per_group = weights.shape[1]
    # A depthwise convolution is no grouped one to it, and has kernels of its own.
    if inputs_per_group == 1:
        return False
    return outputs_per_group % PER_GROUP != 0 or inputs_per_group % PER_GROUP != 0


def half_quantised(node: ir.Node, graph: LintedGraph) -> bool:
    """Whether one of activation and weights has a pair; a layer with none is left in float, which is no fault."""
    if not _is_layer(node, graph):
        return False
    operands = _operands(node, graph)
    return any(operands) and not all(operands)


def cast_up(node: ir.Node, graph: LintedGraph) -> bool:
    """Whether an operand is dequantised to a half and cast to a wider type."""
    if not _is_layer(node, graph):
        return False
    found = [graph.reaches(operand(node, index)) for index in (ACTIVATION, WEIGHT)]
    return all(found) and any(reached is not None and reached.widened for reached in found)


def mixed_types(node: ir.Node, graph: LintedGraph) -> bool:
    """Whether activation and weights come in different types from their pairs."""
    if not _is_layer(node, graph):
        return False
    types = {reached.types[-1] for reached in _operands(node, graph) if reached is not None}
    return len(types) > 1


def scaled_in_a_vector(node: ir.Node, graph: LintedGraph) -> bool:
    """Whether the one scale of a convolution's activation is stored in the shape [1], not []."""
    if not is_a(node, "Conv") or not _is_quantised_layer(node, graph):
        return False
    reached = graph.reaches(operand(node, ACTIVATION))
    scale = None if reached is None else graph.scale(reached.dequantise)
    return scale is not None and scale.size == 1 and scale.ndim > 0


def after_pair(node: ir.Node, graph: LintedGraph) -> bool:
    """Whether a ReLU reads its convolution through a pair."""
    return is_a(node, "Relu") and _reads_layer_through_pair(node, graph)


def normalised_after_pair(node: ir.Node, graph: LintedGraph) -> bool:
    """Whether a BatchNormalization reads its convolution through a pair."""
    return is_a(node, "BatchNormalization") and _reads_layer_through_pair(node, graph)


def _reads_layer_through_pair(node: ir.Node, graph: LintedGraph) -> bool:
    reached = graph.along(operand(node, 0))
    quantise = None if reached is None else quantised_by(reached.dequantise)
    return quantise is not None and _is_layer(_past_moves(quantise), graph)


def _past_moves(node: ir.Node) -> ir.Node | None:
    """The node that computes what ``node`` reads first, however it was moved since."""
    for maker in makers(operand(node, 0)):
        if not is_a(maker, *MOVING):
            return maker
    return None


def in_training(node: ir.Node, graph: LintedGraph) -> bool:
    """Whether it is in training mode: normalises by its batch, or drops at random."""
    if is_a(node, "BatchNormalization"):
        named = [value for value in node.outputs if value.name]
        return node.attributes.get_int("training_mode", 0) != 0 or len(named) > 1
    if is_a(node, "Dropout"):
        training = graph.constant(node, 2)
        return training is not None and bool(training.any())
    return False


def pooled_to_float(node: ir.Node, _: LintedGraph) -> bool:
    """Whether a MaxPool reads a pair, and something that computes in float reads the MaxPool."""
    if not is_a(node, "MaxPool") or not is_a(made_by(node, 0), "DequantizeLinear"):
        return False
    readers = _readers_past_moves(node)
    return not readers or not all(is_a(reader, "QuantizeLinear", *WEIGHTED) for reader in readers)


def _readers_past_moves(node: ir.Node) -> list[ir.Node]:
    """The nodes that read ``node``, or what only moves its values."""
    readers = []
    seen = {node}
    nodes = [node]
    for current in nodes:
        for value in current.outputs:
            for use in value.uses():
                if use.node in seen:
                    continue
                seen.add(use.node)
                if is_a(use.node, *MOVING):
                    nodes.append(use.node)
                else:
                    readers.append(use.node)
    return readers


def pooled_from_padding(node: ir.Node, graph: LintedGraph) -> bool:
    """Whether the last window of a pool with ceil_mode starts in the padding behind the image."""
    if not is_a(node, *POOLS) or not node.attributes.get_int("ceil_mode", 0):
        return False
    if node.attributes.get_string("auto_pad", "NOTSET") != "NOTSET":
        return False
    pooled = operand(node, 0)
    shape = graph.shapes.get(str(pooled.name)) if pooled is not None else None
    kernel = node.attributes.get_ints("kernel_shape", ())
    if shape is None or len(shape) != len(kernel) + 2:
        return False
    return any(_starts_in_padding(node, axis, size) for axis, size in enumerate(shape[2:]) if size is not None)


def pool_refused(node: ir.Node, _: LintedGraph) -> bool:
    """Whether TensorRT's parser refuses such a pool: a mean over the pixels that a window really has."""
    return is_a(node, "AveragePool") and not node.attributes.get_int("count_include_pad", 0)


def _starts_in_padding(node: ir.Node, axis: int, size: int) -> bool:
    """Whether the last window along ``axis``, of ``size`` pixels, starts behind them."""
    rank = len(node.attributes.get_ints("kernel_shape", ()))
    kernel = node.attributes.get_ints("kernel_shape", ())[axis]
    stride = node.attributes.get_ints("strides", (1,) * rank)[axis]
    dilation = node.attributes.get_ints("dilations", (1,) * rank)[axis]
    pads = node.attributes.get_ints("pads", (0,) * 2 * rank)
    window = dilation * (kernel - 1) + 1
    steps = -(-(size + pads[axis] + pads[axis + rank] - window) // stride)  # rounded up
    return steps * stride >= size + pads[axis]


def _is_residual_add(node: ir.Node, graph: LintedGraph) -> bool:
    """Whether ``node`` adds two tensors that are both computed."""
    if not is_a(node, "Add") or len(node.inputs) != 2:
        return False
    return not any(graph.is_constant(value) for value in node.inputs)


def _branches(node: ir.Node, graph: LintedGraph) -> list[Operand | None]:
    """The pairs that the inputs of an Add come from."""
    return [graph.along(value) for value in node.inputs]


def both_paired(node: ir.Node, graph: LintedGraph) -> bool:
    """Whether both inputs of a residual Add have a pair."""
    return _is_residual_add(node, graph) and all(_branches(node, graph))


def none_paired(node: ir.Node, graph: LintedGraph) -> bool:
    """Whether a residual Add reads an INT8 convolution, and no pair."""
    if not _is_residual_add(node, graph) or any(_branches(node, graph)):
        return False
    return any(_is_quantised_layer(_layer_behind(value), graph) for value in node.inputs)


def shortcut_unpaired(node: ir.Node, graph: LintedGraph) -> bool:
    """Whether the branch of an INT8 convolution has a pair before a residual Add, and the shortcut has none."""
    if not _is_residual_add(node, graph):
        return False
    branches = _branches(node, graph)
    if all(branches) or not any(branches):
        return False
    paired = 0 if branches[0] else 1
    with_pair = branches[paired]
    quantise = None if with_pair is None else quantised_by(with_pair.dequantise)
    if quantise is None or not _is_quantised_layer(_layer_behind(operand(quantise, 0)), graph):
        return False
    # The shortcut is the branch with less work behind it.
    return _depth(operand(node, 1 - paired), graph) < _depth(operand(quantise, 0), graph)


def _layer_behind(value: ir.Value | None) -> ir.Node | None:
    """The node that computes ``value``, but for a BatchNormalization and what only moves."""
    for maker in makers(value):
        if not is_a(maker, "BatchNormalization", *MOVING):
            return maker
    return None


def _depth(value: ir.Value | None, graph: LintedGraph) -> int:
    return graph.depths.get(value, 0) if value is not None else 0
