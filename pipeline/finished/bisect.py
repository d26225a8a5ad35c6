"""Which quantised layers cost what: it puts layers back into float until the file holds its bounds."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from pipeline.console.progress import bar
from pipeline.errors import BadRequest
from pipeline.parity import answers
from pipeline.parity.fault import MOST_EXCESS_DB, excess_noise_on
from pipeline.parity.layers_in_float import Trial, in_images
from pipeline.parity.search import smallest

if TYPE_CHECKING:
    from pathlib import Path

    from pipeline.data.images import Images
    from pipeline.stage import Tolerance


def bisect(good: Path, bad: Path, images: Images, bounds: Tolerance) -> dict[str, Any]:
    """The smallest set of layers of ``bad`` found that has to be in float for it to hold ``bounds``, and why.

    Raises BadRequest where ``bad`` has no Q/DQ pairs, or not those of ``good``.
    """
    from calibration import dequantise_layers

    layers = dequantise_layers.layers(bad)
    if not layers:
        raise BadRequest(f"{bad.name} has no Q/DQ pairs that could be switched off")
    bounds = in_images(bounds, len(images))
    blamed = _blamed(good, bad, images)

    with bar("bisecting", None) as advance:
        reference = answers.of_file(good).answers(images, f"answers of {good.name}")
        trial = Trial(good, bad, images, bounds, blamed, advance, reference)
        try:
            in_float = smallest(layers, trial.passes, trial.ranked)
            before = trial.figures(frozenset())
            all_in_float = trial.figures(frozenset(layers))
        except ValueError as error:
            raise BadRequest(f"{bad.name} cannot be bisected next to {good.name}: {error}") from error

    return {
        "good": good.name,
        "bad": bad.name,
        "images": len(images),
        "bounds": asdict(bounds),
        "layers": len(layers),
        "evaluations": trial.runs,
        "verdict": "pass" if in_float == [] else "fail",
        "in_float": in_float,
        "because": {layer: blamed[layer] for layer in in_float or [] if layer in blamed},
        "before": before,
        # Where not even all layers in float hold the bounds, the fault is in no pair.
        "after": None if in_float is None else trial.figures(frozenset(in_float)),
        "all_in_float": all_in_float,
    }


def _blamed(good: Path, bad: Path, images: Images) -> dict[str, str]:
    """The modules behind a pair that makes more noise than INT8 can, each with a sentence."""
    blamed = {}
    for noise in excess_noise_on(good, bad, images):
        if noise.excess_db > MOST_EXCESS_DB:
            blamed[noise.module] = noise.sentence
    return blamed
