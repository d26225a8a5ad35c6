"""The last recovery of INT8: it puts the fewest layers into float with which the bounds hold.

Whether they do is asked on calibration images that gave no ranges.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from pipeline.building.calibration_job import LEAST_IMAGES
from pipeline.console.progress import bar
from pipeline.data.images import Images
from pipeline.errors import BadRequest
from pipeline.parity import answers
from pipeline.parity.layers_in_float import Trial, in_images
from pipeline.parity.search import smallest

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from pipeline.building.calibration_job import CalibrationJob
    from pipeline.stage import Tolerance


def mixed(job: CalibrationJob, bounds: Tolerance, src: Path, dst: Path) -> tuple[str, dict[str, Any]]:
    """Put layers of ``dst``, the INT8 file of ``src``, into float until it holds ``bounds``; returns what was done.

    That is a sentence for people and figures for machines. The bounds are asked for on the images that ``job`` holds
    out, which have labels unless ``bounds.drop`` is None. ``dst`` stays as it is where it holds them already, and where
    no layer in float would help.
    """
    from calibration import dequantise_layers

    if not job.held:
        few = f"{len(job.images)} calibration images are too few to see which layers need float"
        return f"{few}, {LEAST_IMAGES} would do", {}

    _, held_indices = job.split
    images = Images(job.images.part.take(held_indices), job.images.preprocessing)
    asked_bounds = in_images(bounds, len(images))
    # Without labels no drop is asked for: then everything may be lost.
    trial_bounds = asked_bounds if asked_bounds.drop is not None else replace(asked_bounds, drop=1.0)
    layers = dequantise_layers.layers(dst)
    with bar("layers in float", None) as advance:
        reference = answers.of_file(src).answers(images, f"answers of {src.name}")
        _refuse_one_class(reference)
        trial = Trial(src, dst, images, trial_bounds, {}, advance, reference)
        modules = _fewest_in_float(trial, layers, dequantise_layers.convolutions_feeding_adds(dst))
        account = {
            "held_out": len(images),
            "bounds": {
                "sqnr_db": bounds.sqnr_db,
                "top1_agreement": asked_bounds.agreement,
                "drop": asked_bounds.drop,
            },
            "layers": len(layers),
            "in_float": modules,
            "evaluations": trial.runs,
            "before": _figures(trial, frozenset(), bounds),
            "after": _figures(trial, frozenset(modules or ()), bounds),
        }

    if modules:
        dst.write_bytes(dequantise_layers.with_layers_in_float(src, dst, modules))
    return _note(modules, len(images)), account


def _refuse_one_class(reference: NDArray[np.float32]) -> None:
    """Raise BadRequest where all images get the same class, of more than two: they say nothing about the others."""
    classes = set(reference.argmax(1).tolist())
    if reference.shape[1] > 2 and len(classes) == 1:
        raise BadRequest(
            f"the network answers class {int(reference[0].argmax())} to each of {len(reference)} calibration images: "
            "they show one class, or not what it was trained on (other pixels, other channels); give images of all "
            "classes, or --recover none to take them as they are"
        )


def _fewest_in_float(trial: Trial, layers: list[str], feeding: Mapping[str, set[str]]) -> list[str] | None:
    """The layers, in their order, that have to be in float; None where not even all of them are enough.

    With an Add the convolutions go that ``feeding`` has for it: in float it may read none that runs in INT8.
    """

    def with_feeding(in_float: Collection[str]) -> frozenset[str]:
        together = set(in_float)
        for module in in_float:
            together |= feeding.get(module, set())
        return frozenset(together)

    fewest = smallest(layers, lambda in_float: trial.passes(with_feeding(in_float)), trial.ranked)
    if fewest is None:
        return None
    together = with_feeding(fewest)
    return [layer for layer in layers if layer in together]


def _note(modules: list[str] | None, held: int) -> str:
    """What was done, for the line of the stage."""
    if modules is None:
        return f"{held} others miss the bounds with every layer in float too: the fault is not in a Q/DQ pair"
    if modules:
        return f"in float to keep the accuracy: {', '.join(modules)}"
    return f"{held} others show nothing against it"


def _figures(trial: Trial, in_float: frozenset[str], bounds: Tolerance) -> dict[str, Any]:
    figures = trial.figures(in_float)
    return {
        "sqnr_db": figures["sqnr_db"],
        "top1_agreement": figures["top1_agreement"],
        # Without labels there is no accuracy.
        "top1": None if bounds.drop is None else figures["top1"],
    }
