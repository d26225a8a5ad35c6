"""From the steps along the depth to the first module at fault, and why it is that one."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from exporters.number_formats import INT8
from exporters.onnx_file import module_of
from exporters.portable.sqnr import CAP_DB
from exporters.subgraphs import HANDED_ON

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence
    from pathlib import Path

    import onnx
    from numpy.typing import NDArray

    from calibration.excess_noise import ExcessNoise
    from exporters.certify import Certificate
    from pipeline.data.arrays import Pixels
    from pipeline.parity.depth import Pair

# Of the nodes that stand in one file alone no more are named.
MOST_NODES = 3
# What a stage folds into the layer beside it; to have lost another node is a fault.
FOLDED_AWAY = {"Add", "BatchNormalization", "Div", "Dropout", "Mul", "Pad", "Sub"}


@dataclass(frozen=True)
class Bound:
    """The least SQNR in dB that a piece keeps on half of the images, and on the worst tenth of them."""

    median: float
    worst_tenth: float


# What one piece of a network keeps by itself, by the narrowest numbers in it, and what it keeps once the rounding is
# taken out of both files. Honest pieces of the registered networks keep far more (docs/debug.md has all).
OWN = {
    "int8": Bound(INT8.least_own_db, INT8.least_own_db - 2),
    "float16": Bound(40.0, 35.0),
    "float32": Bound(80.0, 75.0),
}
BEYOND = Bound(80.0, 75.0)
# Noise of a Q/DQ pair over what 8 bits need there, in dB. Rounding to the nearest costs weights 4.8 at most; a scale
# four times too large costs 12.
MOST_EXCESS_DB = 8.0


@dataclass(frozen=True)
class Fault:
    """A ``module`` that leaves its bound, and the ``tensor`` it makes.

    ``found`` is the figure in a sentence, ``kind`` what gave it away: ``own``, ``beyond`` (of the steps in depth.py),
    ``waste`` (a scale that makes more noise than 8 bits need), ``broken`` (no answer that could be compared) or
    ``certificate`` (refuted by certify; ``tensor`` is empty where that is no tensor that both files compute). On the
    worst image the SQNR lies below ``bound_db``; None where no figure was left.
    """

    module: str
    tensor: str
    found: str
    kind: str
    bound_db: float | None = None


def median(ratios_db: Sequence[float]) -> float | None:
    """The median in dB; None where the answers are identical, or nothing was measured."""
    middle = float(np.median(ratios_db)) if ratios_db else CAP_DB
    return None if middle >= CAP_DB else middle


def worst_tenth(ratios_db: Sequence[float]) -> float | None:
    """The median in dB of the tenth of the images that is worst; None where their answers are identical."""
    count = -(-len(ratios_db) // 10)
    return median(sorted(ratios_db)[:count])


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
    bound = OWN[pair.kind]
    if step.broken:
        return Fault(step.module, step.tensor, step.broken, "broken", bound.median)

    left = _left(step.beyond, BEYOND)
    if left is not None:
        found = (
            f"its answers lie {left} from the earlier ones with the rounding taken out of both files{_difference(pair)}"
        )
        return Fault(_at_fault(pair), step.tensor, found, "beyond", BEYOND.median)

    computed = {name for node in pair.bad.nodes for name in node.output}
    own_excess = [noise for noise in excess_noises if noise.tensor in computed]
    worst = max(own_excess, key=lambda noise: noise.excess_db, default=None)
    if worst is not None and worst.excess_db > MOST_EXCESS_DB:
        return Fault(step.module, step.tensor, worst.sentence, "waste")

    left = _left(step.own, bound)
    if left is not None:
        return Fault(
            step.module, step.tensor, f"it alone leaves {left}, in {pair.kind}{_difference(pair)}", "own", bound.median
        )
    return None


def _at_fault(pair: Pair) -> str:
    """The module of what the later piece has lost, which no stage folds away; else the one that both end in."""
    lost = [node for node in _alone(pair.good.nodes, pair.bad.nodes) if node.op_type not in FOLDED_AWAY]
    return next((module_of(node) for node in lost if module_of(node)), pair.step.module)


def _difference(pair: Pair) -> str:
    """The nodes that stand in one piece alone, for a sentence; nothing without one."""
    lost = [node for node in _alone(pair.good.nodes, pair.bad.nodes) if node.op_type not in FOLDED_AWAY]
    more = _alone(pair.bad.nodes, pair.good.nodes)
    said = ""
    for what, nodes in (("lost", lost), ("only there", more)):
        names = [f"{node.op_type} {node.name}".strip() for node in nodes[:MOST_NODES]]
        said += f"; {what}: {', '.join(names)}" if names else ""
    return said


def _alone(nodes: Sequence[onnx.NodeProto], others: Sequence[onnx.NodeProto]) -> list[onnx.NodeProto]:
    """Those of ``nodes`` that compute something by an operator that ``others`` do not have, or not as often."""
    known = Counter(node.op_type for node in others)
    alone = []
    for node in nodes:
        known[node.op_type] -= 1
        if known[node.op_type] < 0 and node.op_type not in HANDED_ON:
            alone.append(node)
    return alone


def _left(ratios_db: Sequence[float], bound: Bound) -> str | None:
    """Which of the two figures lies below its bound, in words; None where both are kept."""
    half = median(ratios_db)
    if half is not None and half < bound.median:
        return f"{half:.1f} dB (at least {bound.median:g})"
    tenth = worst_tenth(ratios_db)
    if tenth is not None and tenth < bound.worst_tenth:
        return f"{tenth:.1f} dB (at least {bound.worst_tenth:g}) on the worst tenth of the images"
    return None


def refuted(certificate: Certificate, pairs: Sequence[Pair]) -> list[Fault]:
    """What certify refutes, once a module, in its own sentences."""
    by_module: dict[str, Fault] = {}
    for refutation in certificate.refuted:
        if refutation.module in by_module:
            continue
        own = [pair.step.tensor for pair in pairs if refutation.module and refutation.module in pair.modules]
        tensor = own[-1] if own else ""
        module = refutation.module or "the graph"
        by_module[refutation.module] = Fault(module, tensor, f"certify refutes it: {refutation.found}", "certificate")
    return list(by_module.values())


def excess_noise_on(
    good: Path, bad: Path, images: Pixels, fixed: int | None = None, only: Collection[str] | None = None
) -> list[ExcessNoise]:
    """The excess noise of the Q/DQ pairs of ``bad`` on ``images``; raises ValueError where a file cannot be read.

    Of activations it is that of the tensors ``only``, where these are given.
    """
    from calibration import excess_noise, observe
    from exporters import reference

    tensors = [name for name in excess_noise.tensors(good, bad) if only is None or name in only]
    histograms = {}
    if tensors:
        # As files are judged: without what ONNX Runtime would fuse by itself.
        histograms = observe.observe(good, tensors, small_batches(images, fixed), reference.LEVEL)
    return excess_noise.excess_noises(good, bad, histograms)


def small_batches(images: Pixels, fixed: int | None = None) -> Iterator[NDArray[np.float32]]:
    """``images`` a few at a time: a dozen activations of each are in memory at once.

    A file that takes a ``fixed`` number gets that; what is left over is left out.
    """
    for batch in images.batches(fixed or max(1, images.batch_size // 4)):
        if fixed is None or len(batch) == fixed:
            yield batch
