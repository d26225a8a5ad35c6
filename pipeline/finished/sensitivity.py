"""What each Q/DQ pair, and each quantised layer by itself, costs a finished build."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from pipeline.console.progress import bar
from pipeline.errors import BadRequest
from pipeline.parity import answers
from pipeline.parity.drift import drift

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

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

    # How every range fits: what the float file has where the other one has pairs.
    observer = observe.Observer(good, excess_noise.tensors(good, bad), Histogram)
    observer.take(images.batches(images.observed_batch_size))

    # What every layer costs by itself.
    reference = answers.of_file(good).answers(images, f"answers of {good.name}")
    alone = []
    with bar("layer by layer", len(layers)) as advance:
        for layer in layers:
            row = _alone(good, bad, layer, layers, images, reference)
            advance()
            if row is not None:
                alone.append(row)
    alone.sort(key=_same_bits_last)
    return {
        "good": good.name,
        "bad": bad.name,
        "images": len(images),
        "tensors": [asdict(item) for item in range_fit.fits(bad, observer.seen)],
        "layers": alone,
    }


def _alone(
    good: Path, bad: Path, layer: str, layers: list[str], images: Images, reference: NDArray[np.float32]
) -> dict[str, Any] | None:
    """The drift of ``bad`` with ``layer`` alone quantised; None where no pair is its own.

    ``reference`` are the logits of ``good``, (N, classes).
    """
    from calibration import dequantise_layers

    others = frozenset(layers) - {layer}
    try:
        model = dequantise_layers.with_layers_in_float(good, bad, others)
    except ValueError as error:
        raise BadRequest(f"{bad.name} cannot be taken apart next to {good.name}: {error}") from error
    if not dequantise_layers.has_pairs(model):  # a pool: its pair goes with those of its readers
        return None
    try:
        moved = drift(reference, answers.of_model(model).answers(images, layer))
    except ValueError as error:
        raise BadRequest(f"{bad.name} with {layer} quantised: {error}; debug names the module") from error
    return {"layer": layer, "sqnr_db": moved.sqnr_db, "top1_agreement": moved.top1_agreement}


def _same_bits_last(row: dict[str, Any]) -> tuple[bool, float | None]:
    """The order of rows: the noisiest first, and behind them those that answer the same bits."""
    return row["sqnr_db"] is None, row["sqnr_db"]
