"""Pictures in which every fault of a loader shows, whatever the data set is; the same on every machine."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from PIL import ExifTags, Image

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    from pipeline.data.preprocessing import Preprocessing

    Plane = NDArray[np.int64]

# The shorter side of what is drawn is at most this, so that the files stay small.
MOST = 801
# EXIF of an image whose first row is the right side of what it shows: a telephone held upright.
TURNED = 6


def rings(x: Plane, y: Plane, channel: int) -> Plane:
    """Quadratic waves, finer and finer to the right and below: what is resized without antialias shows false rings."""
    return (x * x + (2 + channel) * y * y + 50 * x * channel) // 24 % 256


def steps(x: Plane, y: Plane, channel: int) -> Plane:
    """Hard edges of odd periods, another one in each channel and direction."""
    return ((x // (3 + channel) + y // 5) % 2) * (160 + 40 * channel) + x * (channel + 1) % 16


def patches(x: Plane, y: Plane, channel: int) -> Plane:
    """Patches of a few pixels that no mirror or turn brings onto themselves."""
    return (x // 7 * 89 + y // 7 * 151 + channel * 67 + (x // 7) * (y // 7) * 29) % 256


def draw(record: Preprocessing) -> Iterator[tuple[str, Image.Image]]:
    """Name and picture: wide and tall ones to be shrunk, whose crops fall between two pixels, and one to be enlarged.

    Of that one there is another that its EXIF says to be turned. In colour where ``record`` takes colour or converts
    from it, else grey.
    """
    colour = record.channels == 3 or record.convert
    shorter = min(2 * record.resize + 1, MOST)
    small = min(max(1, record.resize * 5 // 8), MOST)
    pictures = (
        ("chart-wide.png", rings, _longer(record, shorter, 3), shorter),
        ("chart-tall.png", steps, shorter, _longer(record, shorter, 1)),
        ("chart-small.png", patches, small + 3, small),
        ("chart-turned.png", patches, small + 3, small),
    )
    for name, pattern, width, height in pictures:
        picture = Image.fromarray(_drawn(pattern, width, height, colour=colour))
        if name == "chart-turned.png":
            picture.getexif()[ExifTags.Base.Orientation] = TURNED
        yield name, picture


def _longer(record: Preprocessing, shorter: int, remainder: int) -> int:
    """The longer side: the resize has a part of a pixel to cut, and half the crop's margin ends in one half.

    With ``remainder`` 3 that part would be rounded up and the half goes up to the even number, with 1 both go down:
    so whoever rounds otherwise shows in one of the two.
    """
    least, most = (0.6, 1.0) if remainder == 3 else (0.1, 0.4)
    shortest = shorter * 3 // 2
    for longer in range(shortest, shorter * 3):
        scaled = record.resize * longer / shorter
        # Of a remainder by 4 that is odd, half is a number and a half: 1 / 2 goes down to 0 and 3 / 2 up to 2.
        margin = int(scaled) - record.input_size
        if margin % 4 == remainder and least <= scaled % 1 < most:
            return longer
    return shortest


def _drawn(
    pattern: Callable[[Plane, Plane, int], Plane], width: int, height: int, *, colour: bool
) -> NDArray[np.uint8]:
    """Pixels (height, width, 3) of ``pattern``, or (height, width) where it is not to be in ``colour``."""
    y, x = np.mgrid[:height, :width].astype(np.int64)
    if not colour:
        return pattern(x, y, 0).astype(np.uint8)
    planes = [pattern(x, y, channel) for channel in range(3)]
    return np.stack(planes, -1).astype(np.uint8)
