"""How often each magnitude was seen.

The grid is that of float32 itself, the same for every tensor, so histograms merge exactly and in any order.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

# A bin is a float32 without its 13 last bits: 1024 bins to every power of two, a linear grid of 2048 over [0, amax].
# That is 16 bins to an INT8 step at the top and ever finer below, whatever the tail; and no range is needed.
DROPPED_BITS = 13
BINS_PER_OCTAVE = 1 << (23 - DROPPED_BITS)
# Magnitudes below 2^-40 are counted as zero. (A float32 stores its exponent plus 127.)
FIRST_BIN = (127 - 40) * BINS_PER_OCTAVE
# All bits of a float32 but its sign.
MAGNITUDE_BITS = np.uint32(0x7FFFFFFF)
# Values counted at once: their int64 indices stay within the processor's cache.
VALUES_AT_ONCE = 2**18
# An image that has more values than this in a tensor is counted by every fifth, or the next odd step that shares no
# factor with their number: no row, column or channel is left out, and which ones does not depend on batch or order.
MOST_VALUES = 2**14
SAMPLING_STEP = 5
# What is usual ends at this multiple of the largest magnitude that this share of all images does not exceed.
BEYOND_USUAL = 1.25
USUAL_IMAGES = 0.95


@dataclass
class Histogram:
    """Of ``total`` magnitudes |x|, ``counts[i]`` lie in [edges[i], edges[i + 1]) and the rest below the first edge.

    ``amax`` is the exact largest magnitude of all values, though only a sample of a large tensor is counted, the same
    of every image. ``reach[i]`` images have their largest magnitude in bin i (-1: below the first). Nothing depends on
    the order of the images or on how they were batched.
    """

    amax: float = 0.0
    total: int = 0
    counts: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    reach: Counter[int] = field(default_factory=Counter)

    def add(self, values: NDArray[np.float32]) -> None:
        """Count ``values`` (N, …) of N images, or (n,) of one; raises ValueError on NaN or infinity."""
        is_batch = values.ndim > 1
        rows = np.asarray(values, np.float32).reshape(len(values) if is_batch else 1, -1)
        minima = rows.min(axis=1, initial=0.0)
        maxima = rows.max(axis=1, initial=0.0)
        peaks = np.maximum(-minima, maxima)
        peak = float(peaks.max(initial=0.0))
        if not np.isfinite(peak):  # of NaN the minimum is NaN, and so is whatever max() makes of it
            raise ValueError("NaN or infinite values")

        counted = _sample(rows) if is_batch else np.ascontiguousarray(rows)
        bits = counted.ravel().view(np.uint32)
        counts = _count(bits, _bin_of(peak) + 1, signed=float(minima.min(initial=0.0)) < 0)
        self.merge(Histogram(peak, bits.size, counts, Counter(map(_bin_of, peaks))))

    def merge(self, other: Histogram) -> None:
        """Take in what ``other`` saw, a shard of the same tensor."""
        self.amax = max(self.amax, other.amax)
        self.total += other.total
        self.reach = self.reach + other.reach
        missing_bins = len(other.counts) - len(self.counts)
        if missing_bins > 0:
            self.counts = np.pad(self.counts, (0, missing_bins))
        self.counts[: len(other.counts)] += other.counts

    @property
    def length(self) -> int:
        """How many bins reach up to ``amax``."""
        return _bin_of(self.amax) + 1

    @property
    def edges(self) -> NDArray[np.float64]:
        """The ``len(counts) + 1`` edges of the bins, float64."""
        edges: NDArray[np.float64] = _lower_edge(np.arange(len(self.counts) + 1))
        return edges

    @property
    def usual(self) -> Histogram:
        """The histogram without what lies a quarter or more beyond the largest magnitude of 19 in 20 images.

        A few images far too bright otherwise decide the range: their squared errors outweigh all others'.
        """
        return self.without_rare(USUAL_IMAGES)

    def without_rare(self, share: float) -> Histogram:
        """The same without what lies a quarter or more beyond the largest magnitude of this ``share`` of all images."""
        usual_bin = _bin_that_images_reach(self.reach, share)
        limit = float(np.float32(BEYOND_USUAL * _lower_edge(usual_bin + 1)))
        if usual_bin < 0 or limit >= self.amax:  # what is 0 on nearly every image has nothing usual
            return self
        return Histogram(limit, self.total - self.beyond(limit), self.counts[: _bin_of(limit) + 1], self.reach)

    def coarse(self, bins: int) -> list[int]:
        """How many values lie in each of ``bins`` of equal width from 0 to ``amax``, to within a bin of this one."""
        inner_edges = np.linspace(0, self.amax, bins + 1)[1:-1]
        counts_below = np.interp(inner_edges, self.edges, np.append(0, np.cumsum(self.counts)))
        # What is below the first edge of this histogram is in the first of the wide bins.
        zeros = self.total - self.counts.sum()
        running = [0, *(np.rint(counts_below).astype(np.int64) + zeros), self.total]
        return [int(count) for count in np.diff(running)]

    def beyond(self, magnitude: float) -> int:
        """How many values are larger than ``magnitude``, to within its bin."""
        return int(self.counts[_bin_of(magnitude) + 1 :].sum())


def _count(bits: NDArray[np.uint32], bins: int, *, signed: bool) -> NDArray[np.int64]:
    """How many of the float32 values with these ``bits`` lie in each of the first ``bins`` bins.

    ``signed`` says that some of them are negative. Where none is, signs are not masked out, which saves a copy. The
    sign of a -0.0 then puts it beyond the last bin, where it is not counted, and no bin counts a zero anyway.
    """
    counts = np.zeros(bins, np.int64)
    for start in range(0, bits.size, VALUES_AT_ONCE):
        piece = bits[start : start + VALUES_AT_ONCE]
        if signed:
            piece = piece & MAGNITUDE_BITS
        piece_counts = np.bincount(piece >> np.uint32(DROPPED_BITS))[FIRST_BIN : FIRST_BIN + bins]
        counts[: len(piece_counts)] += piece_counts
    return counts


def _lower_edge(number: Any) -> Any:
    """The lower edges of the bins ``number``, float64."""
    bits = (np.asarray(number, np.uint32) + np.uint32(FIRST_BIN)) << np.uint32(DROPPED_BITS)
    return bits.view(np.float32).astype(np.float64)


def _bin_that_images_reach(reach: Counter[int], share: float) -> int:
    """The lowest bin that the largest magnitudes of this ``share`` of all images do not exceed; -1 without any."""
    enough = int(np.ceil(share * reach.total()))
    images = 0
    for number in sorted(reach):
        images += reach[number]
        if images >= enough:
            return number
    return -1


def _sample(images: NDArray[np.float32]) -> NDArray[np.float32]:
    """The values of each row that are counted, contiguous; all of them where they are few."""
    size = images.shape[1]
    if size <= MOST_VALUES:
        return np.ascontiguousarray(images)
    step = next(step for step in range(SAMPLING_STEP, size, 2) if math.gcd(step, size) == 1)
    return np.ascontiguousarray(images[:, ::step])


def _bin_of(magnitude: float) -> int:
    """The bin of a magnitude, -1 below the first."""
    return max(-1, int(np.float32(magnitude).view(np.uint32) >> DROPPED_BITS) - FIRST_BIN)


@dataclass
class Peak:
    """The largest magnitude alone, where nothing else is asked for."""

    amax: float = 0.0

    def add(self, values: NDArray[np.float32]) -> None:
        """Look at every element; raises ValueError on NaN or infinity."""
        lowest = float(values.min(initial=0.0))
        highest = float(values.max(initial=0.0))
        peak = max(abs(lowest), highest)
        if not np.isfinite(peak):
            raise ValueError("NaN or infinite values")
        self.amax = max(self.amax, peak)
