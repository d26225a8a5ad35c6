"""Rescales channels so that one INT8 scale a tensor fits all of them; the float network answers as before.

This is cross-layer equalisation (Nagel et al. 2019, arXiv 1906.04721, section 4.1) over channel spaces, which include
residual streams and grouped convolutions. The factors are powers of two.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from calibration import observe
from exporters import channel_space, onnx_file, reference

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    import onnx_ir as ir
    from numpy.typing import NDArray

    from exporters.channel_space import Space

    Channels = NDArray[np.float64]

# How much of the difference between channels the activations give up; the weights take over the rest.
SHARES = np.linspace(0, 1, 11)
# A space stays as it is unless its noise falls by a tenth or more: less than that no answer shows.
WORTHWHILE = 0.9
# No channel moves by more than 2 to this power, so that neither activations nor weights come near the ends of float32.
MOST_EXPONENT = 32


@dataclass
class Statistics:
    """Sums over ``images`` of the largest magnitude (``peaks``) and the mean square of each channel of a tensor.

    The figure that is used is the mean of the largest magnitudes, not the largest of all. With one calibration image in
    a hundred ten times too bright, the largest of all costs a ResNet-18 on the digits 51 points; the mean costs it 7,
    which it loses anyway.
    """

    images: int = 0
    peaks: Channels | float = 0.0
    squares: Channels | float = 0.0

    def add(self, values: NDArray[np.float32]) -> None:
        """Count a batch (N, C, …); raises ValueError on NaN or infinity."""
        flat = values.reshape(*values.shape[:2], -1)
        peaks = np.maximum(flat.max(2), -flat.min(2))
        if not np.isfinite(peaks).all():
            raise ValueError("NaN or infinite values")
        # As a product of matrices: no tensor of squares is made.
        squares = (flat[:, :, None] @ flat[..., None]).sum((0, 2, 3), dtype=np.float64)
        self.images += len(flat)
        self.peaks = self.peaks + peaks.sum(0, dtype=np.float64)
        self.squares = self.squares + squares / flat.shape[2]

    @property
    def peak(self) -> Channels:
        """The mean over the images of each channel's largest magnitude, (C,)."""
        return np.asarray(self.peaks / self.images)

    @property
    def power(self) -> Channels:
        """The mean square of each channel, (C,)."""
        return np.asarray(self.squares / self.images)


def equalise(src: Path, dst: Path, batches: Iterable[NDArray[np.float32]]) -> str:
    """Write ``src`` with rescaled channels to ``dst``; the factors fit ``batches`` of images (N, C, H, W) 0..255.

    Each channel of a tensor is a power of two times what it was, and the logits keep their bits. Spaces that would not
    gain stay as they are. Raises ValueError naming the tensor that holds NaN or infinity.
    """
    read_tensors = _read_by(channel_space.spaces(onnx_file.read(src).graph))
    channel_statistics = statistics(src, read_tensors, batches)
    # Read once more only now, so that the model is not in memory beside all activations.
    model = onnx_file.read(src)
    spaces = channel_space.spaces(model.graph)

    moved = {}
    for space in spaces:
        exponents = _exponents(space, channel_statistics)
        if exponents.any():
            moved[space] = exponents
    channel_space.rescale(model.graph, moved)
    onnx_file.write(model, dst)

    work = f"{len(moved)} of {len(spaces)} channel spaces equalised"
    if not moved:
        return work
    all_exponents = np.concatenate(list(moved.values()))
    return f"{work}, factors 2^{all_exponents.min()} … 2^{all_exponents.max()}"


def _read_by(spaces: list[Space]) -> list[str]:
    """The tensors that the readers of ``spaces`` read, each once."""
    return sorted({_input_of(node) for space in spaces for node in space.readers})


def _input_of(node: ir.Node) -> str:
    value = node.inputs[0]
    assert value is not None
    return str(value.name)


def statistics(src: Path, tensors: Sequence[str], batches: Iterable[NDArray[np.float32]]) -> dict[str, Statistics]:
    """What each channel of ``tensors`` of ``src`` holds over ``batches``; memory does not grow with them."""
    if not tensors:
        return {}
    observer = observe.Observer(src, tensors, Statistics)
    observer.take(batches)
    channel_statistics = observer.seen
    # The session goes before its memory is given back.
    del observer
    reference.trim()
    return channel_statistics


class _Reader:
    """A layer that reads a channel space, and the rounding noise at its outputs.

    ``noise`` tells it for input channels that are divided by some factors, and weights multiplied by them. Each output
    counts in shares of its own power, which makes the noise independent of how the outputs are scaled.
    """

    def __init__(self, node: ir.Node, statistics: Statistics) -> None:
        # (outputs, inputs / groups, positions of the kernel)
        weight = np.abs(channel_space.weight_by_output(node))
        energy = np.einsum("oip,oip->oi", weight, weight, dtype=np.float64)
        self.groups = channel_space.groups(node)
        self.positions = weight.shape[2]
        self.peak = statistics.peak
        self.power = statistics.power

        # The power of an output, its inputs taken as independent; an output that is always the same has no noise.
        signal_power = (energy * channel_space.to_outputs(node, self.power)).sum(1, keepdims=True)
        share = np.divide(1, signal_power, out=np.zeros_like(signal_power), where=signal_power > 0)
        self.largest = self._grouped(weight.max(2) * np.sqrt(share))
        self.gain = self._grouped(energy * share).sum(1).ravel()

    def _grouped(self, values: Channels) -> Channels:
        """(outputs, inputs / groups) as (groups, outputs / groups, inputs / groups): axis 1 is what reads a channel."""
        return values.reshape(self.groups, -1, values.shape[1])

    @property
    def weights(self) -> Channels:
        """The largest weight that reads each channel, (C,), in shares of its output."""
        return np.asarray(self.largest.max(1).ravel())

    def noise(self, factors: Channels) -> float:
        """The variance of activation and weight rounding at an output, for input channels divided by ``factors``, (C,).

        Each rounding makes s^2 / 12. The divisor 12 * 127^2 that all of them share is left out.
        """
        grouped_factors = factors.reshape(self.groups, 1, -1)
        # One scale for the activation: that of its tallest channel after the division.
        activation_noise = (self.peak / factors).max() ** 2 * (self.gain * factors**2).sum()
        # One scale for each output of the weight, whose input channels are multiplied.
        squared_steps = (self.largest * grouped_factors).max(2) ** 2
        input_power = self.power.reshape(grouped_factors.shape) / grouped_factors**2
        weight_noise = squared_steps * input_power.sum(2)
        return float((activation_noise + self.positions * weight_noise.sum()) / squared_steps.size)


def _exponents(space: Space, channel_statistics: dict[str, Statistics]) -> NDArray[np.int64]:
    """The exponents of two, (C,), that leave the least noise in all readers of ``space``; zeros where little is gained.

    The candidates are a^alpha / w^(1 - alpha), of activations a and weights w (Xiao et al. 2023, arXiv 2211.10438,
    equation 4, turned to weights that have one scale an output).
    """
    readers = [_Reader(node, channel_statistics[_input_of(node)]) for node in space.readers]
    # Each reader's peaks as shares of its tallest channel: readers of several tensors count alike.
    activations = np.max([reader.peak / (reader.peak.max() or 1) for reader in readers], axis=0)
    weights = np.max([reader.weights for reader in readers], axis=0)

    unchanged = np.zeros(space.channels, np.int64)
    candidates = [unchanged, *(_candidate(activations, weights, share) for share in SHARES)]
    noises = []
    for exponents in candidates:
        factors = np.exp2(exponents, dtype=np.float64)
        noises.append(sum(reader.noise(factors) for reader in readers))
    best = int(np.argmin(noises))
    return candidates[best] if noises[best] < WORTHWHILE * noises[0] else unchanged


def _candidate(activations: Channels, weights: Channels, share: float) -> NDArray[np.int64]:
    """The exponents, (C,), with which the activations give up ``share`` of the difference between channels."""
    exponents = np.zeros(len(activations), np.int64)
    # A channel that is always 0, or that nothing reads, has no size to be brought to.
    live = (activations > 0) & (weights > 0)
    if live.any():
        logarithms = share * np.log2(activations[live]) - (1 - share) * np.log2(weights[live])
        # What all channels have in common changes no rounding.
        relative = np.rint(logarithms - np.median(logarithms))
        exponents[live] = np.clip(relative, -MOST_EXPONENT, MOST_EXPONENT)
    return exponents
