"""What was seen so far, in one file: to go on after a kill, to calibrate again without a pass. No pickle is read."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from calibration.histogram import Histogram

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

Amaxes = dict[str, dict[str, float]]


@dataclass
class Seen:
    """The histogram of each tensor over the first ``images`` images, made from what ``key`` names.

    ``before`` holds every method's ranges (method → tensor → amax) at the last look, ``stopped`` why no more images
    were taken.
    """

    key: Mapping[str, Any]
    histograms: dict[str, Histogram]
    images: int = 0
    before: Amaxes = field(default_factory=dict)
    stopped: str | None = None

    def to_bytes(self) -> bytes:
        """All of it as a safetensors file."""
        import safetensors.numpy

        numbers = {name: [each.amax, each.total, sorted(each.reach.items())] for name, each in self.histograms.items()}
        said = {"key": self.key, "images": self.images, "before": self.before, "stopped": self.stopped}
        counts = {name: histogram.counts for name, histogram in self.histograms.items()}
        # One entry only: safetensors writes several in no fixed order.
        return safetensors.numpy.save(counts, {"calibration": json.dumps({**said, "numbers": numbers})})


def read(path: Path, key: Mapping[str, Any], tensors: Iterable[str]) -> Seen:
    """The statistics in ``path``, which must be those of ``tensors`` and made from the same ``key``.

    Raises ValueError where the file is damaged, and naming every ingredient of the key that differs.
    """
    import safetensors

    try:
        with safetensors.safe_open(path, "np") as file:
            said = json.loads(file.metadata()["calibration"])
            counts = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no mapping
        histograms = {name: _checked(numbers, counts[name]) for name, numbers in said["numbers"].items()}
        seen = Seen(dict(said["key"]), histograms, int(said["images"]), dict(said["before"]), said["stopped"])
    except (
        safetensors.SafetensorError,
        OSError,
        KeyError,
        TypeError,
        ValueError,
        AttributeError,
        RecursionError,
    ) as error:
        raise ValueError(f"{path} holds no whole calibration statistics ({error})") from error
    odd = [name for name in {**key, **seen.key} if key.get(name) != seen.key.get(name)]
    if not odd and seen.histograms.keys() != set(tensors):
        raise ValueError(f"{path} holds no whole calibration statistics (tensors are missing)")
    if odd:
        raise ValueError(f"{path} holds the statistics of another {', another '.join(odd)}")
    return seen


def _checked(numbers: tuple[float, int, list[tuple[int, int]]], counts: np.ndarray[Any, Any]) -> Histogram:
    amax, total, reach = numbers
    histogram = Histogram(float(amax), int(total), counts, Counter({int(number): int(n) for number, n in reach}))
    whole = counts.ndim == 1 and counts.dtype == np.int64 and not (counts < 0).any() and counts.sum() <= total
    if not whole or not 0 <= amax <= np.finfo(np.float32).max or len(counts) != Histogram(float(amax)).length:
        raise ValueError("counts that are none")
    if any(not -1 <= number < len(counts) or n < 1 for number, n in histogram.reach.items()):
        raise ValueError("images that are none")
    return histogram
