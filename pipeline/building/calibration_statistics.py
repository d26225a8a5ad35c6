"""The statistics of the calibration images, in one pass that a kill only interrupts."""

from __future__ import annotations

import hashlib
import json
import math
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline import provenance, workspace
from pipeline.console.news import say
from pipeline.console.progress import bar
from pipeline.errors import BadRequest, StageFailed

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np
    from numpy.typing import NDArray

    from calibration.histogram import Histogram
    from calibration.observe import Observer
    from calibration.statistics import Seen
    from pipeline.building.calibration_job import CalibrationJob
    from pipeline.data.images import Images

# Seconds of work that a kill may cost.
SAVE_EVERY = 2.0
# Where no number of images was asked for: looked at after 64, 128, 256 …, enough when in no tensor the last look's
# range rounds the images seen by now this much worse than their own range.
FIRST_LOOK = 64
SETTLED_DB = 0.5
# So many batches are taken between two chances to save.
BATCHES_AT_ONCE = 8


def seen_over(job: CalibrationJob, src: Path, tensors: list[str], order: NDArray[np.int64]) -> Seen:
    """The statistics of ``tensors`` over the images of ``order``; they go on from where an earlier run was stopped."""
    from calibration import observe, statistics
    from calibration.histogram import Histogram

    key = _key(job, src, tensors)
    # The user's own file stays, with all images in it; ours only serves an interrupted run, and goes at the end.
    own_file = None if job.is_table else job.cache
    path = own_file if own_file is not None else _unfinished(key)

    seen = _begun(path, key, tensors, own=own_file is not None)
    if seen is None:
        seen = statistics.Seen(key, {})
    if seen.stopped is None and seen.images < len(order):
        observer = observe.Observer(src, tensors, Histogram)
        observer.seen.update(seen.histograms)
        # The same dictionary: what the observer counts is what a look sees and a save keeps.
        seen.histograms = observer.seen
        _observe(job, observer, seen, order, path)
        if own_file is not None:
            keep(own_file, seen.to_bytes())
    if own_file is None:
        path.unlink(missing_ok=True)
    return seen


def _observe(
    job: CalibrationJob, observer: Observer[Histogram], seen: Seen, order: NDArray[np.int64], path: Path
) -> None:
    """Take further images of ``order`` into ``seen`` until there are no more, or enough; save to ``path`` at times."""
    saved_at = time.monotonic()
    at_once = BATCHES_AT_ONCE * job.images.observed_batch_size
    with bar("calibrating", len(order)) as advance:
        for _ in range(seen.images):
            advance()
        while seen.images < len(order) and seen.stopped is None:
            # Never across a look, so that every run looks after the same images, interrupted or not.
            next_look = _next_look(seen.images)
            end = min(next_look, seen.images + at_once, len(order))
            chosen = order[seen.images : end]
            observer.take(batches(job.images, chosen))
            seen.images += len(chosen)
            for _ in chosen:
                advance()

            if job.settle and seen.images == next_look:
                _look(seen)
            if time.monotonic() - saved_at > SAVE_EVERY:
                keep(path, seen.to_bytes())
                saved_at = time.monotonic()


def _next_look(images: int) -> int:
    """After how many images the next look is, once ``images`` are seen: the next of 64, 128, 256 and so on."""
    doublings = (images // FIRST_LOOK).bit_length()
    return int(FIRST_LOOK * 2**doublings)


def _look(seen: Seen) -> None:
    """Note in ``seen`` that it is enough, if the ranges of the last look still round as well as new ones would.

    The ranges are those of mse, whatever the method: those of minmax grow with every image, and those of entropy jump
    where it does not matter.
    """
    from calibration.ranges import mse

    ranges = {name: mse(histogram) for name, histogram in seen.histograms.items()}
    ranges_before = seen.before.get("mse")
    seen.before = {"mse": ranges}
    if ranges_before is None:
        return

    worse_db: dict[str, float] = {}
    for name, histogram in seen.histograms.items():
        worse_db[name] = _worse_db(histogram, ranges_before[name], ranges[name])
    worst = max(worse_db, key=worse_db.__getitem__)
    if worse_db[worst] < SETTLED_DB:
        seen.stopped = (
            f"the ranges of {seen.images // 2} images round {seen.images} no worse than their own by {SETTLED_DB:g} dB "
            f"({worse_db[worst]:.2f} dB in {worst})"
        )


def _worse_db(histogram: Histogram, amax_before: float, amax: float) -> float:
    """By how many dB the noise of the range up to ``amax_before`` exceeds that of the range up to ``amax``.

    It is minus infinity where both are the same and make no noise: such a tensor decides nothing.
    """
    from calibration.ranges import squared_error
    from exporters.number_formats import INT8

    largest = INT8.largest_level
    noise_before = squared_error(histogram, amax_before / largest) if amax_before else 0.0
    noise = squared_error(histogram, amax / largest) if amax else 0.0
    if noise_before and noise:
        return 10 * math.log10(noise_before / noise)
    return -math.inf if noise_before == noise and amax_before == amax else math.inf


def _key(job: CalibrationJob, src: Path, tensors: list[str]) -> dict[str, Any]:
    """Every ingredient of the statistics, by the name that a person is told."""
    from calibration import histogram, observe

    # Every constant that decides which values are counted, and in which bin.
    grid = [
        histogram.DROPPED_BITS,
        histogram.FIRST_BIN,
        histogram.MOST_VALUES,
        histogram.SAMPLING_STEP,
        observe.LEVEL,
    ]
    key = {
        "network (graph or weights)": observe.fingerprint(src),
        "choice of tensors": hashlib.sha256("\n".join(tensors).encode()).hexdigest(),
        "preprocessing": job.images.preprocessing.to_json(),
        "set of images": job.images.digest,
        "order of images": [job.seed, len(job.images) - job.held],
        "stopping rule": [FIRST_LOOK, SETTLED_DB] if job.settle else None,
        "grid": grid,
        "version of a tool": provenance.versions(("onnxruntime", "onnxruntime-gpu", "onnx", "numpy")),
    }
    # As it is read back, so that the two can be compared: JSON knows no tuples.
    return dict(json.loads(json.dumps(key)))


def _unfinished(key: dict[str, Any]) -> Path:
    """Where the statistics of a run that may be killed are kept until its end."""
    import platformdirs

    digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()
    return Path(platformdirs.user_cache_dir("edge-resnet"), "calibration", f"{digest[:16]}.safetensors")


def _begun(path: Path, key: dict[str, Any], tensors: list[str], *, own: bool) -> Seen | None:
    """What an earlier run left in ``path``; None without any. ``own``: the file is the user's."""
    from calibration import statistics

    if not path.is_file():
        return None
    try:
        seen = statistics.read(path, key, tensors)
    except ValueError as error:
        flag = "--calib-cache: " if own else ""
        raise BadRequest(f"{flag}{error}; delete that file to calibrate anew") from error
    say(f"calibration goes on after {seen.images} images, whose statistics are in {path}")
    return seen


def keep(path: Path, content: bytes) -> None:
    """Write ``content`` to ``path``, where there is always a whole file, whoever else writes it at the same time."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".unfinished-", dir=path.parent) as unfinished:
            workspace.write_bytes(path, content, Path(unfinished))
    except OSError as error:
        raise StageFailed(f"calibration statistics could not be kept in {path}: {workspace.explain(error)}") from error


def batches(images: Images, chosen: NDArray[np.int64]) -> Iterator[NDArray[np.float32]]:
    """The images ``chosen``, (n, C, H, W) 0..255 at a time."""
    size = images.observed_batch_size
    for start in range(0, len(chosen), size):
        yield images.select(chosen[start : start + size])
