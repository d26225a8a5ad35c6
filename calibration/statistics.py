"""The statistics seen so far, kept in one file.

With it calibration goes on after a kill, and another method needs no new pass over the images. No pickle is read.
"""

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

    ``before`` holds the ranges of mse at the last look (method → tensor → amax): they tell when it is enough.
    ``stopped`` says why no more images were taken; it is None where there is no such reason.
    """

    key: Mapping[str, Any]
    histograms: dict[str, Histogram]
    images: int = 0
    before: Amaxes = field(default_factory=dict)
    stopped: str | None = None

    def to_bytes(self) -> bytes:
        """All of it as a safetensors file."""
        import safetensors.numpy

        counts = {}
        numbers = {}
        for name, histogram in self.histograms.items():
            counts[name] = histogram.counts
            numbers[name] = [histogram.amax, histogram.total, sorted(histogram.reach.items())]
        metadata = {
            "key": self.key,
            "images": self.images,
            "before": self.before,
            "stopped": self.stopped,
            "numbers": numbers,
        }
        # One entry only: safetensors writes several in no fixed order.
        return safetensors.numpy.save(counts, {"calibration": json.dumps(metadata)})


def read(path: Path, key: Mapping[str, Any], tensors: Iterable[str]) -> Seen:
    """The statistics in ``path``, which must be those of ``tensors`` and made from the same ``key``.

    Raises ValueError where the file is damaged. Where the key differs, the error names every ingredient that does.
    """
    import safetensors

    # Everything that a damaged or foreign file can raise on the way: none of it may reach the user as it is.
    damages = (
        safetensors.SafetensorError,
        OSError,
        KeyError,
        TypeError,
        ValueError,
        AttributeError,
        RecursionError,
    )
    try:
        seen = _parsed(path)
    except damages as error:
        raise ValueError(f"{path} holds no whole calibration statistics ({error})") from error

    # Before the tensors are looked at: those of another network are others, and the network is the reason.
    different = [name for name in {**key, **seen.key} if key.get(name) != seen.key.get(name)]
    if different:
        raise ValueError(f"{path} holds the statistics of another {', another '.join(different)}")
    if seen.histograms.keys() != set(tensors):
        raise ValueError(f"{path} holds no whole calibration statistics (tensors are missing)")
    return seen


def _parsed(path: Path) -> Seen:
    """The statistics in ``path``, whoever made them and from what."""
    import safetensors

    with safetensors.safe_open(path, "np") as file:
        metadata = json.loads(file.metadata()["calibration"])
        counts = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no mapping
    histograms = {name: _checked(numbers, counts[name]) for name, numbers in metadata["numbers"].items()}
    return Seen(
        key=dict(metadata["key"]),
        histograms=histograms,
        images=int(metadata["images"]),
        before=dict(metadata["before"]),
        stopped=metadata["stopped"],
    )


def _checked(numbers: tuple[float, int, list[tuple[int, int]]], counts: np.ndarray[Any, Any]) -> Histogram:
    """The histogram of these ``numbers`` and ``counts``; raises ValueError where no tensor can have given them."""
    amax, total, reach = numbers
    images_per_bin = Counter({int(number): int(images) for number, images in reach})
    histogram = Histogram(float(amax), int(total), counts, images_per_bin)

    are_counts = counts.ndim == 1 and counts.dtype == np.int64 and not (counts < 0).any() and counts.sum() <= total
    is_magnitude = 0 <= amax <= np.finfo(np.float32).max
    if not are_counts or not is_magnitude or len(counts) != histogram.length:
        raise ValueError("counts that are none")

    for number, images in images_per_bin.items():
        if not -1 <= number < len(counts) or images < 1:
            raise ValueError("images that are none")
    return histogram
