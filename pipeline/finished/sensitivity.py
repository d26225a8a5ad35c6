"""What each Q/DQ pair, and each quantised layer by itself, costs a finished build."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from pipeline.building.calibration_statistics import batch_size
from pipeline.console.progress import bar
from pipeline.errors import BadRequest
from pipeline.parity import answers
from pipeline.parity.drift import drift

if TYPE_CHECKING:
    from pathlib import Path

    from pipeline.data.images import Images


def sensitivity(good: Path, bad: Path, images: Images) -> dict[str, Any]:
    """For every tensor of ``bad`` how its range fits, for every layer the drift when only it is quantised.

    Raises BadRequest where ``bad`` has no Q/DQ pairs, or not those of ``good``.
    """
    from calibration import dequantise_layers, excess_noise, observe, range_fit
    from calibration.histogram import Histogram

    layers = dequantise_layers.layers(bad)
    if not layers:
        raise BadRequest(f"{bad.name} has no Q/DQ pairs; give the directory of an int8 or fp8 build")
    observer = observe.Observer(good, excess_noise.tensors(good, bad), Histogram)
    observer.take(images.batches(batch_size(images)))
    reference = answers.of_file(good).answers(images, f"answers of {good.name}")
    alone = []
    with bar("layer by layer", len(layers)) as advance:
        for layer in layers:
            others = frozenset(layers) - {layer}
            try:
                model = dequantise_layers.with_layers_in_float(good, bad, others)
            except ValueError as error:
                raise BadRequest(f"{bad.name} cannot be taken apart next to {good.name}: {error}") from error
            advance()
            if not dequantise_layers.has_pairs(model):  # a pool: its pair goes with those of its readers
                continue
            try:
                moved = drift(reference, answers.of_model(model).answers(images, layer))
            except ValueError as error:
                raise BadRequest(f"{bad.name} with {layer} quantised: {error}; debug names the module") from error
            alone.append({"layer": layer, "sqnr_db": moved.sqnr_db, "top1_agreement": moved.top1_agreement})
    alone.sort(key=lambda row: (row["sqnr_db"] is None, row["sqnr_db"]))
    return {
        "good": good.name,
        "bad": bad.name,
        "images": len(images),
        "tensors": [asdict(item) for item in range_fit.fits(bad, observer.seen)],
        "layers": alone,
    }
