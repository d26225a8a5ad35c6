"""How often each magnitude was seen, on a grid that the float itself gives: it merges exactly, in any order."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field
from itertools import accumulate
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

# A bin is a float32 without its 13 last bits: 1024 bins to every power of two, a linear grid of 2048 over [0, amax].
# That is 16 bins to an INT8 step at the top and ever finer below, whatever the tail; and no range is needed.
DROPPED = 13
OCTAVE = 1 << (23 - DROPPED)
# Magnitudes below 2^-40 are counted as zero.
FIRST = (127 - 40) * OCTAVE
# Values counted at once: their int64 indices stay within the processor's cache.
PIECE = 2**18
# An image that has more values than this in a tensor is counted by every fifth, or the next odd step that shares no
# factor with their number: no row, column or channel is left out, and which ones does not depend on batch or order.
MOST, STEP = 2**14, 5
# What is usual ends this far beyond what so many of all images reach.
BEYOND, IMAGES = 1.25, 0.95


@dataclass
class Histogram:
    """``counts[i]`` of ``total`` magnitudes |x| lie in [edges[i], edges[i + 1]); all others are below the first edge.

    ``amax`` is the largest magnitude of all values, exactly; of large tensors the same sample of every image is
    counted. ``reach[i]`` images have their largest magnitude in bin i (-1: below the first). Nothing depends on the
    order of the images or on how they were batched.
    """

    amax: float = 0.0
    total: int = 0
    counts: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    reach: Counter[int] = field(default_factory=Counter)

    def add(self, values: NDArray[np.float32]) -> None:
        """Count ``values`` (N, …) of N images, or (n,) of one; raises ValueError on NaN or infinity."""
        rows = np.asarray(values, np.float32).reshape(len(values) if values.ndim > 1 else 1, -1)
        lows, highs = rows.min(axis=1, initial=0.0), rows.max(axis=1, initial=0.0)
        peaks, lowest = np.maximum(-lows, highs), float(lows.min(initial=0.0))
        peak = float(peaks.max(initial=0.0))
        if not np.isfinite(peak):  # of NaN the minimum is NaN, and so is whatever max() makes of it
            raise ValueError("NaN or infinite values")
        bits = (_sample(rows) if values.ndim > 1 else np.ascontiguousarray(rows)).ravel().view(np.uint32)
        # The bins end at that of the peak; the sign of -0.0 puts it beyond, and so among the zeros.
        seen = np.zeros(_number(peak) + 1, np.int64)
        for start in range(0, bits.size, PIECE):
            piece = bits[start : start + PIECE]
            if lowest < 0:
                piece = piece & np.uint32(0x7FFFFFFF)
            found = np.bincount(piece >> np.uint32(DROPPED))[FIRST : FIRST + len(seen)]
            seen[: len(found)] += found
        self.merge(Histogram(peak, bits.size, seen, Counter(map(_number, peaks))))

    def merge(self, other: Histogram) -> None:
        """Take in what ``other`` saw, a shard of the same tensor."""
        self.amax, self.total = max(self.amax, other.amax), self.total + other.total
        self.reach = self.reach + other.reach
        if len(other.counts) > len(self.counts):
            self.counts = np.pad(self.counts, (0, len(other.counts) - len(self.counts)))
        self.counts[: len(other.counts)] += other.counts

    @property
    def length(self) -> int:
        """How many bins reach up to ``amax``."""
        return _number(self.amax) + 1

    @property
    def edges(self) -> NDArray[np.float64]:
        """The ``len(counts) + 1`` edges of the bins, float64."""
        edges: NDArray[np.float64] = _edge(np.arange(len(self.counts) + 1))
        return edges

    @property
    def usual(self) -> Histogram:
        """Without what lies a quarter and more beyond the largest magnitude of 19 in 20 images.

        A few images far too bright otherwise decide the range: their squared errors outweigh all others'.
        """
        enough = int(np.ceil(IMAGES * self.reach.total()))
        number = next((number for number, below in _running(self.reach) if below >= enough), -1)
        limit = float(np.float32(BEYOND * _edge(number + 1)))
        if number < 0 or limit >= self.amax:  # what is 0 on nearly every image has nothing usual
            return self
        return Histogram(limit, self.total - self.beyond(limit), self.counts[: _number(limit) + 1], self.reach)

    def coarse(self, bins: int) -> list[int]:
        """How many values lie in each of ``bins`` of equal width from 0 to ``amax``, to within a bin of this one."""
        below = np.interp(np.linspace(0, self.amax, bins + 1)[1:-1], self.edges, np.append(0, np.cumsum(self.counts)))
        running = [0, *(np.rint(below).astype(np.int64) + (self.total - self.counts.sum())), self.total]
        return [int(count) for count in np.diff(running)]

    def beyond(self, magnitude: float) -> int:
        """How many values are larger than ``magnitude``, to within its bin."""
        return int(self.counts[_number(magnitude) + 1 :].sum())


def _edge(number: Any) -> Any:
    """The lower edges of the bins ``number``, float64."""
    return (
        ((np.asarray(number, np.uint32) + np.uint32(FIRST)) << np.uint32(DROPPED)).view(np.float32).astype(np.float64)
    )


def _running(reach: Counter[int]) -> Iterator[tuple[int, int]]:
    """Each bin that an image reaches, in ascending order, and how many images reach it or less."""
    numbers = sorted(reach)
    return zip(numbers, accumulate(reach[number] for number in numbers), strict=True)


def _sample(images: NDArray[np.float32]) -> NDArray[np.float32]:
    """Of each row the values that are counted, contiguous; all of them where they are few."""
    size = images.shape[1]
    if size <= MOST:
        return np.ascontiguousarray(images)
    step = next(step for step in range(STEP, size, 2) if math.gcd(step, size) == 1)
    return np.ascontiguousarray(images[:, ::step])


def _number(magnitude: float) -> int:
    """The bin of a magnitude, -1 below the first."""
    return max(-1, int(np.float32(magnitude).view(np.uint32) >> DROPPED) - FIRST)


@dataclass
class Peak:
    """The largest magnitude alone, where nothing else is asked for."""

    amax: float = 0.0

    def add(self, values: NDArray[np.float32]) -> None:
        """Look at every element; raises ValueError on NaN or infinity."""
        peak = max(abs(float(values.min(initial=0.0))), float(values.max(initial=0.0)))
        if not np.isfinite(peak):
            raise ValueError("NaN or infinite values")
        self.amax = max(self.amax, peak)
