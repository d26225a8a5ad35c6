"""What loaders get wrong: one row per fault, six tables for what can be wrong at the same time.

A row of RESIZE, FRAME or TURN is another step of Loader, which makes the pixels (C, H, W) that a loader with that fault
makes of an image. A row of the others says how to get back from what the loader answered, so that every difference is
counted in levels of 0..255.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from pipeline.data.preprocessing import APPLY, GREY, IGNORE, Preprocessing
from pipeline.data.resizing import OTHERS

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    Pixels = NDArray[np.float32]
    Size = tuple[int, int]


def _pillow(pixels: NDArray[np.generic], size: Size, name: str) -> NDArray[np.generic]:
    """Pixels (h, w, C) uint8 resized to ``size`` (width, height) with Pillow's filter ``name``."""
    plain = pixels[..., 0] if pixels.shape[2] == 1 else pixels  # Pillow has no axis for one channel
    resized = np.asarray(Image.fromarray(plain).resize(size, Image.Resampling[name.upper()]))
    return resized.reshape(*resized.shape[:2], -1)


def _in_float(pixels: NDArray[np.generic], size: Size, name: str, most: float = 255) -> NDArray[np.generic]:
    """The same in float32, clipped only at the end, to 255 - ``most`` .. ``most``."""
    planes = []
    for plane in pixels.transpose(2, 0, 1):
        image = Image.fromarray(plane.astype(np.float32))
        planes.append(np.asarray(image.resize(size, Image.Resampling[name.upper()])))
    return np.asarray(np.clip(np.stack(planes, -1), 255 - most, most))


@dataclass(frozen=True)
class Loader:
    """The contract step by step; a fault is another step in the place of one of them."""

    turned: Callable[[Preprocessing, Image.Image], Image.Image] = Preprocessing.turned
    converted: Callable[[Preprocessing, Image.Image], Image.Image] = lambda record, image: record.converted(image, "")
    scaled: Callable[[Preprocessing, int, int], Size] = Preprocessing.scaled
    resized: Callable[[NDArray[np.generic], Size, str], NDArray[np.generic]] = _pillow
    corner: Callable[[Preprocessing, int, int], Size] = Preprocessing.corner
    margin: int = 0  # the level around an image that is smaller than the crop

    def __call__(self, record: Preprocessing, image: Image.Image) -> Pixels:
        """The pixels (C, H, W) of ``image``."""
        pixels: NDArray[np.generic] = np.atleast_3d(np.asarray(self.converted(record, self.turned(record, image))))
        height, width = pixels.shape[:2]
        size = self.scaled(record, width, height)
        if size != (width, height):
            pixels = self.resized(pixels, size, record.interpolation)

        left, top = self.corner(record, *size)
        side = record.input_size
        # Wide enough for a crop that begins one pixel outside, or that finds nothing to cut.
        padded = np.pad(pixels, [(side, side), (side, side), (0, 0)], constant_values=self.margin)
        cropped = padded[top + side : top + 2 * side, left + side : left + 2 * side]
        return np.ascontiguousarray(cropped.transpose(2, 0, 1), np.float32)


def _longer(rounded: Callable[[float], int]) -> Callable[[Preprocessing, int, int], Size]:
    """The resize of the contract, whose longer side comes from ``rounded``; the shorter one is whole by itself."""

    def scaled(record: Preprocessing, width: int, height: int) -> Size:
        shorter = min(width, height)
        return rounded(record.resize * width / shorter), rounded(record.resize * height / shorter)

    return scaled


def _straight(record: Preprocessing, width: int, height: int) -> Size:
    return replace(record, resize=record.input_size).scaled(width, height)


def _letterboxed(record: Preprocessing, width: int, height: int) -> Size:
    longer = max(width, height)
    # A very long image would vanish.
    return max(1, round(record.input_size * width / longer)), max(1, round(record.input_size * height / longer))


def _moved(right: int, down: int) -> Callable[[Preprocessing, int, int], Size]:
    def corner(record: Preprocessing, width: int, height: int) -> Size:
        left, top = record.corner(width, height)
        return left + right, top + down

    return corner


def _halves(rounded: Callable[[float], int]) -> Callable[[Preprocessing, int, int], Size]:
    def corner(record: Preprocessing, width: int, height: int) -> Size:
        return rounded((width - record.input_size) / 2), rounded((height - record.input_size) / 2)

    return corner


def _square(record: Preprocessing, image: Image.Image) -> Image.Image:
    side = min(image.size)
    left = (image.width - side) // 2
    top = (image.height - side) // 2
    return record.converted(image.crop((left, top, left + side, top + side)), "")


def _grey(*weights: float) -> Callable[[Preprocessing, Image.Image], Image.Image]:
    """The conversion from colour with other ``weights`` of red, green and blue."""

    def converted(record: Preprocessing, image: Image.Image) -> Image.Image:
        if record.channels != 1 or image.mode in GREY:
            return record.converted(image, "")
        weighted = np.asarray(image.convert("RGB")) @ np.array(weights)
        return Image.fromarray(np.rint(weighted).astype(np.uint8))

    return converted


def _turned(record: Preprocessing, image: Image.Image) -> Image.Image:
    return replace(record, exif=APPLY).turned(image)


def _input_size(record: Preprocessing, *_: int) -> Size:
    return record.input_size, record.input_size


# By columns and rows.
WAYS = {(0, -1): "up", (0, 1): "down", (-1, 0): "left", (1, 0): "right"}
DIAGONALS = {
    (-1, -1): "up and one left",
    (-1, 1): "down and one left",
    (1, -1): "up and one right",
    (1, 1): "down and one right",
}
PILLOW = ("nearest", "box", "bilinear", "hamming", "bicubic", "lanczos")


def _other(name: str) -> Callable[[NDArray[np.generic], Size, str], NDArray[np.generic]]:
    return lambda pixels, size, _: _pillow(pixels, size, name)


CONTRACT = Loader()
RESIZE: dict[str, Callable[[NDArray[np.generic], Size, str], NDArray[np.generic]]] = {
    **{f"resized with Pillow's {name}": _other(name) for name in PILLOW},
    **{f"resized with {name}": way for name, way in OTHERS.items()},
    "resized in floats, not clipped to 0..255 between the horizontal and the vertical pass": _in_float,
    "resized in floats and not clipped to 0..255": partial(_in_float, most=np.inf),
}
# The steps of Loader in whose place the fault puts another.
FRAME: dict[str, dict[str, Any]] = {
    **{f"crop one pixel too far {way}": {"corner": _moved(*by)} for by, way in (WAYS | DIAGONALS).items()},
    "crop's halves of a pixel rounded down": {"corner": _halves(math.floor)},
    "crop's halves of a pixel rounded up": {"corner": _halves(math.ceil)},
    "crop from the upper left corner, not the centre": {"corner": lambda *_: (0, 0)},
    "no crop margin: shorter side resized straight to the input size": {"scaled": _straight},
    "no crop: squashed to the input size, whatever the aspect": {"scaled": _input_size},
    "squashed to a square before the crop": {"scaled": lambda record, *_: (record.resize, record.resize)},
    "centre square cut out before the resize, no crop margin": {"converted": _square, "scaled": _input_size},
    "letterboxed in black": {"scaled": _letterboxed},
    "letterboxed in grey 114": {"scaled": _letterboxed, "margin": 114},
    "longer side rounded to the nearest pixel, not down": {"scaled": _longer(round)},
    "longer side rounded up, not down": {"scaled": _longer(math.ceil)},
    "grey by plain average": {"converted": _grey(1 / 3, 1 / 3, 1 / 3)},
    "grey with the weights of red and blue swapped": {"converted": _grey(0.114, 0.587, 0.299)},
    "grey with the weights of BT.709": {"converted": _grey(0.2126, 0.7152, 0.0722)},
}

# What a loader gets wrong under a contract that ignores EXIF orientations or applies them.
TURN: dict[str, dict[str, dict[str, Any]]] = {
    IGNORE: {"turned by its EXIF orientation, which the contract ignores": {"turned": _turned}},
    APPLY: {"EXIF orientation ignored": {"turned": lambda _, image: image}},
}

HWC = "layout HWC instead of CHW"
# How to turn back what a fault of the layout made.
LAYOUT: dict[str, Callable[[Pixels], Pixels]] = {
    "mirrored left to right": lambda a: a[:, :, ::-1],
    "upside down": lambda a: a[:, ::-1],
    "turned by 180 degrees": lambda a: a[:, ::-1, ::-1],
    "turned by 90 degrees to the left": lambda a: np.rot90(a, -1, (1, 2)),
    "turned by 90 degrees to the right": lambda a: np.rot90(a, 1, (1, 2)),
    "rows and columns swapped": lambda a: a.transpose(0, 2, 1),
    HWC: lambda a: a.reshape(*a.shape[1:], len(a)).transpose(2, 0, 1),
}

# (scale, offset) of what a fault makes of a pixel; mean and std are (C, 1, 1) in 0..1 units.
VALUES: dict[str, Callable[[Any, Any], tuple[Any, Any]]] = {
    "pixels 0..1 instead of 0..255": lambda *_: (1 / 255, 0),
    "mean and std already applied, and the graph does it again": lambda m, s: (1 / (255 * s), -m / s),
    "mean and std already applied, and swapped": lambda m, s: (1 / (255 * m), -s / m),
    "mean already subtracted, pixels 0..255": lambda m, _: (1, -255 * m),
    "mean already subtracted, pixels 0..1": lambda m, _: (1 / 255, -m),
    "already divided by std, pixels 0..255": lambda _, s: (1 / s, 0),
    "already divided by std, pixels 0..1": lambda _, s: (1 / (255 * s), 0),
    "mean and std in 0..1 units already applied to pixels 0..255": lambda m, s: (1 / s, -m / s),
    "mean and one std for all channels already applied": lambda m, s: (1 / (255 * s.mean()), -m / s.mean()),
    "mean and std already applied in the order BGR": lambda m, s: (1 / (255 * s[::-1]), -m[::-1] / s[::-1]),
    "ImageNet's mean and std already applied": lambda m, _: _imagenet(len(m)),
    "pixels -1..1 instead of 0..255": lambda *_: (1 / 127.5, -1),
    "pixels -128..127 instead of 0..255": lambda *_: (1, -128),
    "pixels 0..65535 instead of 0..255": lambda *_: (257, 0),
    "video range 16..235 instead of 0..255": lambda *_: (219 / 255, 16),
    "inverted, black for white": lambda *_: (-1, 255),
}

# How to turn back what a fault of the channels made.
CHANNELS: dict[str, Callable[[Pixels], Pixels]] = {"channels in the order BGR instead of RGB": lambda a: a[::-1]}


def _imagenet(channels: int) -> tuple[Any, Any]:
    from pipeline.data.folder import IMAGENET

    mean = np.array(IMAGENET[0]).reshape(-1, 1, 1)[:channels]
    std = np.array(IMAGENET[1]).reshape(-1, 1, 1)[:channels]
    return 1 / (255 * std), -mean / std
