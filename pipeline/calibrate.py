"""The INT8 stage: statistics in one pass that a kill only interrupts, a method for the ranges, Q/DQ pairs."""

from __future__ import annotations

import hashlib
import json
import math
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline import provenance, workspace
from pipeline.data.images import queue
from pipeline.data.screen import screen
from pipeline.errors import BadRequest, StageFailed
from pipeline.report.progress import bar
from pipeline.report.terminal import say
from pipeline.stage import Made

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import numpy as np
    from numpy.typing import NDArray

    from calibration.histogram import Histogram
    from calibration.statistics import Amaxes, Seen
    from pipeline.data.images import Images

    Mend = Callable[[Path, Path], tuple[str, dict[str, Any]]]

SAVE_EVERY = 2.0  # seconds of work that a kill may cost
# Where no number of images was asked for: looked at after 64, 128, 256 …, enough when in no tensor the last look's
# range rounds the images seen by now this much worse than their own range.
FIRST_LOOK, SETTLED_DB = 64, 0.5
# Images that only compare methods and judge the file: a fifth, at most 64, and no fewer than make an interval.
HELD_SHARE, HELD_MOST, HELD_LEAST = 5, 64, 8


@dataclass(frozen=True)
class Calibration:
    """What calibrates, and how: ``cache`` is the user's own file, ``settle`` whether fewer images may do, ``hold``
    whether some are set aside whatever the method, where there are enough.
    """  # noqa: D205

    images: Images
    method: str
    seed: int = 0
    cache: Path | None = None
    settle: bool = False
    hold: bool = False

    def parameters(self) -> dict[str, Any]:
        """What the ranges depend on, for the note of the stage."""
        said = {
            "images": self.images.digest,
            "method": self.method,
            "held": self.held,
            "seed": self.seed,
            "settle": self.settle,
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
        order = queue(self.images.labels, self.seed)
        # From the end, so that those that come first, and may be enough, are the same whether some are held or not.
        count = len(order) - self.held
        return order[:count], order[count:]


def int8(job: Calibration, src: Path, dst: Path, mend: Mend | None = None) -> Made:
    """``src`` with Q/DQ pairs, ranges from real images or the user's table; ``mend`` may change them, and says how."""
    from calibration import qdq

    details: dict[str, Any] = {}
    if job.is_table and job.cache is not None and job.cache.is_file():
        amax, said = _from_table(job.cache, qdq.tensors(src)), f"scales of {job.cache}"
    else:
        amax, said, details = _from_images(job, src, dst)
    qdq.int8(src, dst, amax)
    if mend is not None:
        note, details["recovery"] = mend(src, dst)
        said = f"{said}; {note}"
    done, convolutions = qdq.quantised(dst)
    return Made(f"{qdq.summary(dst)}, {said}", done / convolutions, details)


def _from_table(path: Path, tensors: list[str]) -> dict[str, float]:
    from calibration import table

    try:
        return table.read(path, tensors)
    except (ValueError, OSError) as error:
        raise BadRequest(f"--calib-cache: {error}; delete it to calibrate anew") from error


def _from_images(job: Calibration, src: Path, dst: Path) -> tuple[dict[str, float], str, dict[str, Any]]:
    from calibration import observe, qdq, table

    odd = screen(job.images)
    used, held = job.split
    # TensorRT's implicit INT8 wants a scale for every tensor, Q/DQ pairs for some.
    tensors = observe.activations(src) if job.is_table else qdq.tensors(src)
    seen = _seen(job, src, tensors, used)
    ranges = _ranges(seen.histograms)
    method, said, found = job.method, job.method, dict[str, Any]()
    if method == "auto":
        method, said, found = _auto(job, src, dst, ranges, held)
    zero = [name for name, amax in ranges["minmax"].items() if amax == 0]
    odd["notes"] += [f"the activations {name} are 0 on every image" for name in zero]
    if job.is_table and job.cache is not None:
        _keep(job.cache, table.to_text({"images": 255.0, **ranges[method]}).encode())
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


def _account(histogram: Histogram, amax: float) -> dict[str, float]:
    return {"seen": histogram.amax, "amax": amax, "values": histogram.total, "beyond": histogram.beyond(amax)}


def _ranges(histograms: dict[str, Histogram]) -> Amaxes:
    from calibration.ranges import METHODS

    return {method: {name: find(each) for name, each in histograms.items()} for method, find in METHODS.items()}


def _auto(
    job: Calibration, src: Path, dst: Path, ranges: Amaxes, held: NDArray[np.int64]
) -> tuple[str, str, dict[str, Any]]:
    from dataclasses import asdict

    from calibration import qdq, tournament

    outcome = tournament.compete(
        src,
        lambda method, path: qdq.int8(src, path, ranges[method]),
        ranges,
        dst.with_suffix(".trial"),
        lambda: _batches(job.images, held),
    )
    return outcome.winner, f"{outcome.sentence} on {len(held)} others", {**asdict(outcome), "held_out": len(held)}


def _seen(job: Calibration, src: Path, tensors: list[str], order: NDArray[np.int64]) -> Seen:
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
            _keep(path, seen.to_bytes())
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
            observer.take(_batches(job.images, some))
            seen.images += len(some)
            for _ in some:
                advance()
            if job.settle and seen.images == look:
                _look(seen)
            if time.monotonic() - saved > SAVE_EVERY:
                _keep(path, seen.to_bytes())
                saved = time.monotonic()


def _look(seen: Seen) -> None:
    """Say in ``seen`` that it is enough, when the ranges of the last look would still round as well as new ones.

    By mse's ranges, whatever the method: minmax grows with every image, and entropy jumps where it does not matter.
    """
    from calibration.ranges import LEVELS, mse, squared_error

    now, before = {name: mse(each) for name, each in seen.histograms.items()}, seen.before.get("mse")
    seen.before = {"mse": now}
    if before is None:
        return
    worse: dict[str, float] = {}
    for name, each in seen.histograms.items():
        old, new = (squared_error(each, ranges[name] / LEVELS) if ranges[name] else 0.0 for ranges in (before, now))
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


def _keep(path: Path, content: bytes) -> None:
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


def _batches(images: Images, chosen: NDArray[np.int64]) -> Iterator[NDArray[np.float32]]:
    size = batch_size(images)
    for start in range(0, len(chosen), size):
        yield images.select(chosen[start : start + size])
