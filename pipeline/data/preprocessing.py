"""One image to the pixels that the network sees: resize, centre crop, channels. Normalisation is in the graph."""

from __future__ import annotations

import contextlib
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import ExifTags, Image

from pipeline.errors import BadRequest

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pipeline.recipe import Recipe

SIXTEEN_BITS = {"I;16", "I;16L", "I;16B"}
GREY = {"1", "L", "LA", *SIXTEEN_BITS}
NO_RANGE = {"I", "F"}  # 32-bit modes whose black and white nobody knows
MOST_PIXELS = 2**28
# What puts an image upright, by its EXIF orientation (Exif 2.32, tag 274); 1 is upright already.
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# What may be done with that orientation.
IGNORE = "ignore"
APPLY = "apply"


def orientation(image: Image.Image) -> int:
    """The EXIF orientation of ``image``, a key of TURNS; 1 where it is upright, has none, or one that is damaged."""
    stored = 1
    # A damaged block ends in any error there is, and the pixels are whole all the same.
    with contextlib.suppress(Exception):
        stored = image.getexif().get(ExifTags.Base.Orientation, 1)
    return stored if stored in TURNS else 1


@dataclass(frozen=True)
class Preprocessing:
    """The written record; sizes in pixels, ``mean`` and ``std`` per channel in 0..1 units, channel order RGB.

    ``exif`` is IGNORE or APPLY: whether an image is turned as its EXIF orientation says. Old records lack it.
    """

    input_size: int
    resize: int
    interpolation: str
    channels: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    convert: bool = False  # grey to RGB or back, only where the user asked for it
    exif: str = IGNORE

    @classmethod
    def from_json(cls, record: dict[str, Any]) -> Preprocessing:
        """The record that ``to_json`` wrote; raises TypeError where it is none."""
        values: dict[str, Any] = {}
        for name, value in record.items():
            values[name] = tuple(value) if isinstance(value, list) else value
        return cls(**values)

    def to_json(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return asdict(self)

    def adjusted(self, recipe: Recipe) -> Preprocessing:
        """The data set's own record with the user's flags over it."""
        channels = recipe.channels or self.channels
        size = recipe.input_size or self.input_size
        # Another size is cropped out of as much more as the data set's own.
        in_proportion = self.resize if recipe.input_size is None else round(size * self.resize / self.input_size)
        resize = recipe.resize or in_proportion
        if resize < size:
            raise BadRequest(
                f"--resize {resize} is smaller than the input of {size} pixels; the crop needs at least that"
            )
        return replace(
            self,
            input_size=size,
            resize=resize,
            interpolation=recipe.interpolation or self.interpolation,
            channels=channels,
            mean=_per_channel("mean", recipe.mean, self.mean, channels),
            std=_per_channel("std", recipe.std, self.std, channels),
            convert=recipe.channels is not None,
            exif=recipe.exif or self.exif,
        )

    def pixels(self, image: Image.Image, name: str) -> NDArray[np.float32]:
        """``image`` as (channels, input_size, input_size) float32 0..255; ``name`` is for the error."""
        return self.cropped(self.converted(self.turned(image), name))

    def cropped(self, image: Image.Image) -> NDArray[np.float32]:
        """The pixels of ``image`` that is turned and converted already."""
        return self._crop(self._resized(image))

    def turned(self, image: Image.Image) -> Image.Image:
        """``image`` upright, where that is asked for."""
        turn = TURNS.get(orientation(image)) if self.exif == APPLY else None
        return image if turn is None else image.transpose(turn)

    def float_pixels(self, array: NDArray[np.generic], name: str) -> NDArray[np.float32]:
        """The same for ``array`` (C, H, W) of pixels, computed in float32 so that no value is rounded or clipped.

        One of the network's own size was cropped before it was written, and is taken as it is.
        """
        pixels = array.astype(np.float32)
        if array.shape[1:] != (self.input_size, self.input_size):
            # Plane by plane, since Pillow has floats in one channel only.
            planes = [self._crop(self._resized(Image.fromarray(plane))) for plane in pixels]
            pixels = np.concatenate(planes)
        if len(pixels) == self.channels:
            return pixels
        if len(pixels) == 1 and self.convert:
            return np.repeat(pixels, self.channels, axis=0)
        raise BadRequest(
            f"{name} has {len(pixels)} channels and the network {self.channels}; "
            f"give images with {self.channels}, or ask for --channels {len(pixels)}"
        )

    def converted(self, image: Image.Image, name: str) -> Image.Image:
        """``image`` with 8 bits per pixel in the network's channels, L or RGB; ``name`` is for the error."""
        if image.mode in NO_RANGE:
            raise BadRequest(f"{name} has 32 bits per pixel, whose range is unknown; save it with 8 or 16 bits")
        if image.mode in SIXTEEN_BITS:
            # 65535 is 257 times 255.
            image = Image.fromarray(np.rint(np.asarray(image) / 257).astype(np.uint8))
        image_channels = 1 if image.mode in GREY else 3
        if image_channels != self.channels and not self.convert:
            kind = "grey" if image_channels == 1 else "in colour"
            raise BadRequest(
                f"{name} is {kind} and the network takes {self.channels} channels; "
                f"ask for --channels {self.channels} to convert such images"
            )
        return image.convert("L" if self.channels == 1 else "RGB")

    def scaled(self, width: int, height: int) -> tuple[int, int]:
        """Width and height after the resize, as torchvision's Resize(int) has them.

        The shorter side becomes ``resize``, the longer one is cut to whole pixels.
        """
        shorter = min(width, height)
        longer = max(width, height)
        scaled_longer = max(self.resize, int(self.resize * longer / shorter))
        if width <= height:
            return self.resize, scaled_longer
        return scaled_longer, self.resize

    def corner(self, width: int, height: int) -> tuple[int, int]:
        """The first column and row of the centre crop; halves go to the even number."""
        left = round((width - self.input_size) / 2)
        top = round((height - self.input_size) / 2)
        return left, top

    def _resized(self, image: Image.Image) -> Image.Image:
        size = self.scaled(*image.size)
        if size[0] * size[1] > MOST_PIXELS:
            width, height = image.size
            raise BadRequest(f"an image of {width}x{height} would become {size[0]}x{size[1]}; crop or remove it")
        if size == image.size:
            return image
        return image.resize(size, Image.Resampling[self.interpolation.upper()])

    def _crop(self, image: Image.Image) -> NDArray[np.float32]:
        left, top = self.corner(*image.size)
        side = self.input_size
        cropped = np.asarray(image.crop((left, top, left + side, top + side)), np.float32)
        rows_columns_channels = cropped.reshape(side, side, -1)  # Pillow leaves the axis of one channel out
        return np.ascontiguousarray(rows_columns_channels.transpose(2, 0, 1))


def _per_channel(name: str, asked: list[float] | None, default: tuple[float, ...], channels: int) -> tuple[float, ...]:
    """One value per channel: the user's, or those of the data set."""
    if asked is None:
        if len(default) == channels:
            return default
        # Colour seen in grey, or grey in colour.
        return (sum(default) / len(default),) * channels
    if len(asked) == channels:
        return tuple(asked)
    if len(asked) == 1:
        return (asked[0],) * channels
    raise BadRequest(f"--{name} has {len(asked)} values for a network of {channels} channel(s); give one per channel")
