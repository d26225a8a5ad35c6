"""The last recovery of INT8: the fewest layers in float with which calibration images held out hold the bounds."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from pipeline.building.calibrate import HELD_LEAST, HELD_SHARE
from pipeline.console.progress import bar
from pipeline.data.images import Images
from pipeline.errors import BadRequest
from pipeline.finished.bisect import Trial, in_images
from pipeline.parity import answers
from pipeline.parity.search import smallest

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

    from pipeline.building.calibrate import Calibration
    from pipeline.stage import Tolerance


def mixed(job: Calibration, bounds: Tolerance, src: Path, dst: Path) -> tuple[str, dict[str, Any]]:
    """What was done, for people and machines, so that ``dst``, the INT8 file of ``src``, holds ``bounds``.

    They are asked for on the images that ``job`` holds out; those have labels unless ``bounds.drop`` is None. ``dst``
    stays as it is where it holds them, and where no layer in float would help.
    """
    from calibration import dequantise_layers

    if not job.held:
        enough = HELD_LEAST * HELD_SHARE
        return f"{len(job.images)} calibration images are too few to see which layers need float, {enough} would do", {}
    images = Images(job.images.part.take(job.split[1]), job.images.preprocessing)
    asked = in_images(bounds, len(images))
    layers = dequantise_layers.layers(dst)
    with bar("layers in float", None) as advance:
        reference = answers.of_file(src).answers(images, f"answers of {src.name}")
        if reference.shape[1] > 2 and len(set(reference.argmax(1).tolist())) == 1:
            raise BadRequest(
                f"the network answers class {int(reference[0].argmax())} to each of {len(images)} calibration images: "
                "they show one class, or not what it was trained on (other pixels, other channels); give images of all "
                "classes, or --recover none to take them as they are"
            )
        trial = Trial(
            src, dst, images, replace(asked, drop=1.0 if asked.drop is None else asked.drop), {}, advance, reference
        )
        fed = dequantise_layers.feeding(dst)

        def whole(off: Collection[str]) -> frozenset[str]:
            return frozenset(off).union(*(fed.get(module, ()) for module in off))

        found = smallest(layers, lambda off: trial.passes(whole(off)), trial.ranked)
        modules = found and [layer for layer in layers if layer in whole(found)]
        account = {
            "held_out": len(images),
            "bounds": {"sqnr_db": bounds.sqnr_db, "top1_agreement": asked.agreement, "drop": asked.drop},
            "layers": len(layers),
            "in_float": modules,
            "evaluations": trial.runs,
            "before": _figures(trial, frozenset(), bounds),
            "after": _figures(trial, frozenset(modules or ()), bounds),
        }
    if modules:
        dst.write_bytes(dequantise_layers.switched_off(src, dst, modules))
    return _note(modules, len(images)), account


def _note(modules: list[str] | None, held: int) -> str:
    if modules is None:
        return f"{held} others miss the bounds with every layer in float too: the fault is not in a Q/DQ pair"
    if modules:
        return f"in float to keep the accuracy: {', '.join(modules)}"
    return f"{held} others show nothing against it"


def _figures(trial: Trial, off: frozenset[str], bounds: Tolerance) -> dict[str, Any]:
    found = trial.figures(off)
    top1 = None if bounds.drop is None else found["top1"]
    return {"sqnr_db": found["sqnr_db"], "top1_agreement": found["top1_agreement"], "top1": top1}
