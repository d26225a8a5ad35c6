"""How much more noise each Q/DQ pair makes than 8 bits need there.

This shows a wrong scale, whatever the logits say.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from calibration.qdq import WEIGHTED, channel_axis, channel_scales
from calibration.ranges import even_error, mse, squared_error
from exporters import number_formats, onnx_file, pairs
from exporters.constant import evaluate_constant

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    import onnx_ir as ir
    from numpy.typing import NDArray

    from calibration.histogram import Histogram
    from exporters.number_formats import NumberFormat

# Where a weighted node reads its weight.
WEIGHT_INPUT = 1
# A scale that is good for so many images is good: it is on the median image that the logits are judged.
HALF = 0.5
# A few bright images excuse a wide range as far as they reach, and half as far again: those that calibrated may have
# been a little brighter.
BEYOND_SEEN = 1.5


@dataclass(frozen=True)
class ExcessNoise:
    """By how many dB the noise of one pair exceeds what 8 bits need (``excess_db``).

    ``operand`` is what passes the pair, ``module`` reads it, and ``tensor`` is what the module computes from it.
    ``activation`` is the tensor that passes the pair, None of weights. By ``suspect_db`` the noise exceeds it if every
    way to weigh rare values is taken at its worst: on few images that is what more of them should look into.
    """

    module: str
    tensor: str
    operand: str
    excess_db: float
    activation: str | None
    suspect_db: float

    @property
    def sentence(self) -> str:
        """What is wrong, for a person."""
        return f"the scale of {self.operand} makes {self.excess_db:.1f} dB more noise than 8 bits need"


def tensors(good: Path, bad: Path) -> list[str]:
    """The activations that pass a Q/DQ pair in ``bad`` and that ``good`` computes as well."""
    computed = {str(value.name) for node in onnx_file.read(good).graph for value in node.outputs}
    quantised: dict[str, None] = {}
    for node in onnx_file.read(bad).graph:
        value = node.inputs[0] if node.op_type == "QuantizeLinear" else None
        if value is not None and value.name in computed:
            quantised[str(value.name)] = None
    return list(quantised)


def excess_noises(good: Path, bad: Path, histograms: Mapping[str, Histogram]) -> list[ExcessNoise]:
    """The excess noise of every pair of ``bad``, in its order; ``histograms`` are those of :func:`tensors` in ``good``.

    INT8 weights need a noise of s^2 / 12 a value, with s = amax / 127 of the channel. Rounding to the nearest can make
    three times as much at most (4.8 dB). Activations need the noise of the best range, for what half of the images have
    or for all that was seen: methods differ in how much of a rare tail they cover, and a scale may be good for either.
    """
    trusted_nodes = {str(node.outputs[0].name): node for node in onnx_file.read(good).graph}
    excess = []
    for node in onnx_file.read(bad).graph:
        tensor = str(node.outputs[0].name)
        module = onnx_file.module_of(node) or tensor
        noises = _noises(node, trusted_nodes.get(tensor), histograms)
        excess += [noise.told(module, tensor) for noise in noises]
    return excess


@dataclass(frozen=True)
class _Noise:
    """The noise of one operand over what it needs: ``ratio``, and the largest of all ways to weigh it."""

    operand: str
    ratio: float
    largest_ratio: float
    activation: str | None = None

    def told(self, module: str, tensor: str) -> ExcessNoise:
        """The same in dB, of what ``module`` computes as ``tensor``."""
        return ExcessNoise(
            module=module,
            tensor=tensor,
            operand=self.operand,
            excess_db=_in_decibels(self.ratio),
            activation=self.activation,
            suspect_db=_in_decibels(self.largest_ratio),
        )


def _in_decibels(ratio: float) -> float:
    if ratio > 0:
        return float(10 * np.log10(ratio))
    if ratio == 0:
        return -np.inf
    # NaN is no ratio: with such a scale all is noise.
    return np.inf


def _noises(node: ir.Node, trusted_node: ir.Node | None, histograms: Mapping[str, Histogram]) -> Iterator[_Noise]:
    """The noise of each input of ``node`` behind a pair over the noise that 8 bits need there.

    Inputs where that ratio is not known are left out.
    """
    for index, value in enumerate(node.inputs):
        dequantise = value.producer() if value is not None else None
        if dequantise is None or dequantise.op_type != "DequantizeLinear":
            continue
        stored = evaluate_constant(value)
        if stored is None:
            noise = _activation_noise(dequantise, histograms)
            if noise is not None:
                yield noise
            continue

        # The weight alone: a bias in INT32, as onnxruntime's quantiser writes it, is as near as float32.
        if index != WEIGHT_INPUT or node.op_type not in WEIGHTED:
            continue
        if trusted_node is None or trusted_node.op_type != node.op_type:
            continue
        weight = onnx_file.initializer_array(trusted_node.inputs[WEIGHT_INPUT])
        levels_type = stored.dtype if stored.quantised is None else stored.quantised[0].dtype
        number_format = number_formats.symmetric_in(levels_type)
        # FP8 has no one step: of it the certificate compares every weight with its nearest.
        if number_format is None or not number_format.uniform:
            continue
        if weight is not None and weight.shape == stored.values.shape:
            ratio = _weight_ratio(weight, stored.values, channel_axis(node), number_format)
            yield _Noise("the weights", ratio, ratio)


def _activation_noise(dequantise: ir.Node, histograms: Mapping[str, Histogram]) -> _Noise | None:
    """The noise of an activation's pair over that of the best range; None where that is not known."""
    stored_levels = dequantise.inputs[0]
    quantise = stored_levels.producer() if stored_levels is not None else None
    activation = quantise.inputs[0] if quantise is not None else None
    if quantise is None or activation is None or activation.name not in histograms:
        return None
    number_format = pairs.number_format_of(quantise)
    scales = onnx_file.initializer_array(dequantise.inputs[1])
    if number_format is None or scales is None or scales.size != 1:
        return None

    name = str(activation.name)
    operand = f"its input from {_producer_name(activation)}"
    activation_scale = float(scales.item())
    if not activation_scale > 0:  # NaN as well
        return _Noise(operand, np.inf, np.inf, name)

    histogram = histograms[name]
    of_half = _ratio(histogram.without_rare(HALF), activation_scale, number_format)
    of_all = _ratio(histogram, activation_scale, number_format)
    largest = max(of_half, of_all)
    # Beyond all that was seen no value is left that so wide a range could be for.
    if activation_scale * number_format.largest_level > BEYOND_SEEN * histogram.amax:
        return _Noise(operand, of_half, largest, name)
    return _Noise(operand, min(of_half, of_all), largest, name)


def _ratio(histogram: Histogram, scale: float, number_format: NumberFormat) -> float:
    """The noise of the values in ``histogram`` under ``scale`` over that under the best scale for all of them."""
    # Without how far each image reaches there is no usual part, and none is left out.
    whole = replace(histogram, reach=Counter())
    best_scale = mse(whole, number_format) / number_format.largest_level
    noise = squared_error(whole, scale, number_format)
    needed_noise = squared_error(whole, best_scale, number_format)
    if number_format.uniform:
        # What was rounded once already may fit its own grid without any noise, and no other scale does.
        needed_noise = max(needed_noise, even_error(whole, best_scale))
    # Where nothing but 0 was seen, no noise is needed.
    return noise / needed_noise if needed_noise > 0 else 1.0


def _weight_ratio(
    weight: NDArray[np.float32], stored: NDArray[np.float64], axis: int, number_format: NumberFormat
) -> float:
    """The largest ratio of any channel: its noise over the noise that it needs."""
    other_axes = tuple(dim for dim in range(weight.ndim) if dim != axis)
    noise = ((stored - weight) ** 2).mean(axis=other_axes)
    # The variance of an error that is spread evenly over one step.
    needed_noise = channel_scales(weight, axis, number_format).astype(np.float64) ** 2 / 12
    return float((noise / needed_noise).max())


def _producer_name(value: ir.Value) -> str:
    """The module that computes ``value``, or the name of the tensor."""
    producer = value.producer()
    module = onnx_file.module_of(producer) if producer is not None else ""
    return module or str(value.name)
