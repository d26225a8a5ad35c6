"""The INT8 stage: statistics of the calibration images, a method for the ranges, Q/DQ pairs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pipeline.building.calibration_statistics import batches, keep, seen_over
from pipeline.errors import BadRequest
from pipeline.stage import Made

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from calibration.histogram import Histogram
    from calibration.statistics import Amaxes
    from exporters.number_formats import NumberFormat
    from pipeline.building.calibration_job import CalibrationJob

    Mend = Callable[[Path, Path], tuple[str, dict[str, Any]]]

# Of the histograms that the report shows.
BINS = 32
# A calibration table has a line for the input of the graph too, which no node computes.
GRAPH_INPUT = "images"
LARGEST_PIXEL = 255.0


def quantise(job: CalibrationJob, src: Path, dst: Path, mend: Mend | None = None) -> Made:
    """Write ``src`` with Q/DQ pairs to ``dst``, with ranges from real images or the user's table.

    ``mend(src, dst)`` may then change the pairs. It returns what it did, in a sentence and as figures.
    """
    from calibration import qdq

    details: dict[str, Any] = {}
    if job.is_table and job.cache is not None and job.cache.is_file():
        tensors = list(qdq.tensors(src, job.placement, job.number_format))
        amax = _from_table(job.cache, tensors)
        work = f"scales of {job.cache}"
    else:
        amax, work, details = measured(job, src, dst)
    qdq.quantise(src, dst, amax, job.placement, job.number_format)

    if mend is not None:
        note, details["recovery"] = mend(src, dst)
        work = f"{work}; {note}"
    # Counted last: mending may have put some of them back into float.
    quantised, convolutions = qdq.quantised(dst)
    share = quantised / convolutions if convolutions else None
    return Made(f"{qdq.summary(dst, job.number_format)}, {work}", share, details)


def _from_table(path: Path, tensors: list[str]) -> dict[str, float]:
    from calibration import table

    try:
        return table.read(path, tensors)
    except (ValueError, OSError) as error:
        raise BadRequest(f"--calib-cache: {error}; delete it to calibrate anew") from error


def measured(job: CalibrationJob, src: Path, dst: Path) -> tuple[dict[str, float], str, dict[str, Any]]:
    """The range of each tensor of ``src`` that will carry a pair, a sentence on how it was found, and the figures.

    Files that are tried on the way stand beside ``dst``.
    """
    from calibration import observe, qdq, table
    from calibration.ranges import METHODS
    from pipeline.data.screen import screen

    checks = screen(job.images)
    used_images, held_images = job.split

    formats = qdq.tensors(src, job.placement, job.number_format)
    # TensorRT's implicit INT8 wants a scale for every tensor, Q/DQ pairs for some.
    tensors = observe.activations(src) if job.is_table else list(formats)
    seen = seen_over(job, src, tensors, used_images)
    method = job.method
    # Without a tournament only the method asked for, and minmax, which tells what is 0 on every image.
    methods = list(METHODS) if method == "auto" else ["minmax", method]
    ranges = _ranges(methods, seen.histograms, formats)

    choice = method
    tournament_account: dict[str, Any] = {}
    if method == "auto":
        method, choice, tournament_account = _best_method(job, src, dst, ranges, held_images)

    for name, amax in ranges["minmax"].items():
        if amax == 0:
            checks["notes"].append(f"the activations {name} are 0 on every image")
    if job.is_table and job.cache is not None:
        keep(job.cache, table.to_text({GRAPH_INPUT: LARGEST_PIXEL, **ranges[method]}).encode())

    details = {
        "method": method,
        "images": seen.images,
        "of": len(job.images),
        "stopped": seen.stopped,
        "tournament": tournament_account,
        "checks": checks,
        "tensors": {name: _account(seen.histograms[name], amax) for name, amax in ranges[method].items()},
    }
    work = "; ".join([f"{choice} over {seen.images} images", *checks["notes"]])
    return ranges[method], work, details


def _account(histogram: Histogram, amax: float) -> dict[str, Any]:
    """What the report has of one tensor."""
    return {
        "seen": histogram.amax,
        "amax": amax,
        "values": histogram.total,
        "beyond": histogram.beyond(amax),
        "histogram": histogram.coarse(BINS),
    }


def _ranges(methods: Sequence[str], histograms: Mapping[str, Histogram], formats: Mapping[str, NumberFormat]) -> Amaxes:
    """The range of every tensor by each of ``methods``: method → tensor → amax."""
    from calibration.ranges import METHODS
    from exporters.number_formats import INT8

    ranges: Amaxes = {}
    for method in methods:
        range_of = METHODS[method]
        # A tensor without a pair is there for the table, whose scales are those of INT8.
        ranges[method] = {name: range_of(histogram, formats.get(name, INT8)) for name, histogram in histograms.items()}
    return ranges


def _best_method(
    job: CalibrationJob, src: Path, dst: Path, ranges: Amaxes, held_images: NDArray[np.int64]
) -> tuple[str, str, dict[str, Any]]:
    """The method that wins on the images set aside, a sentence on it, and the figures."""
    from dataclasses import asdict

    from calibration import qdq, tournament

    outcome = tournament.compete(
        src,
        lambda method, path: qdq.quantise(src, path, ranges[method], job.placement, job.number_format),
        ranges,
        dst.with_suffix(".trial"),
        lambda: batches(job.images, held_images),
    )
    account = {**asdict(outcome), "held_out": len(held_images)}
    return outcome.winner, f"{outcome.sentence} on {len(held_images)} others", account
