"""Which quantised layers cost what: pairs are switched off in the file until it holds its bounds."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.console.progress import bar
from pipeline.errors import BadRequest
from pipeline.parity import answers
from pipeline.parity.depth import SAME
from pipeline.parity.drift import drift
from pipeline.parity.fault import WASTE, wasted
from pipeline.parity.paired import paired_drop
from pipeline.parity.search import smallest
from pipeline.stage import Drift

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

    from pipeline.data.images import Images
    from pipeline.stage import Tolerance

RANKED_ON = 16


@dataclass
class Trial:
    """``bad`` with some layers in float, on ``images``, next to ``good``; ``tried`` remembers every answer."""

    good: Path
    bad: Path
    images: Images
    bounds: Tolerance
    blamed: dict[str, str]
    advance: Callable[[], None]
    reference: NDArray[np.float32]
    tried: dict[frozenset[str], dict[str, Any]] = field(default_factory=dict)
    runs: int = 0

    def figures(self, off: frozenset[str]) -> dict[str, Any]:
        """Drift, accuracy and drop with the layers ``off`` in float."""
        if off not in self.tried:
            logits = self._logits(off, self.images)
            labels, confidence = self.images.labels, self.bounds.confidence
            right, was = logits.argmax(1) == labels, self.reference.argmax(1) == labels
            right &= np.isfinite(logits).all(1)
            moved = _moved(self.reference, logits)
            self.tried[off] = {
                "sqnr_db": moved.sqnr_db,
                "top1_agreement": moved.top1_agreement,
                "top1": float(right.mean()),
                "drop": asdict(paired_drop(was, right, confidence)),
            }
        return self.tried[off]

    def passes(self, off: frozenset[str]) -> bool:
        """Whether the file holds its bounds with ``off`` in float, and every pair left is as fine as INT8 allows."""
        if not self.blamed.keys() <= off:
            return False
        found, bounds = self.figures(off), self.bounds
        clean = found["sqnr_db"] is None or found["sqnr_db"] >= bounds.sqnr_db
        alike = found["top1_agreement"] >= bounds.agreement
        return bool(clean and alike and found["drop"]["value"] <= (bounds.drop or 0.0))

    def ranked(self) -> list[str]:
        """The layers by what switching each of them off gives back, the most costly first; those blamed anyway lead."""
        from calibration import dequantise_layers
        from pipeline.data import sampling

        few = sampling.some(self.images, RANKED_ON)
        reference = answers.of_file(self.good).answers(few, "ranking")
        layers, gains = dequantise_layers.layers(self.bad), dict.fromkeys(self.blamed, math.inf)
        for layer in [each for each in layers if each not in gains]:
            # Next to a layer of NaN none gives anything back: those that have to go are off already.
            moved = _moved(reference, self._logits(frozenset([layer, *self.blamed]), few))
            gains[layer] = SAME if moved.sqnr_db is None else moved.sqnr_db
        return sorted(layers, key=lambda layer: -gains[layer])

    def _logits(self, off: frozenset[str], images: Images) -> NDArray[np.float32]:
        from calibration import dequantise_layers

        runner = answers.of_model(dequantise_layers.switched_off(self.good, self.bad, off))
        self.advance()
        self.runs += 1
        return runner.answers(images, "with some layers in float")


def _moved(reference: NDArray[np.float32], logits: NDArray[np.float32]) -> Drift:
    """The drift of ``logits``; answers that are no numbers hold no bound."""
    try:
        return drift(reference, logits)
    except ValueError:
        return Drift(0.0, 0.0, 0.0, -SAME, 0.0)


def in_images(bounds: Tolerance, n: int) -> Tolerance:
    """``bounds`` as ``n`` images, which may be few, can tell.

    Of the same answers as many may be missing as a network that has just enough would miss by chance (one-sided, with
    the confidence of ``bounds``); a drop is rounded up to whole images.
    """
    from scipy.stats import binom

    alike = float(binom.ppf(1 - bounds.confidence, n, bounds.agreement)) / n
    # A share of n, as this function makes it, is no whole number in floating point.
    lost = bounds.drop if bounds.drop is None else math.ceil(bounds.drop * n - 1e-9) / n
    return replace(bounds, agreement=alike, drop=lost)


def bisect(good: Path, bad: Path, images: Images, bounds: Tolerance) -> dict[str, Any]:
    """The smallest set of layers of ``bad`` found that has to be in float for it to hold ``bounds``, and why.

    Raises BadRequest where ``bad`` has no Q/DQ pairs, or not those of ``good``.
    """
    from calibration import dequantise_layers

    names = dequantise_layers.layers(bad)
    if not names:
        raise BadRequest(f"{bad.name} has no Q/DQ pairs that could be switched off")
    bounds = in_images(bounds, len(images))
    blamed = {item.module: item.sentence for item in wasted(good, bad, images) if item.decibels > WASTE}
    with bar("bisecting", None) as advance:
        reference = answers.of_file(good).answers(images, f"answers of {good.name}")
        trial = Trial(good, bad, images, bounds, blamed, advance, reference)
        try:
            found = smallest(names, trial.passes, trial.ranked)
            before, every = trial.figures(frozenset()), trial.figures(frozenset(names))
        except ValueError as error:
            raise BadRequest(f"{bad.name} cannot be bisected next to {good.name}: {error}") from error
    return {
        "good": good.name,
        "bad": bad.name,
        "images": len(images),
        "bounds": asdict(bounds),
        "layers": len(names),
        "evaluations": trial.runs,
        "verdict": "pass" if found == [] else "fail",
        "in_float": found,
        "because": {layer: blamed[layer] for layer in found or [] if layer in blamed},
        "before": before,
        "after": None if found is None else trial.figures(frozenset(found)),
        "all_in_float": every,
    }
