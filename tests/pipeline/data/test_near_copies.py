"""Which pictures look alike: copies in other bytes do, honest ones do not, and many are compared in little time."""

from __future__ import annotations

import io
import time
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import pytest
from pictures import crops
from PIL import Image, ImageEnhance

from pipeline.data import fashion_mnist, near_copies
from pipeline.data.near_copies import Looks

if TYPE_CHECKING:
    from collections.abc import Callable


def looks(pictures: list[Image.Image], channels: int = 3) -> Looks:
    found = Looks.empty(len(pictures), channels)
    for index, picture in enumerate(pictures):
        found.add(index, picture)
    return found


def pairs(pictures: list[Image.Image], channels: int = 3) -> set[tuple[int, int]]:
    everyone = np.ones(len(pictures), np.bool_)
    return {(int(one), int(other)) for one, other in looks(pictures, channels).pairs(everyone)}


def jpeg(picture: Image.Image, quality: int) -> Image.Image:
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=quality)
    return Image.open(file).convert("RGB")


def smaller(picture: Image.Image) -> Image.Image:
    return picture.resize((picture.width * 3 // 4, picture.height * 3 // 4))


def brighter(picture: Image.Image) -> Image.Image:
    return ImageEnhance.Brightness(picture).enhance(1.1)


def noisy(picture: Image.Image) -> Image.Image:
    pixels = np.asarray(picture) + np.random.default_rng(0).normal(0, 3, (picture.height, picture.width, 3))
    return Image.fromarray(np.clip(np.rint(pixels), 0, 255).astype(np.uint8))


WAYS = {"JPEG of 90": partial(jpeg, quality=90), "JPEG of 70": partial(jpeg, quality=70), "smaller": smaller,
        "brighter": brighter, "noisy": noisy}  # fmt: skip


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
@pytest.mark.parametrize("side", [64, 224])
def test_most_copies_in_other_bytes_are_found(way: Callable[[Image.Image], Image.Image], side: int) -> None:
    pictures = crops(60, side)
    found = pairs([*pictures, *map(way, pictures)])
    copies = {(index, index + 60) for index in range(60)}
    assert found <= copies
    assert len(found) >= 54


def test_a_group_of_near_copies_is_found_whole() -> None:
    (picture,) = crops(1, 96)
    found = pairs([jpeg(picture, quality) for quality in range(50, 98)])
    assert {later for _, later in found} == set(range(1, 48))


def blobs(count: int) -> list[Image.Image]:
    rng = np.random.default_rng(0)
    grids = rng.integers(0, 256, (count, 6, 6, 3), np.uint8)
    return [Image.fromarray(grid).resize((96, 96), Image.Resampling.BICUBIC) for grid in grids]


def test_blurred_pictures_have_near_copies_too() -> None:
    pictures = blobs(50)
    assert pairs([*pictures, *(jpeg(picture, 85) for picture in pictures)]) == {(i, i + 50) for i in range(50)}


def noise(count: int) -> list[Image.Image]:
    rng = np.random.default_rng(0)
    return [Image.fromarray(rng.integers(0, 256, (64, 64, 3), np.uint8)) for _ in range(count)]


def flat(count: int) -> list[Image.Image]:
    return [Image.new("RGB", (64, 64), (index % 256, index // 256 * 40, 90)) for index in range(count)]


def dark(count: int) -> list[Image.Image]:
    rng = np.random.default_rng(0)
    return [Image.fromarray(rng.integers(0, 6, (64, 64, 3), np.uint8)) for _ in range(count)]


def one_pattern_in_noise(count: int) -> list[Image.Image]:
    rng = np.random.default_rng(0)
    stripes = 127 + 60 * np.sign(np.sin(np.arange(64) * 0.3))[None, :, None]
    return [
        Image.fromarray(np.clip(stripes + rng.normal(0, 12, (64, 64, 3)), 0, 255).astype(np.uint8))
        for _ in range(count)
    ]


def lights(count: int) -> list[Image.Image]:
    """The same traffic light in red and blue, alike in grey."""
    y, x = np.mgrid[:64, :64]
    pixels = np.full((64, 64, 3), 40, np.uint8)
    pictures = []
    for index in range(count):
        pixels[(x - 32) ** 2 + (y - 32) ** 2 < 300] = ((230, 40, 40), (40, 106, 200))[index % 2]
        pictures.append(Image.fromarray(pixels))
    return pictures


HONEST = {"noise": noise, "flat": flat, "dark": dark, "blobs": blobs, "one pattern in noise": one_pattern_in_noise}


@pytest.mark.parametrize("made", HONEST.values(), ids=HONEST)
def test_honest_pictures_are_not_alike(made: Callable[[int], list[Image.Image]]) -> None:
    assert pairs(made(300)) == set()


def test_what_is_alike_in_grey_may_be_of_other_colours() -> None:
    red, blue = lights(2)
    assert np.abs(np.asarray(red.convert("L"), int) - np.asarray(blue.convert("L"), int)).max() <= 3
    assert pairs([red, blue]) == set()


@pytest.mark.parametrize("side", [48, 224])
def test_enlarged_clothes_are_told_apart(side: int) -> None:
    """Of the first 2,000 test images none is a near copy; of all 10,000 two pairs are one piece in two shades."""
    test = fashion_mnist.read(None).test
    pictures = [test.decode(index).resize((side, side), Image.Resampling.BILINEAR) for index in range(2000)]
    assert pairs(pictures, channels=1) == set()


def test_only_those_that_are_asked_for_are_compared() -> None:
    (picture,) = crops(1, 64)
    found = looks([picture, picture, jpeg(picture, 80)])
    assert found.pairs(np.array([True, False, True])).tolist() == [[0, 2]]
    assert found.pairs(np.zeros(3, np.bool_)).shape == (0, 2)


def test_fifty_thousand_are_compared_in_seconds_and_little_memory() -> None:
    count = 50_000
    rng = np.random.default_rng(0)
    many = Looks.empty(count, 3)
    many.bits[:] = rng.integers(0, 2**64, many.bits.shape, np.uint64)
    # A fifth of them is one picture: a group that pairs would be quadratic in.
    many.bits[::5] = many.bits[0]
    many.mosaic[:] = rng.integers(-64, 64, many.mosaic.shape, np.int8)
    many.mosaic[::5] = many.mosaic[0]
    many.known[:] = True
    started = time.process_time()
    found = many.pairs(many.known)
    assert time.process_time() - started < 40
    assert len(np.unique(found[:, 1])) == count // 5 - 1
    assert len(found) < 16 * near_copies.NEIGHBOURS * count // 5
    assert many.mosaic.nbytes + many.bits.nbytes < 50e6
