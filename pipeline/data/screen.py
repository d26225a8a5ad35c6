"""What is odd about calibration images: the same twice, of one colour, out of range, unlike all others."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.data.images import NO_CLASS
from pipeline.errors import BadRequest

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pipeline.data.images import Images

FEW = 32  # fewer leave the ranges to chance
# Robust standard deviations (1.4826 MAD) from the median brightness or contrast; of a normal spread 2 in 10^15 are.
FAR = 8.0
LISTED = 10


def screen(images: Images) -> dict[str, Any]:
    """Names (the first ten) and counts of odd images, and ``notes``: a sentence for each kind that there is.

    Raises BadRequest where every image is of one colour: nothing can be learned from them.
    """
    digests: dict[bytes, int] = {}
    duplicates, constant, outside = [], [], []
    looks = np.empty((len(images), 2))
    for index in range(len(images)):
        pixels = images[index]
        if digests.setdefault(hashlib.sha256(pixels.tobytes()).digest(), index) != index:
            duplicates.append(index)
        low, high = float(pixels.min()), float(pixels.max())
        if low == high:
            constant.append(index)
        if low < 0 or high > 255:
            outside.append(index)
        looks[index] = pixels.mean(), pixels.std()
    if len(constant) == len(images):
        raise BadRequest(f"each of the {len(images)} calibration images is of one colour; give real ones")
    spread = np.median(np.abs(looks - np.median(looks, axis=0)), axis=0) * 1.4826
    far = np.flatnonzero((np.abs(looks - np.median(looks, axis=0)) > FAR * np.maximum(spread, 1)).any(axis=1))
    found = {
        "duplicates": duplicates,
        "constant": constant,
        "outside 0..255": outside,
        "unlike the others": far.tolist(),
    }
    return {
        **{kind: {"count": len(odd), "names": _names(images, odd)} for kind, odd in found.items()},
        "notes": [*(f"{len(odd)} calibration images {kind}" for kind, odd in found.items() if odd), *_whole(images)],
    }


def _names(images: Images, odd: Sequence[int]) -> list[str]:
    return [images.part.name(index) for index in odd[:LISTED]]


def _whole(images: Images) -> list[str]:
    notes = []
    if len(images) < FEW:
        notes.append(f"only {len(images)} calibration images, fewer than {FEW}")
    if len(images) > 1 and len(np.unique(images.labels)) == 1 and images.labels[0] > NO_CLASS:
        notes.append("calibration images of one class, or without classes")
    first, size = images.part.decode(0), images.shape[1:]
    if isinstance(first, np.ndarray) and first.shape[1:] != size:
        notes.append("calibration arrays of {} x {}, resized and cropped to {} x {}".format(*first.shape[1:], *size))
    return notes
