"""How other libraries resize: each a matrix per axis, written here so that none of them need be installed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Weights = Callable[[int, int], Floats]


def matrix(centres: Callable[[int, int], Floats], kernel: Callable[[Floats], Floats], taps: int) -> Weights:
    """Weights (new, old) of a filter of so many ``taps``, the same however far it shrinks: no antialias.

    What lies outside the image is its border pixel again.
    """

    def weights(old: int, new: int) -> Floats:
        centre = centres(old, new)[:, None]
        # Of each new pixel (rows), the old pixels around its centre (columns), some of them outside.
        places = np.floor(centre) + np.arange(1 - taps // 2, 1 + taps // 2)
        shares = kernel(places - centre)
        rows = np.arange(new)[:, None]
        columns = np.clip(places, 0, old - 1).astype(np.int64)
        result = np.zeros((new, old))
        # Not by +=, which would count a border pixel once that several places were clipped to.
        np.add.at(result, (rows, columns), shares)
        return np.asarray(result / shares.sum(1, keepdims=True))

    return weights


def half_pixel(old: int, new: int) -> Floats:
    """Where OpenCV and torch find the centre of each new pixel."""
    return np.asarray((np.arange(new) + 0.5) * (old / new) - 0.5)


def corners(old: int, new: int) -> Floats:
    """The same with the outermost centres on each other: ``align_corners=True``."""
    return np.asarray(np.arange(new) * ((old - 1) / max(1, new - 1)))


def origin(old: int, new: int) -> Floats:
    """The same without the half pixel, as old TensorFlow has it."""
    return np.asarray(np.arange(new) * (old / new))


def linear(x: Floats) -> Floats:
    """The triangle."""
    return np.asarray(np.maximum(0, 1 - np.abs(x)))


def cubic(x: Floats) -> Floats:
    """Keys 1981 (IEEE ASSP 29:1153) with a = -0.75, as OpenCV and torch have it; Pillow takes -0.5."""
    a = -0.75
    x = np.abs(x)
    near = ((a + 2) * x - (a + 3)) * x * x + 1
    far = ((a * x - 5 * a) * x + 8 * a) * x - 4 * a
    return np.where(x <= 1, near, np.where(x < 2, far, 0))


def lanczos4(x: Floats) -> Floats:
    """Eight taps; Pillow takes six."""
    return np.asarray(np.sinc(x) * np.sinc(x / 4))


def floor(old: int, new: int) -> Floats:
    """Weights of OpenCV's INTER_NEAREST: the old pixel at the new one's corner; Pillow takes that at its centre."""
    places = np.minimum(np.arange(new) * old // new, old - 1)
    return np.eye(old)[places]


def area(old: int, new: int) -> Floats:
    """Weights of OpenCV's INTER_AREA: what each new pixel covers; enlarging, its sharpened linear filter."""
    scale = old / new
    if scale < 1:
        first = np.floor(np.arange(new) * scale)
        part = np.arange(1, new + 1) - (first + 1) / scale
        place = np.where(part <= 0, first, first + part - np.floor(part))
        return matrix(lambda *_: place, linear, 2)(old, new)
    # A new pixel reaches from ``left`` to ``right`` in the old image; an old one from its number to the next.
    left = np.arange(new)[:, None] * scale
    right = np.arange(1, new + 1)[:, None] * scale
    pixel = np.arange(old)
    overlap = np.minimum(right, pixel + 1) - np.maximum(left, pixel)
    return np.asarray(np.clip(overlap, 0, None) / scale)


@dataclass(frozen=True)
class Resize:
    """Pixels (h, w, C) resized to (width, height), rounded to 0..255."""

    weights: Weights

    def __call__(self, pixels: NDArray[np.generic], size: tuple[int, int], _: str) -> NDArray[np.generic]:
        """The resized pixels (height, width, C), whatever filter was asked for."""
        width, height = size
        down = self.weights(pixels.shape[0], height).astype(np.float32)
        across = self.weights(pixels.shape[1], width).astype(np.float32)
        rows = np.tensordot(down, pixels.astype(np.float32), (1, 0))
        # tensordot puts the new columns first.
        resized = np.tensordot(across, rows, (1, 1)).swapaxes(0, 1)
        return np.asarray(np.clip(np.rint(resized), 0, 255))


# Each under its library's name for it, where that has one.
OTHERS = {
    "bilinear without antialias (OpenCV's INTER_LINEAR)": Resize(matrix(half_pixel, linear, 2)),
    "bicubic without antialias (OpenCV's INTER_CUBIC)": Resize(matrix(half_pixel, cubic, 4)),
    "Lanczos without antialias (OpenCV's INTER_LANCZOS4)": Resize(matrix(half_pixel, lanczos4, 8)),
    "OpenCV's INTER_AREA": Resize(area),
    "nearest to the pixel's corner (OpenCV's INTER_NEAREST)": Resize(floor),
    "bilinear without antialias, corners aligned": Resize(matrix(corners, linear, 2)),
    "bilinear without antialias, half a pixel off": Resize(matrix(origin, linear, 2)),
}
