"""What a quantised file answers with some of its layers in float, and whether its bounds hold then."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.parity import answers
from pipeline.parity.depth import IDENTICAL_DB
from pipeline.parity.drift import drift
from pipeline.parity.paired import paired_drop
from pipeline.stage import Drift

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

    from pipeline.data.images import Images
    from pipeline.stage import Tolerance

# Images on which layers are ranked: one run of each layer, and an order that need only be about right.
RANKED_ON = 16


@dataclass
class Trial:
    """``bad`` with some layers in float, on ``images``, next to ``good``.

    ``blamed`` are layers that have to be in float anyway, each with the reason. ``reference`` are the logits of
    ``good`` on ``images``, (N, classes). ``advance`` is called at each run, and ``runs`` counts them. ``tried``
    remembers the figures of every set of layers.
    """

    good: Path
    bad: Path
    images: Images
    bounds: Tolerance
    blamed: dict[str, str]
    advance: Callable[[], None]
    reference: NDArray[np.float32]
    tried: dict[frozenset[str], dict[str, Any]] = field(default_factory=dict)
    runs: int = 0

    def figures(self, in_float: frozenset[str]) -> dict[str, Any]:
        """Drift, accuracy and drop with the layers ``in_float``."""
        if in_float not in self.tried:
            self.tried[in_float] = self._measured(in_float)
        return self.tried[in_float]

    def _measured(self, in_float: frozenset[str]) -> dict[str, Any]:
        """What :meth:`figures` remembers."""
        logits = self._logits(in_float, self.images)
        labels = self.images.labels
        right_before = self.reference.argmax(1) == labels
        # argmax finds a place among NaN too, and by chance the right one.
        right = (logits.argmax(1) == labels) & np.isfinite(logits).all(1)
        moved = _drift_or_worst(self.reference, logits)
        return {
            "sqnr_db": moved.sqnr_db,
            "top1_agreement": moved.top1_agreement,
            "top1": float(right.mean()),
            "drop": asdict(paired_drop(right_before, right, self.bounds.confidence)),
        }

    def passes(self, in_float: frozenset[str]) -> bool:
        """Whether the file holds its bounds with these layers in float, and no pair is left that makes excess noise."""
        if not self.blamed.keys() <= in_float:
            return False
        figures = self.figures(in_float)
        near = figures["sqnr_db"] is None or figures["sqnr_db"] >= self.bounds.sqnr_db
        alike = figures["top1_agreement"] >= self.bounds.agreement
        accurate = figures["drop"]["value"] <= (self.bounds.drop or 0.0)
        return bool(near and alike and accurate)

    def ranked(self) -> list[str]:
        """All layers, first those that are blamed, then by what each of them in float gives back, the most first."""
        from calibration import dequantise_layers
        from pipeline.data import sampling

        images = sampling.some(self.images, RANKED_ON)
        reference = answers.of_file(self.good).answers(images, "ranking")
        layers = dequantise_layers.layers(self.bad)

        gains_db = dict.fromkeys(self.blamed, math.inf)
        for layer in layers:
            if layer in gains_db:
                continue
            # Next to a layer of NaN no other gives anything back: those blamed are in float already.
            logits = self._logits(frozenset([layer, *self.blamed]), images)
            moved = _drift_or_worst(reference, logits)
            gains_db[layer] = IDENTICAL_DB if moved.sqnr_db is None else moved.sqnr_db
        return sorted(layers, key=lambda layer: -gains_db[layer])

    def _logits(self, in_float: frozenset[str], images: Images) -> NDArray[np.float32]:
        """The logits of ``bad`` on ``images`` with these layers in float, from a model that is in no file."""
        from calibration import dequantise_layers

        model = dequantise_layers.with_layers_in_float(self.good, self.bad, in_float)
        runner = answers.of_model(model)
        self.advance()
        self.runs += 1
        return runner.answers(images, "with some layers in float")


def _drift_or_worst(reference: NDArray[np.float32], logits: NDArray[np.float32]) -> Drift:
    """The drift of ``logits``; for answers that are no numbers, one that is beyond every bound."""
    try:
        return drift(reference, logits)
    except ValueError:
        return Drift(max_abs=0.0, max_rel=0.0, cosine=0.0, sqnr_db=-IDENTICAL_DB, top1_agreement=0.0)


def in_images(bounds: Tolerance, n: int) -> Tolerance:
    """``bounds`` as far as ``n`` images, which may be few, can tell.

    The agreement may fall short by as much as chance would give a network that just holds it (one-sided, with the
    confidence of ``bounds``). A drop is rounded up to whole images.
    """
    from scipy.stats import binom

    agreement = float(binom.ppf(1 - bounds.confidence, n, bounds.agreement)) / n
    drop = bounds.drop
    if drop is not None:
        # A share of n, as this function makes it, is no whole number in floating point.
        drop = math.ceil(drop * n - 1e-9) / n
    return replace(bounds, agreement=agreement, drop=drop)
