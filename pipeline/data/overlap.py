"""Which training images are test images too, told by their stored bytes: nothing is decoded."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from pipeline.data.part import Part, Stored

# Bytes of training images that are read at most: a few seconds from a disk. Of more than that some are read, spread
# over all.
MOST_BYTES = 2**31


@dataclass(frozen=True)
class Overlap:
    """Pairs of a training and a test image of the same bytes, each test image once.

    ``sized`` training images have the size of a test image, and ``read`` of them were read; no others can be the same.
    """

    pairs: list[tuple[int, int]]
    sized: int
    read: int


def of_bytes(train: Part, test: Part) -> Overlap:
    """The images of ``train`` that are those of ``test``, byte for byte.

    An array counts as equal where its pixels are. Test images are read once more at most, training images up to
    MOST_BYTES.
    """
    tests_by_size: dict[int, list[int]] = defaultdict(list)
    for index in range(len(test)):
        size = _size(test.stored(index))
        if size:
            tests_by_size[size].append(index)

    candidates = []
    sizes = []
    for index in range(len(train)):
        size = _size(train.stored(index))
        if size in tests_by_size:
            candidates.append(index)
            sizes.append(size)
    chosen = _within(sizes, MOST_BYTES)

    tests_by_digest: dict[bytes, list[int]] = defaultdict(list)
    for size in {sizes[place] for place in chosen}:
        for index in tests_by_size[size]:
            tests_by_digest[_digest(test.stored(index))].append(index)

    first_train: dict[int, int] = {}
    for place in chosen:
        for index in tests_by_digest.get(_digest(train.stored(candidates[place])), ()):
            first_train.setdefault(index, candidates[place])
    pairs = [(first_train[index], index) for index in sorted(first_train)]
    return Overlap(pairs, len(candidates), len(chosen))


def _within(sizes: list[int], most: int) -> list[int]:
    """Places of ``sizes``, evenly spread over them, whose sum is about ``most`` at most."""
    total = sum(sizes)
    if total <= most:
        return list(range(len(sizes)))
    count = max(1, len(sizes) * most // total)
    places: list[int] = np.linspace(0, len(sizes) - 1, count).astype(np.int64).tolist()
    return places


def _size(stored: Stored) -> int:
    """In bytes; 0 of a file that is gone, and of what is not stored."""
    if stored is None:
        return 0
    if not isinstance(stored, Path):
        return int(stored.nbytes)
    try:
        return stored.stat().st_size
    except FileNotFoundError:
        return 0


def _digest(stored: Stored) -> bytes:
    if isinstance(stored, Path):
        with stored.open("rb") as file:
            return hashlib.file_digest(file, "sha256").digest()
    assert stored is not None  # it has no size
    # Arrays of one size may have other shapes.
    return hashlib.sha256(repr((stored.shape, stored.dtype.str)).encode() + stored.tobytes()).digest()
