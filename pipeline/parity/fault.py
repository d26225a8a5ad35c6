"""From the steps along the depth to the first module at fault, and why it is that one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from exporters.number_formats import INT8
from pipeline.parity.depth import IDENTICAL_DB

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from calibration.excess_noise import ExcessNoise
    from pipeline.data.images import Images
    from pipeline.parity.depth import Pair

# The least SQNR in dB that one piece of a network keeps by itself, by the narrowest numbers in it. Honest pieces of the
# registered networks that were measured give 21, 53 and 120 at least (docs/debug.md).
LEAST_OWN_DB = {"int8": INT8.least_own_db, "float16": 40.0, "float32": 80.0}
# What two float32 computations of the same rounded operands agree to at least; honest pieces give 71 and more.
LEAST_BEYOND_DB = 60.0
# Noise of a Q/DQ pair over what 8 bits need there, in dB. Rounding to the nearest costs weights 4.8 at most; a scale
# four times too large costs 12.
MOST_EXCESS_DB = 8.0


@dataclass(frozen=True)
class Fault:
    """A ``module`` that leaves its bound, and the ``tensor`` it makes.

    ``found`` is the figure in a sentence, ``kind`` what gave it away: ``own``, ``beyond`` (of the steps in depth.py) or
    ``waste`` (a scale that makes more noise than 8 bits need).
    """

    module: str
    tensor: str
    found: str
    kind: str


def median(ratios_db: Sequence[float]) -> float | None:
    """The median in dB; None where the answers are identical, or nothing was measured."""
    middle = float(np.median(ratios_db)) if ratios_db else IDENTICAL_DB
    return None if middle >= IDENTICAL_DB else middle


def faults(pairs: Sequence[Pair], excess_noises: Sequence[ExcessNoise]) -> list[Fault]:
    """Every module that leaves a bound by itself, in the order of the network."""
    found = []
    for pair in pairs:
        fault = _fault_of(pair, excess_noises)
        if fault is not None:
            found.append(fault)
    return found


def _fault_of(pair: Pair, excess_noises: Sequence[ExcessNoise]) -> Fault | None:
    """The first bound that ``pair`` leaves by itself; None where it keeps all."""
    step = pair.step
    if step.broken:
        return Fault(step.module, step.tensor, step.broken, "own")

    beyond_db = median(step.beyond)
    if beyond_db is not None and beyond_db < LEAST_BEYOND_DB:
        figure = f"its answers lie {beyond_db:.1f} dB from those of the same rounded operands, not {LEAST_BEYOND_DB:g}"
        return Fault(step.module, step.tensor, f"{figure}: rounding does not explain it", "beyond")

    own_excess = [noise for noise in excess_noises if noise.tensor == step.tensor]
    worst = max(own_excess, key=lambda noise: noise.excess_db, default=None)
    if worst is not None and worst.excess_db > MOST_EXCESS_DB:
        return Fault(step.module, step.tensor, worst.sentence, "waste")

    own_db = median(step.own)
    least_db = LEAST_OWN_DB[pair.kind]
    if own_db is not None and own_db < least_db:
        figure = f"it alone leaves {own_db:.1f} dB, and {pair.kind} keeps {least_db:g}"
        return Fault(step.module, step.tensor, figure, "own")
    return None


def excess_noise_on(good: Path, bad: Path, images: Images) -> list[ExcessNoise]:
    """The excess noise of the Q/DQ pairs of ``bad`` on ``images``; raises ValueError where a file cannot be read."""
    from calibration import excess_noise, observe
    from exporters import reference

    tensors = excess_noise.tensors(good, bad)
    histograms = {}
    if tensors:
        # As files are judged: without what ONNX Runtime would fuse by itself.
        histograms = observe.observe(good, tensors, small_batches(images), reference.LEVEL)
    return excess_noise.excess_noises(good, bad, histograms)


def small_batches(images: Images) -> Iterator[NDArray[np.float32]]:
    """``images`` a few at a time: a dozen activations of each are in memory at once."""
    return images.batches(max(1, images.batch_size // 4))
