"""Pictures that a camera might take, in files as cameras and programs write them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from PIL import ExifTags, Image
from sklearn.datasets import load_sample_images

if TYPE_CHECKING:
    from pathlib import Path

PHOTOS = tuple(Image.fromarray(photo) for photo in load_sample_images().images)


def crops(count: int, side: int, seed: int = 0) -> list[Image.Image]:
    """So many pieces of two photographs, of which no two are nearly the same."""
    rng = np.random.default_rng(seed)
    found = []
    for number in range(count):
        photo = PHOTOS[number % len(PHOTOS)]
        # Each in a column of its own.
        left = (number // len(PHOTOS)) * (photo.width - 200) // max(1, count // len(PHOTOS))
        size = int(rng.integers(120, 200))
        top = int(rng.integers(0, photo.height - size))
        found.append(photo.crop((left, top, left + size, top + size)).resize((side, side), Image.Resampling.BILINEAR))
    return found


def with_turn(image: Image.Image, orientation: int) -> Image.Exif:
    """EXIF that says that of ``image``."""
    exif = image.getexif()
    exif[ExifTags.Base.Orientation] = orientation
    return exif


def data_set(root: Path, train: int = 4, test: int = 6, side: int = 64) -> Path:
    """A folder of two classes with so many images of each, all of them different PNG files."""
    pictures = iter(crops(2 * (train + test), side))
    for part, count in (("train", train), ("val", test)):
        for label in ("cat", "dog"):
            place = root / part / label
            place.mkdir(parents=True)
            for number in range(count):
                next(pictures).save(place / f"{number}.png")
    return root
