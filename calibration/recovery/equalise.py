"""Channels rescaled so that one INT8 scale a tensor fits all of them, and the float network stays as it was.

Cross-layer equalisation (Nagel et al. 2019, arXiv 1906.04721, section 4.1) over channel spaces: residual streams and
grouped convolutions included, by powers of two.
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
WORTH = 0.9
# No channel moves further than this, so that neither activations nor weights come near the ends of float32.
LIMIT = 32


@dataclass
class Statistics:
    """Of each channel of a tensor, over ``images``: the sums of its largest magnitude and of its mean square.

    The mean of the largest magnitudes, not the largest of all: with one calibration image in a hundred ten times too
    bright, that one loses a ResNet-18 on the digits 51 points, where the mean loses it the 7 that it loses anyway.
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
        self.images += len(flat)
        self.peaks = self.peaks + peaks.sum(0, dtype=np.float64)
        self.squares = (
            self.squares + (flat[:, :, None] @ flat[..., None]).sum((0, 2, 3), dtype=np.float64) / flat.shape[2]
        )

    @property
    def peak(self) -> Channels:
        """The mean over the images of each channel's largest magnitude, (C,)."""
        return np.asarray(self.peaks / self.images)

    @property
    def power(self) -> Channels:
        """The mean square of each channel, (C,)."""
        return np.asarray(self.squares / self.images)


def equalise(src: Path, dst: Path, batches: Iterable[NDArray[np.float32]]) -> str:
    """Write ``src`` with rescaled channels to ``dst``, chosen on ``batches`` of images (N, C, H, W) 0..255.

    Every tensor is a power of two times what it was, channel by channel, and the logits keep their bits. Spaces that
    would not gain stay as they are. Raises ValueError naming the tensor that holds NaN or infinity.
    """
    seen = statistics(src, _read_by(channel_space.spaces(onnx_file.read(src).graph)), batches)
    model = onnx_file.read(src)  # once more, so that it is not in memory beside all activations
    spaces = channel_space.spaces(model.graph)
    chosen = {space: _exponents(space, seen) for space in spaces}
    moved = {space: exponents for space, exponents in chosen.items() if exponents.any()}
    channel_space.rescale(model.graph, moved)
    onnx_file.write(model, dst)
    work = f"{len(moved)} of {len(spaces)} channel spaces equalised"
    if not moved:
        return work
    every = np.concatenate(list(moved.values()))
    return f"{work}, factors 2^{every.min()} … 2^{every.max()}"


def _read_by(spaces: list[Space]) -> list[str]:
    return sorted({_input(node) for space in spaces for node in space.readers})


def _input(node: ir.Node) -> str:
    value = node.inputs[0]
    assert value is not None
    return str(value.name)


def statistics(src: Path, tensors: Sequence[str], batches: Iterable[NDArray[np.float32]]) -> dict[str, Statistics]:
    """What each channel of ``tensors`` of ``src`` holds over ``batches``; memory does not grow with them."""
    if not tensors:
        return {}
    observer = observe.Observer(src, tensors, Statistics)
    observer.take(batches)
    seen = observer.seen
    del observer
    reference.trim()
    return seen


class _Reader:
    """A layer, and the rounding noise at its outputs once its input channels are divided by ``factors``.

    Each output counts in shares of its own power, which makes the noise independent of how the outputs are scaled.
    """

    def __init__(self, node: ir.Node, seen: Statistics) -> None:
        weight = np.abs(channel_space.weight_by_output(node))
        energy = np.einsum("oip,oip->oi", weight, weight, dtype=np.float64)
        self.groups, self.positions = channel_space.groups(node), weight.shape[2]
        self.peak, self.power = seen.peak, seen.power
        # The power of an output, its inputs taken as independent; an output that is always the same has no noise.
        signal = (energy * channel_space.to_outputs(node, self.power)).sum(1, keepdims=True)
        share = np.divide(1, signal, out=np.zeros_like(signal), where=signal > 0)
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
        """Variance of activation and weight rounding, s^2 / 12 each, up to the factor 12 * 127^2 that all share."""
        grouped = factors.reshape(self.groups, 1, -1)
        activation = (self.peak / factors).max() ** 2 * (self.gain * factors**2).sum()
        steps = (self.largest * grouped).max(2) ** 2
        weights = steps * (self.power.reshape(grouped.shape) / grouped**2).sum(2)
        return float((activation + self.positions * weights.sum()) / steps.size)


def _exponents(space: Space, seen: dict[str, Statistics]) -> NDArray[np.int64]:
    """The powers of two, (C,), that leave the least noise in all that read ``space``; zeros where none is worth it.

    The candidates are a^alpha / w^(1 - alpha), of activations a and weights w (Xiao et al. 2023, arXiv 2211.10438,
    equation 4, turned to weights that have one scale an output).
    """
    readers = [_Reader(node, seen[_input(node)]) for node in space.readers]
    tallest = np.max([reader.peak / (reader.peak.max() or 1) for reader in readers], axis=0)
    weights = np.max([reader.weights for reader in readers], axis=0)
    live = (tallest > 0) & (weights > 0)
    candidates = [np.zeros(space.channels, np.int64)]
    for share in SHARES:
        logarithms = share * np.log2(tallest[live]) - (1 - share) * np.log2(weights[live])
        exponents = np.zeros(space.channels, np.int64)
        # What all channels have in common changes no rounding.
        exponents[live] = np.clip(np.rint(logarithms - np.median(logarithms)), -LIMIT, LIMIT) if live.any() else 0
        candidates.append(exponents)
    noises = [sum(reader.noise(np.exp2(exponents, dtype=np.float64)) for reader in readers) for exponents in candidates]
    best = int(np.argmin(noises))
    return candidates[best if noises[best] < WORTH * noises[0] else 0]
