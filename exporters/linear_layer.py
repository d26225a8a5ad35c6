"""A layer together with what scales and shifts its outputs: one weight and one bias, computed in float64.

Convolutions and matrix products with constant weights are linear, so a BatchNormalization, or a Mul, Div, Add or Sub by
a constant a channel, can be taken into the layer before it; a Mul or Div in front of it too, since zero padding stays
zero. Stages and simplifiers do that; here it is done once more to hold theirs against.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from exporters.constant import evaluate_constant
from exporters.node_attributes import attributes
from exporters.rounding import U32

if TYPE_CHECKING:
    from collections.abc import Callable

    import onnx_ir as ir
    from numpy.typing import NDArray

    from exporters.constant import Memo
    from exporters.known_numbers import Constant

    Array = NDArray[np.float64]
    Behind = Callable[[ir.Value], ir.Value]

# What they read behind their first input: a weight, and a bias.
LAYERS = {"Conv", "ConvTranspose", "Gemm", "MatMul"}
# Operators that give the same product; the one may be written as the other.
PRODUCTS = {"Gemm", "MatMul"}
AFFINE = {"BatchNormalization", "Mul", "Div", "Add", "Sub"}


@dataclass
class LinearLayer:
    """``node`` with everything in ``taken_in``: the nodes behind it and in front of it, as one weight and one bias.

    ``rank`` is that of what it reads and answers, 0 where that is not known. ``weight`` is (outputs, inputs / groups,
    positions), ``bias`` (outputs,), both float64. ``bias_terms`` are the magnitudes that the bias was summed from, and
    the two errors bound what was inherited. ``operations`` counts the float32 operations that a tool takes for it
    beside a BatchNormalization's.
    """

    node: ir.Node
    rank: int
    weight: Array
    bias: Array
    bias_terms: Array
    weight_error: Array | float = 0.0
    bias_error: Array | float = 0.0
    operations: int = 0
    has_bias: bool = False
    taken_in: list[ir.Node] = field(default_factory=list)

    def scale_outputs(self, gain: Array) -> None:
        """Multiply every output by its ``gain``, (outputs,)."""
        self.weight = self.weight * gain[:, None, None]
        if np.any(self.weight_error):
            self.weight_error = self.weight_error * np.abs(gain)[:, None, None]
        self.bias = self.bias * gain
        self.bias_terms = self.bias_terms * np.abs(gain)
        self.bias_error = self.bias_error * np.abs(gain)

    def shift_outputs(self, offset: Array, error: Array | float = 0.0) -> None:
        """Add its ``offset``, (outputs,), to every output."""
        self.bias = self.bias + offset
        self.bias_terms = self.bias_terms + np.abs(offset)
        self.bias_error = self.bias_error + error
        self.has_bias = True

    @property
    def rounding(self) -> float:
        """What float32 arithmetic may add, as a share of the terms."""
        return self.operations * U32


def layer_of(node: ir.Node, memo: Memo) -> LinearLayer | None:
    """``node`` alone, whose weight is constant; None of anything else."""
    if node.op_type not in LAYERS or node.domain != "" or len(node.inputs) < 2:
        return None
    weight = evaluate_constant(node.inputs[1], memo)
    bias_value = node.inputs[2] if len(node.inputs) > 2 else None
    bias = evaluate_constant(bias_value, memo)
    if weight is None or (bias_value is not None and bias is None) or not _is_weight(node, weight):
        return None

    exact = by_output(node, weight.values)
    layer = LinearLayer(node, _rank(node, weight), exact, np.zeros(len(exact)), np.zeros(len(exact)))
    if not weight.exact:
        layer.weight_error = by_output(node, np.broadcast_to(weight.error, weight.shape).astype(np.float64))
    if bias is not None:
        offset = _by_channel(bias, 2, 1, len(exact)) if node.op_type == "Gemm" else bias.values
        if offset is None or offset.shape != (len(exact),):
            return None
        layer.shift_outputs(offset, bias.error if bias.exact else float(np.max(bias.error)))
    if node.op_type == "Gemm":
        _scale_gemm(layer)
    return layer


def _is_weight(node: ir.Node, weight: Constant) -> bool:
    if node.op_type in PRODUCTS:
        return weight.numbers.ndim == 2 and (node.op_type == "MatMul" or attributes(node)["transA"] == 0)
    return weight.numbers.ndim >= 3


def _scale_gemm(layer: LinearLayer) -> None:
    """Alpha and beta of a Gemm; both are 1 but in odd graphs."""
    settings = attributes(layer.node)
    alpha, beta = settings["alpha"], settings["beta"]
    if alpha == 1 and beta == 1:
        return
    layer.weight = layer.weight * alpha
    layer.bias = layer.bias * beta
    layer.bias_terms = layer.bias_terms * abs(beta)
    layer.operations += 1


def linear_layer(node: ir.Node, behind: Behind, memo: Memo) -> LinearLayer | None:
    """``node`` and what is before it, down to a layer; None where no layer stands there, or nothing is taken into it.

    ``behind`` gives the value behind everything that hands a value on.
    """
    chain: list[ir.Node] = []
    while node.op_type in AFFINE and node.domain == "":
        data = computed_operand(node, memo)
        before = None if data is None else behind(data).producer()
        if before is None:
            return None
        chain.append(node)
        node = before
    layer = layer_of(node, memo)
    if layer is None:
        return None
    for affine in reversed(chain):
        if not take_behind(layer, affine, memo):
            return None
        layer.taken_in.append(affine)
    return layer


def layer_before(node: ir.Node, behind: Behind, memo: Memo) -> ir.Node | None:
    """The layer that ``linear_layer`` begins with, whose numbers are not looked at; None where there is none."""
    while node.op_type in AFFINE and node.domain == "":
        data = computed_operand(node, memo)
        before = None if data is None else behind(data).producer()
        if before is None:
            return None
        node = before
    return node if node.op_type in LAYERS else None


def take_in_front(layer: LinearLayer, node: ir.Node, memo: Memo) -> bool:
    """Take ``node``, which scales what ``layer`` reads, into its weight; False where it does something else."""
    constant = _constant_operand(node, memo)
    if node.op_type not in {"Mul", "Div"} or constant is None or not constant.exact:
        return False
    if node.op_type == "Div" and evaluate_constant(node.inputs[0], memo) is not None:
        return False  # a constant over what is computed
    groups = attributes(layer.node)["group"] if layer.node.op_type in {"Conv", "ConvTranspose"} else 1
    inputs = layer.weight.shape[1] * groups
    gain = _by_channel(constant, layer.rank, _channel_axis(layer), inputs)
    if gain is None:
        return False
    if node.op_type == "Div":
        gain = 1 / gain

    of_outputs = np.repeat(gain.reshape(groups, -1), len(layer.weight) // groups, axis=0)[:, :, None]
    layer.weight = layer.weight * of_outputs
    if np.any(layer.weight_error):
        layer.weight_error = layer.weight_error * np.abs(of_outputs)
    layer.operations += 1
    layer.taken_in.append(node)
    return True


def take_behind(layer: LinearLayer, node: ir.Node, memo: Memo) -> bool:
    """Take ``node``, which reads the output of ``layer``, into it; False where it cannot be."""
    if node.op_type == "BatchNormalization":
        return _take_in_normalisation(layer, node, memo)
    constant = _constant_operand(node, memo)
    if constant is None:
        return False
    numbers = _by_channel(constant, layer.rank, _channel_axis(layer), len(layer.weight))
    if numbers is None or not constant.exact:
        return False

    constant_first = evaluate_constant(node.inputs[0], memo) is not None
    if node.op_type == "Div" and constant_first:
        return False
    layer.operations += 1
    if node.op_type == "Mul":
        layer.scale_outputs(numbers)
    elif node.op_type == "Div":
        layer.scale_outputs(1 / numbers)
    elif node.op_type == "Add":
        layer.shift_outputs(numbers)
    elif constant_first:
        layer.scale_outputs(-np.ones_like(numbers))
        layer.shift_outputs(numbers)
    else:
        layer.shift_outputs(-numbers)
    return True


def _take_in_normalisation(layer: LinearLayer, norm: ir.Node, memo: Memo) -> bool:
    """By the formulas of fold_batchnorm; its four operations and the bias's three more are in float64."""
    if attributes(norm)["training_mode"] == 1 or (layer.node.op_type == "MatMul" and layer.rank != 2):
        return False
    constants = [evaluate_constant(value, memo) for value in norm.inputs[1:5]]
    statistics = []
    for constant in constants:
        if constant is None or not constant.exact or constant.shape != (len(layer.weight),):
            return False
        statistics.append(constant.values)
    gamma, beta, mean, var = statistics
    with np.errstate(all="ignore"):  # a variance of 0 without epsilon gives no finite number, which no bound lets pass
        gain = gamma / np.sqrt(var + attributes(norm)["epsilon"])
        layer.shift_outputs(-mean)
        layer.scale_outputs(gain)
        layer.shift_outputs(beta)
    return True


def computed_operand(node: ir.Node, memo: Memo) -> ir.Value | None:
    """What ``node`` scales or shifts; None where not exactly one operand is computed."""
    if node.op_type == "BatchNormalization":
        return node.inputs[0]
    computed = [value for value in node.inputs if value is not None and evaluate_constant(value, memo) is None]
    return computed[0] if len(computed) == 1 else None


def _constant_operand(node: ir.Node, memo: Memo) -> Constant | None:
    """The constant that ``node`` computes with; None where it has none, or two."""
    constants = [evaluate_constant(value, memo) for value in node.inputs]
    known = [constant for constant in constants if constant is not None]
    return known[0] if len(known) == 1 else None


def _rank(node: ir.Node, weight: Constant) -> int:
    if node.op_type != "MatMul":
        return weight.numbers.ndim
    shape = node.outputs[0].shape
    return 0 if shape is None else len(shape)


def _channel_axis(layer: LinearLayer) -> int:
    """The axis of the channels of what ``layer`` reads and answers."""
    return layer.rank - 1 if layer.node.op_type in PRODUCTS else 1


def _by_channel(constant: Constant, rank: int, axis: int, channels: int) -> Array | None:
    """``constant`` as (channels,), where it broadcasts to one number a channel of a tensor of this rank; else None."""
    shape = constant.shape
    if rank == 0 or len(shape) > rank:
        return None
    whole = (1,) * (rank - len(shape)) + shape
    for place, size in enumerate(whole):
        if size != 1 and (place != axis or size != channels):
            return None
    return np.broadcast_to(constant.values.ravel(), (channels,))


# --- how a weight is stored -------------------------------------------------------------------------------------------


def by_output(node: ir.Node, array: Array) -> Array:
    """A weight of ``node`` as (outputs, inputs / groups, positions)."""
    if node.op_type in PRODUCTS:
        turned = array if node.op_type == "Gemm" and attributes(node)["transB"] == 1 else array.T
        return turned[:, :, None]
    if node.op_type == "ConvTranspose":
        groups = attributes(node)["group"]
        inputs, outputs = array.shape[:2]
        grouped = array.reshape(groups, inputs // groups, outputs, -1)
        return grouped.transpose(0, 2, 1, 3).reshape(groups * outputs, inputs // groups, -1)
    return array.reshape(*array.shape[:2], -1)


def as_stored(node: ir.Node, array: Array, shape: tuple[int, ...]) -> Array | None:
    """The way back: ``array`` by output as ``node`` stores a weight of this shape; None where the sizes do not fit."""
    if array.size != int(np.prod(shape)):
        return None
    if node.op_type in PRODUCTS:
        stored = array[:, :, 0] if node.op_type == "Gemm" and attributes(node)["transB"] == 1 else array[:, :, 0].T
        return stored if stored.shape == shape else None
    if node.op_type == "ConvTranspose":
        groups = attributes(node)["group"]
        inputs, outputs = shape[:2]
        grouped = array.reshape(groups, outputs, inputs // groups, -1)
        return grouped.transpose(0, 2, 1, 3).reshape(shape)
    return array.reshape(shape) if array.shape[:2] == shape[:2] else None
