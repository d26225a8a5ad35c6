"""From the steps along the depth to the first module at fault, and why it is that one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pipeline.parity.depth import SAME

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from calibration.excess_noise import Waste
    from pipeline.data.images import Images
    from pipeline.parity.depth import Pair

# The least SQNR in dB that one piece of a network keeps by itself, by the narrowest numbers in it. Honest pieces of the
# registered networks that were measured give 21, 53 and 120 at least (docs/debug.md).
OWN = {"int8": 10.0, "float16": 40.0, "float32": 80.0}
# What two float32 computations of the same rounded operands agree to at least; honest pieces give 71 and more.
BEYOND = 60.0
# Noise of a Q/DQ pair over what 8 bits need there, in dB. Rounding to the nearest costs weights 4.8 at most; a scale
# four times too large costs 12.
WASTE = 8.0


@dataclass(frozen=True)
class Fault:
    """A ``module`` that leaves its bound, the tensor it makes, and in a sentence by what figure."""

    module: str
    tensor: str
    found: str
    kind: str


def median(ratios: Sequence[float]) -> float | None:
    """The median in dB; None where the answers are identical, or nothing was measured."""
    middle = float(np.median(ratios)) if ratios else SAME
    return None if middle >= SAME else middle


def faults(pairs: Sequence[Pair], wasted: Sequence[Waste]) -> list[Fault]:
    """Every module that leaves a bound by itself, in the order of the network."""
    found = []
    for pair in pairs:
        step, kind = pair.step, pair.kind
        own, beyond = median(step.own), median(step.beyond)
        if step.broken:
            found.append(Fault(step.module, step.tensor, step.broken, "own"))
            continue
        if beyond is not None and beyond < BEYOND:
            said = f"its answers lie {beyond:.1f} dB from those of the same rounded operands, not {BEYOND:g}"
            found.append(Fault(step.module, step.tensor, f"{said}: rounding does not explain it", "beyond"))
            continue
        worst = max(
            (item for item in wasted if item.tensor == step.tensor), key=lambda item: item.decibels, default=None
        )
        if worst is not None and worst.decibels > WASTE:
            found.append(Fault(step.module, step.tensor, worst.sentence, "waste"))
        elif own is not None and own < OWN[kind]:
            said = f"it alone leaves {own:.1f} dB, and {kind} keeps {OWN[kind]:g}"
            found.append(Fault(step.module, step.tensor, said, "own"))
    return found


def wasted(good: Path, bad: Path, images: Images) -> list[Waste]:
    """What the Q/DQ pairs of ``bad`` waste on ``images``; raises ValueError where a file cannot be read."""
    from calibration import excess_noise, observe
    from exporters import reference

    tensors = excess_noise.tensors(good, bad)
    seen = observe.observe(good, tensors, few(images), reference.LEVEL) if tensors else {}
    return excess_noise.waste(good, bad, seen)


def few(images: Images) -> Iterator[NDArray[np.float32]]:
    """``images`` a few at a time: a dozen activations of each are in memory at once."""
    return images.batches(max(1, images.batch_size // 4))
