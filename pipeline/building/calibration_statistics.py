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

    from calibration.statistics import Seen
    from pipeline.building.calibrate import Calibration
    from pipeline.data.images import Images

SAVE_EVERY = 2.0  # seconds of work that a kill may cost
# Where no number of images was asked for: looked at after 64, 128, 256 …, enough when in no tensor the last look's
# range rounds the images seen by now this much worse than their own range.
FIRST_LOOK, SETTLED_DB = 64, 0.5


def seen_over(job: Calibration, src: Path, tensors: list[str], order: NDArray[np.int64]) -> Seen:
    """The statistics over the images of ``order``, from where an earlier run was stopped."""
    from calibration import observe, statistics
    from calibration.histogram import Histogram

    key = _key(job, src, tensors)
    own = job.cache is not None and not job.is_table
    path = job.cache if own and job.cache is not None else _unfinished(key)
    seen = _begun(path, key, tensors, own=own) or statistics.Seen(key, {})
    if seen.stopped is None and seen.images < len(order):
        observer = observe.Observer(src, tensors, Histogram)
        observer.seen.update(seen.histograms)
        seen.histograms = observer.seen
        _observe(job, observer, seen, order, path)
        if own:
            keep(path, seen.to_bytes())
    if not own:
        path.unlink(missing_ok=True)
    return seen


def _observe(job: Calibration, observer: Any, seen: Seen, order: NDArray[np.int64], path: Path) -> None:
    saved = time.monotonic()
    with bar("calibrating", len(order)) as advance:
        for _ in range(seen.images):
            advance()
        while seen.images < len(order) and seen.stopped is None:
            look = FIRST_LOOK * 2 ** max(0, (seen.images // FIRST_LOOK).bit_length())
            some = order[seen.images : min(look, seen.images + 8 * batch_size(job.images), len(order))]
            observer.take(batches(job.images, some))
            seen.images += len(some)
            for _ in some:
                advance()
            if job.settle and seen.images == look:
                _look(seen)
            if time.monotonic() - saved > SAVE_EVERY:
                keep(path, seen.to_bytes())
                saved = time.monotonic()


def _look(seen: Seen) -> None:
    """Say in ``seen`` that it is enough, when the ranges of the last look would still round as well as new ones.

    By mse's ranges, whatever the method: minmax grows with every image, and entropy jumps where it does not matter.
    """
    from calibration.ranges import mse, squared_error
    from exporters.number_formats import INT8

    now, before = {name: mse(each) for name, each in seen.histograms.items()}, seen.before.get("mse")
    seen.before = {"mse": now}
    if before is None:
        return
    worse: dict[str, float] = {}
    for name, each in seen.histograms.items():
        old, new = (
            squared_error(each, ranges[name] / INT8.largest_level) if ranges[name] else 0.0 for ranges in (before, now)
        )
        worse[name] = (
            10 * math.log10(old / new) if old and new else math.inf * (old != new or before[name] != now[name])
        )
    name = max(worse, key=worse.__getitem__)
    if worse[name] < SETTLED_DB:
        seen.stopped = (
            f"the ranges of {seen.images // 2} images round {seen.images} no worse than their own by {SETTLED_DB:g} dB "
            f"({worse[name]:.2f} dB in {name})"
        )


def _key(job: Calibration, src: Path, tensors: list[str]) -> dict[str, Any]:
    """Every ingredient of the statistics, by the name that a person is told."""
    from calibration import histogram, observe

    key = {
        "network (graph or weights)": observe.fingerprint(src),
        "choice of tensors": hashlib.sha256("\n".join(tensors).encode()).hexdigest(),
        "preprocessing": job.images.preprocessing.to_json(),
        "set of images": job.images.digest,
        "order of images": [job.seed, len(job.images) - job.held],
        "stopping rule": [FIRST_LOOK, SETTLED_DB] if job.settle else None,
        "grid": [histogram.DROPPED, histogram.FIRST, histogram.MOST, histogram.STEP, observe.LEVEL],
        "version of a tool": provenance.versions(("onnxruntime", "onnxruntime-gpu", "onnx", "numpy")),
    }
    return dict(json.loads(json.dumps(key)))


def _unfinished(key: dict[str, Any]) -> Path:
    import platformdirs

    digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()
    return Path(platformdirs.user_cache_dir("edge-resnet"), "calibration", f"{digest[:16]}.safetensors")


def _begun(path: Path, key: dict[str, Any], tensors: list[str], *, own: bool) -> Seen | None:
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
    """``content`` as a whole file at ``path``, whoever else writes there."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".unfinished-", dir=path.parent) as unfinished:
            workspace.write_bytes(path, content, Path(unfinished))
    except OSError as error:
        raise StageFailed(f"calibration statistics could not be kept in {path}: {workspace.explain(error)}") from error


def batch_size(images: Images) -> int:
    """Images whose activations are in memory at once, and those of the batch before: one image of 224 pixels."""
    return max(1, images.batch_size // 24)


def batches(images: Images, chosen: NDArray[np.int64]) -> Iterator[NDArray[np.float32]]:
    """The images ``chosen``, (n, C, H, W) 0..255 at a time."""
    size = batch_size(images)
    for start in range(0, len(chosen), size):
        yield images.select(chosen[start : start + size])
