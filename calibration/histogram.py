"""How often each magnitude was seen, on a grid that the float itself gives: it merges exactly, in any order."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
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


@dataclass
class Histogram:
    """``counts[i]`` of ``total`` magnitudes |x| lie in [edges[i], edges[i + 1]); all others are below the first edge.

    ``amax`` is the largest magnitude of all values, exactly; of large tensors the same sample of every image is
    counted. Nothing depends on the order of the images or on how they were batched.
    """

    amax: float = 0.0
    total: int = 0
    counts: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))

    def add(self, values: NDArray[np.float32]) -> None:
        """Count ``values`` (N, …) of N images; raises ValueError on NaN or infinity."""
        lowest = float(values.min(initial=0.0))
        peak = max(abs(lowest), float(values.max(initial=0.0)))
        if not np.isfinite(peak):  # of NaN the minimum is NaN, and so is whatever max() makes of it
            raise ValueError("NaN or infinite values")
        bits = _sample(values).ravel().view(np.uint32)
        # The bins end at that of the peak; the sign of -0.0 puts it beyond, and so among the zeros.
        seen = np.zeros(_number(peak) + 1, np.int64)
        for start in range(0, bits.size, PIECE):
            piece = bits[start : start + PIECE]
            if lowest < 0:
                piece = piece & np.uint32(0x7FFFFFFF)
            found = np.bincount(piece >> np.uint32(DROPPED))[FIRST : FIRST + len(seen)]
            seen[: len(found)] += found
        self.merge(Histogram(peak, bits.size, seen))

    def merge(self, other: Histogram) -> None:
        """Take in what ``other`` saw, a shard of the same tensor."""
        self.amax, self.total = max(self.amax, other.amax), self.total + other.total
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
        numbers = np.arange(FIRST, FIRST + len(self.counts) + 1, dtype=np.uint32)
        return (numbers << np.uint32(DROPPED)).view(np.float32).astype(np.float64)

    def beyond(self, magnitude: float) -> int:
        """How many values are larger than ``magnitude``, to within its bin."""
        return int(self.counts[_number(magnitude) + 1 :].sum())


def _sample(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """The values that are counted, contiguous; all of them where they are few."""
    images = np.asarray(values, np.float32).reshape(len(values) if values.size else 1, -1)
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
