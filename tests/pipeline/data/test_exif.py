"""Photos that their EXIF says to be turned: what is done is asked for, recorded, and right in all eight ways."""

from __future__ import annotations

import io
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
from pictures import data_set, with_turn
from PIL import ExifTags, Image, ImageOps

from pipeline.data import folder, oddities, sampling
from pipeline.data.images import Images
from pipeline.data.preprocessing import Preprocessing, orientation
from pipeline.recipe import Recipe

if TYPE_CHECKING:
    from pathlib import Path

PLAIN = Preprocessing(8, 8, "bilinear", 1, (0.5,), (0.5,))
TURNED = replace(PLAIN, exif="apply")
# Where the first row and the first column of what is stored belong (Exif 2.32, tag 274), as numpy says it.
UPRIGHT = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.T,
    6: lambda a: a.T[:, ::-1],
    7: lambda a: a[::-1, ::-1].T,
    8: lambda a: a.T[::-1],
}
# Formats with EXIF, and how each keeps pixels best.
KINDS = {"PNG": {}, "JPEG": {"quality": 100}, "WEBP": {"lossless": True}}


def stored(content: np.ndarray, turn: int, kind: str, **options: object) -> Image.Image:
    """``content`` out of a file of that ``kind`` which says to be turned."""
    image = Image.fromarray(content)
    file = io.BytesIO()
    image.save(file, kind, exif=with_turn(image, turn), **options)
    return Image.open(file)


@pytest.mark.parametrize("turn", UPRIGHT)
@pytest.mark.parametrize("kind", KINDS)
def test_all_eight_orientations(turn: int, kind: str) -> None:
    # In blocks, so that JPEG keeps them.
    pattern = np.kron(np.random.default_rng(0).integers(0, 256, (8, 8)), np.ones((8, 8))).astype(np.uint8)
    record = replace(TURNED, input_size=64, resize=64, convert=True)  # WebP has colour alone
    image = stored(pattern, turn, kind, **KINDS[kind])
    assert orientation(image) == turn
    upright = record.pixels(image, "")[0]
    assert np.abs(upright - UPRIGHT[turn](pattern.astype(float))).max() <= 3
    np.testing.assert_array_equal(upright, np.asarray(ImageOps.exif_transpose(image).convert("L")))
    as_stored = replace(record, exif="ignore").pixels(image, "")[0]
    assert np.abs(as_stored - pattern.astype(float)).max() <= 3


def test_a_turn_comes_before_the_resize_and_the_crop() -> None:
    content = np.random.default_rng(0).integers(0, 256, (11, 30), np.uint8)
    record = replace(TURNED, resize=9)
    upright = Image.fromarray(np.ascontiguousarray(UPRIGHT[6](content)))
    np.testing.assert_array_equal(record.pixels(stored(content, 6, "PNG"), ""), record.pixels(upright, ""))


def test_a_record_without_the_key_ignores_turns() -> None:
    old = PLAIN.to_json()
    del old["exif"]
    assert Preprocessing.from_json(old) == PLAIN
    assert Preprocessing.from_json(TURNED.to_json()) == TURNED
    assert PLAIN.adjusted(Recipe(arch="resnet_tiny", exif="apply")) == TURNED
    assert TURNED.adjusted(Recipe(arch="resnet_tiny")) == TURNED
    assert TURNED.adjusted(Recipe(arch="resnet_tiny", exif="ignore")) == PLAIN


def damaged(kind: str, exif: bytes) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (8, 8), np.uint8)).save(file, kind, exif=exif)
    return file.getvalue()


WHOLE = b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0"


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
@pytest.mark.parametrize("record", [PLAIN, TURNED], ids=["ignore", "apply"])
def test_a_damaged_exif_block_stops_nothing(tmp_path: Path, kind: str, record: Preprocessing) -> None:
    rng = np.random.default_rng(0)
    blocks = [b"", b"Exif\0\0", b"Exif\0\0MM", b"Exif\0\0XX*\0\x08\0\0\0", WHOLE[:20], WHOLE.replace(b"\x06", b"\x63")]
    for _ in range(60):
        mutant = bytearray(WHOLE)
        for place in rng.integers(6, len(WHOLE), 3):
            mutant[place] = rng.integers(0, 256)
        blocks.append(bytes(mutant))
    for number, block in enumerate(blocks):
        path = tmp_path / f"{number}.{kind.lower()}"
        path.write_bytes(damaged(kind, block))
        part = sampling.part(tmp_path, "--images")
        image = part.decode(0)
        assert record.pixels(image, "").shape == (1, 8, 8)
        assert orientation(image) in range(1, 9)
        path.unlink()


def test_an_orientation_that_there_is_not_is_none() -> None:
    assert orientation(stored(np.zeros((8, 8), np.uint8), 9, "PNG")) == 1
    assert orientation(Image.new("L", (8, 8))) == 1


def test_turned_photos_are_counted_and_what_others_do_is_said(tmp_path: Path) -> None:
    root = data_set(tmp_path / "set")
    for path in [*(root / "val/dog").iterdir(), root / "train/cat/0.png"]:
        with Image.open(path) as image:
            image.save(path, exif=with_turn(image, 6))
    # Upright by its EXIF, and no turn.
    with Image.open(root / "val/cat/0.png") as image:
        image.save(root / "val/cat/0.png", exif=with_turn(image, 1))

    data = folder.read(root)
    record = Preprocessing(32, 36, "bilinear", 3, (0.5,) * 3, (0.5,) * 3)
    for exif, done in (("ignore", "--exif apply would turn them"), ("apply", "turned here, by --exif apply")):
        preprocessing = replace(record, exif=exif)
        found = oddities.of_images(data.train, Images(data.test, preprocessing), Images(data.train, preprocessing))
        (sentence,) = found
        assert sentence.startswith("6 of 12 test images and 1 of 8 calibration images carry an EXIF turn, such as ")
        assert done in sentence
        assert "ImageFolder (Pillow) ignores it, OpenCV's imread turns" in sentence


def test_pillow_turns_tiff_by_itself_so_that_nothing_is_left_to_do(tmp_path: Path) -> None:
    content = np.random.default_rng(0).integers(0, 256, (8, 8), np.uint8)
    image = Image.fromarray(content)
    image.save(tmp_path / "0.tif", exif=with_turn(image, 6))
    decoded = sampling.part(tmp_path, "--images").decode(0)
    assert ExifTags.Base.Orientation not in decoded.getexif()
    for record in (PLAIN, TURNED):
        np.testing.assert_array_equal(record.pixels(decoded, "")[0], UPRIGHT[6](content))
