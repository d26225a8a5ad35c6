"""Images that show the same picture in other bytes: saved again, resized, a little brighter or cut."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from PIL import Image

# Pictures of which looks are kept at most: 200 MB.
MOST_PICTURES = 250_000
# The hash has 16 x 16 bits, the signs of the lowest frequencies of the picture in grey on 64 x 64 pixels.
BITS = 256
WORD = 16
# A mosaic of 16 x 16 tiles in colour goes with it: of pictures as plain as stripes most bits are the same by chance,
# and what is alike in grey may still be red and blue.
TILES = 16
UNIT = 32  # a standard deviation as int8 holds it
# Of near copies at most so many bits differ, and the mosaics correlate at least so much. Where 15 differ, one of the 16
# words is the same; blurred pictures have bits near 0, which turn over sooner, and mosaics that hardly move.
LIMITS = ((15, 0.98), (64, 0.998))
# The shorter side of images that are looked at (docs/own-data.md has the measurement).
LEAST_SIDE = 48
# Standard deviation in levels below which a picture is as good as empty, and its bits are chance.
LEAST_CONTRAST = 4.0
# Images of one word that are next to each other in order, which are compared.
NEIGHBOURS = 8


@dataclass(frozen=True)
class Looks:
    """What N pictures look like: ``bits`` (N, 4) uint64, ``mosaic`` (N, 256 C) int8, and which of them are known.

    A mosaic has mean 0 and standard deviation UNIT, cut where int8 ends: brightness and contrast do not count.
    """

    bits: NDArray[np.uint64]
    mosaic: NDArray[np.int8]
    known: NDArray[np.bool_]

    @classmethod
    def empty(cls, count: int, channels: int) -> Looks:
        """None of ``count`` pictures is known yet."""
        return cls(
            np.zeros((count, BITS // 64), np.uint64),
            np.zeros((count, TILES * TILES * channels), np.int8),
            np.zeros(count, np.bool_),
        )

    def add(self, index: int, picture: Image.Image) -> None:
        """Look at picture number ``index``, L or RGB; one that is too small or as good as empty stays unknown."""
        import imagehash

        if min(picture.size) < LEAST_SIDE:
            return
        # By the library's own grid, which is small: the picture may have millions of pixels.
        small = picture.resize((64, 64), reducing_gap=3)
        pixels = np.asarray(small, np.float32).reshape(64, 64, -1)
        if pixels.mean(2).std() < LEAST_CONTRAST:
            return
        hashed = imagehash.phash(small, hash_size=16)
        self.bits[index] = np.packbits(hashed.hash).view(np.uint64)
        tiles = pixels.reshape(TILES, 64 // TILES, TILES, 64 // TILES, -1).mean((1, 3))
        standard = (tiles - tiles.mean()) / max(float(tiles.std()), 1.0)
        self.mosaic[index] = np.clip(np.rint(UNIT * standard), -127, 127).ravel()
        self.known[index] = True

    def pairs(self, among: NDArray[np.bool_]) -> NDArray[np.int64]:
        """Pairs (P, 2) of pictures ``among`` (N,) them that look alike, the earlier one first, each pair once.

        Sorted by each word in turn, near copies stand next to each other, so that no picture is compared with all.
        """
        known = np.flatnonzero(self.known & among)
        words = self.bits[known].view(np.uint16)
        found = [np.empty((0, 2), np.int64)]
        for first in range(BITS // WORD):
            # By this word, then by those behind it.
            order = np.lexsort(np.roll(words, -first, axis=1).T[::-1])
            for step in range(1, NEIGHBOURS + 1):
                one = known[order[:-step]]
                other = known[order[step:]]
                alike = self._alike(one, other)
                found.append(np.stack([one[alike], other[alike]], axis=1))
        return np.unique(np.sort(np.concatenate(found), axis=1), axis=0)

    def _alike(self, one: NDArray[np.int64], other: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Whether the picture ``one`` looks like the ``other``, (P,)."""
        different = (self.bits[one] ^ self.bits[other]).view(np.uint8)
        distance = np.unpackbits(different, axis=1).sum(axis=1)
        # The mosaics are compared of these alone, since most pairs are far apart.
        near = np.flatnonzero(distance <= max(bits for bits, _ in LIMITS))
        mosaic = self.mosaic[one[near]].astype(np.float32)
        other_mosaic = self.mosaic[other[near]].astype(np.float32)
        lengths = np.linalg.norm(mosaic, axis=1) * np.linalg.norm(other_mosaic, axis=1)
        products = (mosaic * other_mosaic).sum(axis=1)
        alike = np.zeros(len(one), np.bool_)
        for bits, correlation in LIMITS:
            alike[near] |= (distance[near] <= bits) & (products >= correlation * lengths)
        return alike
