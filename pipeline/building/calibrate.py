"""The INT8 stage: statistics of the calibration images, a method for the ranges, Q/DQ pairs."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from exporters.number_formats import INT8
from pipeline import workspace
from pipeline.building.calibration_statistics import batches, keep, seen_over
from pipeline.errors import BadRequest
from pipeline.stage import Made

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from calibration.histogram import Histogram
    from calibration.statistics import Amaxes
    from exporters.number_formats import NumberFormat
    from pipeline.data.images import Images

    Mend = Callable[[Path, Path], tuple[str, dict[str, Any]]]

# Images that only compare methods and judge the file: a fifth, at most 64, and no fewer than make an interval.
HELD_SHARE, HELD_MOST, HELD_LEAST = 5, 64, 8
# Of the histograms that the report shows.
BINS = 32


@dataclass(frozen=True)
class Calibration:
    """What calibrates, and how.

    ``placement`` is a row of qdq.PLACEMENTS. ``cache`` is the user's own file, ``settle``: fewer images may do,
    ``hold``: some are set aside where there are enough, whatever the method.
    """

    images: Images
    method: str
    seed: int = 0
    cache: Path | None = None
    settle: bool = False
    hold: bool = False
    placement: str = "tensorrt"
    number_format: NumberFormat = INT8

    def parameters(self) -> dict[str, Any]:
        """What the ranges depend on, for the note of the stage."""
        said = {
            "images": self.images.digest,
            "method": self.method,
            "held": self.held,
            "seed": self.seed,
            "settle": self.settle,
            "placement": self.placement,
            "number_format": self.number_format.name,
        }
        if self.cache is None:
            return said
        # A file that is not there yet is to be written: no earlier stage may stand in for that.
        return {**said, "cache": workspace.sha256(self.cache) if self.cache.is_file() else time.time_ns()}

    @property
    def is_table(self) -> bool:
        """Whether ``cache`` is TensorRT's text."""
        from calibration.table import SUFFIXES

        return self.cache is not None and self.cache.suffix in SUFFIXES

    @property
    def held(self) -> int:
        """How many images are set aside: they give no statistics."""
        count = min(HELD_MOST, len(self.images) // HELD_SHARE)
        if self.method == "auto" and count < HELD_LEAST:
            raise BadRequest(
                f"--calib-method auto sets a fifth of the {len(self.images)} calibration images aside and needs "
                f"{HELD_LEAST} there; give {HELD_LEAST * HELD_SHARE} or name a method"
            )
        return count if self.method == "auto" or (self.hold and count >= HELD_LEAST) else 0

    @property
    def split(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The indices of the images that give statistics, in their order, and of those set aside."""
        from pipeline.data.images import queue

        order = queue(self.images.labels, self.seed)
        # From the end, so that those that come first, and may be enough, are the same whether some are held or not.
        count = len(order) - self.held
        return order[:count], order[count:]


def quantise(job: Calibration, src: Path, dst: Path, mend: Mend | None = None) -> Made:
    """``src`` with Q/DQ pairs, ranges from real images or the user's table; ``mend`` may change them, and says how."""
    from calibration import qdq

    details: dict[str, Any] = {}
    if job.is_table and job.cache is not None and job.cache.is_file():
        tensors = qdq.tensors(src, job.placement, job.number_format)
        amax, said = _from_table(job.cache, [*tensors]), f"scales of {job.cache}"
    else:
        amax, said, details = measured(job, src, dst)
    qdq.quantise(src, dst, amax, job.placement, job.number_format)
    if mend is not None:
        note, details["recovery"] = mend(src, dst)
        said = f"{said}; {note}"
    done, convolutions = qdq.quantised(dst)
    return Made(f"{qdq.summary(dst, job.number_format)}, {said}", done / convolutions, details)


def _from_table(path: Path, tensors: list[str]) -> dict[str, float]:
    from calibration import table

    try:
        return table.read(path, tensors)
    except (ValueError, OSError) as error:
        raise BadRequest(f"--calib-cache: {error}; delete it to calibrate anew") from error


def measured(job: Calibration, src: Path, dst: Path) -> tuple[dict[str, float], str, dict[str, Any]]:
    """The range of each tensor of ``src`` that will carry a pair, how it was found, and the account of it.

    Files that are tried on the way stand beside ``dst``.
    """
    from calibration import observe, qdq, table
    from pipeline.data.screen import screen

    odd = screen(job.images)
    used, held = job.split
    # TensorRT's implicit INT8 wants a scale for every tensor, Q/DQ pairs for some.
    formats = qdq.tensors(src, job.placement, job.number_format)
    tensors = observe.activations(src) if job.is_table else [*formats]
    seen = seen_over(job, src, tensors, used)
    ranges = _ranges(seen.histograms, formats)
    method, said, found = job.method, job.method, dict[str, Any]()
    if method == "auto":
        method, said, found = _auto(job, src, dst, ranges, held)
    zero = [name for name, amax in ranges["minmax"].items() if amax == 0]
    odd["notes"] += [f"the activations {name} are 0 on every image" for name in zero]
    if job.is_table and job.cache is not None:
        keep(job.cache, table.to_text({"images": 255.0, **ranges[method]}).encode())
    details = {
        "method": method,
        "images": seen.images,
        "of": len(job.images),
        "stopped": seen.stopped,
        "tournament": found,
        "checks": odd,
        "tensors": {name: _account(seen.histograms[name], amax) for name, amax in ranges[method].items()},
    }
    return ranges[method], "; ".join([f"{said} over {seen.images} images", *odd["notes"]]), details


def _account(histogram: Histogram, amax: float) -> dict[str, Any]:
    return {
        "seen": histogram.amax,
        "amax": amax,
        "values": histogram.total,
        "beyond": histogram.beyond(amax),
        "histogram": histogram.coarse(BINS),
    }


def _ranges(histograms: dict[str, Histogram], formats: dict[str, NumberFormat]) -> Amaxes:
    from calibration.ranges import METHODS

    seen = [(name, each, formats.get(name, INT8)) for name, each in histograms.items()]
    return {
        method: {name: find(each, number_format) for name, each, number_format in seen}
        for method, find in METHODS.items()
    }


def _auto(
    job: Calibration, src: Path, dst: Path, ranges: Amaxes, held: NDArray[np.int64]
) -> tuple[str, str, dict[str, Any]]:
    from dataclasses import asdict

    from calibration import qdq, tournament

    outcome = tournament.compete(
        src,
        lambda method, path: qdq.quantise(src, path, ranges[method], job.placement, job.number_format),
        ranges,
        dst.with_suffix(".trial"),
        lambda: batches(job.images, held),
    )
    return outcome.winner, f"{outcome.sentence} on {len(held)} others", {**asdict(outcome), "held_out": len(held)}
