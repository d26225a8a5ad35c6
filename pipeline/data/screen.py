"""What is odd about calibration images: the same twice, of one colour, out of range, unlike all others."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.data.part import NO_CLASS
from pipeline.errors import BadRequest

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pipeline.data.images import Images

FEW = 32  # fewer leave the ranges to chance
# Robust standard deviations (1.4826 MAD) from the median brightness or contrast; of a normal spread 2 in 10^15 are.
FAR = 8.0
LISTED = 10


def screen(images: Images) -> dict[str, Any]:
    """Names (the first ten) and counts of odd images, and ``notes``: a sentence for each kind that there is.

    Raises BadRequest where every image is of one colour: nothing can be learned from them.
    """
    digests: set[bytes] = set()
    duplicates = []
    constant = []
    outside = []
    looks = np.empty((len(images), 2))  # brightness and contrast
    for index in range(len(images)):
        pixels = images[index]
        digest = hashlib.sha256(pixels.tobytes()).digest()
        if digest in digests:
            duplicates.append(index)
        digests.add(digest)
        low = float(pixels.min())
        high = float(pixels.max())
        if low == high:
            constant.append(index)
        if low < 0 or high > 255:
            outside.append(index)
        looks[index] = pixels.mean(), pixels.std()
    if len(constant) == len(images):
        raise BadRequest(f"each of the {len(images)} calibration images is of one colour; give real ones")

    odd_images = {
        "duplicates": duplicates,
        "constant": constant,
        "outside 0..255": outside,
        "unlike the others": _unlike(looks),
    }
    result: dict[str, Any] = {}
    notes = []
    for kind, indices in odd_images.items():
        names = [images.part.name(index) for index in indices[:LISTED]]
        result[kind] = {"count": len(indices), "names": names}
        if indices:
            notes.append(f"{len(indices)} calibration images {kind}")
    result["notes"] = [*notes, *_whole(images)]
    return result


def _unlike(looks: NDArray[np.float64]) -> list[int]:
    """The rows of ``looks`` (N, 2) that are far from all others in brightness or contrast."""
    from_median = np.abs(looks - np.median(looks, axis=0))
    # Of a normal spread 1.4826 times the median distance is the standard deviation.
    deviation = np.median(from_median, axis=0) * 1.4826
    # Of at least one level: where nearly all images are alike, a little more light makes none odd.
    is_far = from_median > FAR * np.maximum(deviation, 1)
    indices: list[int] = np.flatnonzero(is_far.any(axis=1)).tolist()
    return indices


def _whole(images: Images) -> list[str]:
    """Sentences about the images together: too few, of one class, or arrays of another size."""
    notes = []
    if len(images) < FEW:
        notes.append(f"only {len(images)} calibration images, fewer than {FEW}")
    if len(images) > 1 and len(np.unique(images.labels)) == 1 and images.labels[0] > NO_CLASS:
        notes.append("calibration images of one class, or without classes")
    first = images.part.decode(0)
    _, height, width = images.shape
    if isinstance(first, np.ndarray) and first.shape[1:] != (height, width):
        given = "{} x {}".format(*first.shape[1:])
        notes.append(f"calibration arrays of {given}, resized and cropped to {height} x {width}")
    return notes
