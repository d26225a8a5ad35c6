"""How many copies in other bytes are found, and how many honest images are taken for copies.

The figures of docs/own-data.md: ``python -m benchmarks.near_copies``. The photographs are those of scikit-learn.
"""

from __future__ import annotations

import io
import time
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageEnhance

from pipeline.data import digits, fashion_mnist, near_copies
from pipeline.data.near_copies import Looks

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

CROPS = 400
SIDES = (48, 64, 96, 128, 224)
SHRUNK = (6, 8, 12, 16, 28)


def photographs(side: int) -> list[Image.Image]:
    """Crops of two photographs, resized to ``side``."""
    from sklearn.datasets import load_sample_images

    photos = [Image.fromarray(photo) for photo in load_sample_images().images]
    rng = np.random.default_rng(0)
    pieces = []
    for number in range(CROPS):
        photo = photos[number % len(photos)]
        size = int(rng.integers(max(side, 100), 300))
        left = int(rng.integers(0, photo.width - size))
        top = int(rng.integers(0, photo.height - size))
        piece = photo.crop((left, top, left + size, top + size))
        pieces.append(piece.resize((side, side), Image.Resampling.BILINEAR))
    return pieces


def saved(picture: Image.Image, quality: int) -> Image.Image:
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=quality)
    return Image.open(file).convert("RGB")


def halved(picture: Image.Image) -> Image.Image:
    return picture.resize((picture.width // 2, picture.height // 2)).resize(picture.size)


def brighter(picture: Image.Image) -> Image.Image:
    return ImageEnhance.Brightness(picture).enhance(1.2)


def cropped(picture: Image.Image) -> Image.Image:
    return picture.crop((1, 1, picture.width - 1, picture.height - 1)).resize(picture.size)


WAYS: dict[str, Callable[[Image.Image], Image.Image]] = {
    "JPEG 75": partial(saved, quality=75),
    "JPEG 30": partial(saved, quality=30),
    "half the size": halved,
    "brightness x 1.2": brighter,
    "a pixel cut off": cropped,
}


def pairs(pictures: Sequence[Image.Image], channels: int) -> tuple[NDArray[np.int64], Looks]:
    looks = Looks.empty(len(pictures), channels)
    for index, picture in enumerate(pictures):
        looks.add(index, picture)
    return looks.pairs(looks.known), looks


def copies() -> None:
    for side in SIDES:
        pieces = photographs(side)
        for name, way in WAYS.items():
            found, looks = pairs([*pieces, *map(way, pieces)], 3)
            hits = int((found[:, 1] - found[:, 0] == CROPS).sum())
            known = int(looks.known[:CROPS].sum())
            print(f"{side:4} px, {name:18} {100 * hits / known:6.1f} % of {known}, {len(found) - hits} other pairs")


def honest(name: str, pictures: Sequence[Image.Image]) -> None:
    started = time.process_time()
    found, _ = pairs(pictures, 1)
    seconds = time.process_time() - started
    images = len(np.unique(found[:, 1]))
    print(f"{name}: {images} of {len(pictures)} images have a near copy before them, {seconds:.0f} s")


def main() -> None:
    near_copies.LEAST_SIDE = 1
    copies()
    sets = {"digits": digits.read().test, "Fashion-MNIST": fashion_mnist.read(None).test}
    for name, part in sets.items():
        pictures = [part.decode(index) for index in range(len(part))]
        for side in SHRUNK:
            honest(f"{name} at {side} px", [image.resize((side, side), Image.Resampling.BOX) for image in pictures])
    train = fashion_mnist.read(None).train
    honest("Fashion-MNIST, training images", [train.decode(index) for index in range(len(train))])


if __name__ == "__main__":
    main()
