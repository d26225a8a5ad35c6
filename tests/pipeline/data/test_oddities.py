"""Copies, contradicting labels, overlap and 16 bits: each is counted where it is, and is not said where it is not."""

from __future__ import annotations

import shutil
import struct
import zlib
from typing import TYPE_CHECKING

import numpy as np
import pytest
from pictures import crops, data_set
from PIL import Image

from pipeline.data import digits, folder, oddities, overlap, sampling, seeing
from pipeline.data.array_file import from_array
from pipeline.data.images import Images
from pipeline.data.part import Part, joined, part_of
from pipeline.data.preprocessing import Preprocessing
from pipeline.data.seeing import NOT_16

if TYPE_CHECKING:
    from pathlib import Path

SMALL = Preprocessing(32, 36, "bilinear", 3, (0.5,) * 3, (0.5,) * 3)
GREY = Preprocessing(32, 32, "bilinear", 1, (0.5,), (0.5,))


def found(root: Path, record: Preprocessing = SMALL) -> list[str]:
    data = folder.read(root)
    test = Images(data.test, record, looked_at=True)
    return oddities.of_images(data.train, test, Images(data.calibration, record))


def test_nothing_is_said_of_an_honest_set(tmp_path: Path) -> None:
    assert found(data_set(tmp_path / "set")) == []


def test_nothing_is_said_of_the_digits() -> None:
    data = digits.read()
    record = data.preprocessing
    test = Images(data.test, record, looked_at=True)
    assert not oddities.of_images(data.train, test, Images(data.calibration, record))


def test_an_earlier_image_of_the_same_pixels_makes_a_copy(tmp_path: Path) -> None:
    """Whatever the file is: the same picture as PNG and BMP."""
    root = data_set(tmp_path / "set")
    cats = root / "val/cat"
    shutil.copy(cats / "0.png", cats / "copy.png")
    Image.open(cats / "1.png").save(cats / "other.bmp")
    test = Images(folder.read(root).test, SMALL)
    names = [test.part.name(index) for index in np.flatnonzero(~test.distinct)]
    assert names == [str(cats / "copy.png"), str(cats / "other.bmp")]
    assert test.distinct.sum() == 12
    (sentence,) = found(root)
    assert sentence.startswith("2 of 14 test images have the pixels of an earlier one, as the network sees them")
    assert (
        f"{cats / 'copy.png'} ({cats / '0.png'}), {cats / 'other.bmp'} ({cats / '1.png'}); 12 are distinct" in sentence
    )


def test_what_the_network_does_not_see_makes_no_other_image(tmp_path: Path) -> None:
    """Outside the crop one pixel differs."""
    root = data_set(tmp_path / "set", side=40)
    pixels = np.asarray(Image.open(root / "val/cat/0.png")).copy()
    pixels[0, 0] = 255 - pixels[0, 0]
    Image.fromarray(pixels).save(root / "val/cat/corner.png")
    record = Preprocessing(32, 40, "bilinear", 3, (0.5,) * 3, (0.5,) * 3)
    assert Images(folder.read(root).test, record).distinct.sum() == 12


def test_the_digest_is_that_of_every_pixel_and_label() -> None:
    """As it always was, so that the images of an old build are known again."""
    array = np.arange(5 * 32 * 32, dtype=np.uint32).reshape(5, 32, 32).astype(np.uint8)
    images = Images(part_of(array, np.arange(5), "x"), GREY)
    assert images.digest == "cf3b376bac01574bd110c49d5aa2572cbc71bca046e7f90a4147776ad2cf3ee3"


def test_copies_of_two_classes_contradict_each_other(tmp_path: Path) -> None:
    root = data_set(tmp_path / "set")
    shutil.copy(root / "val/cat/2.png", root / "val/dog/cat.png")
    shutil.copy(root / "val/cat/2.png", root / "val/cat/cat.png")
    copies, contradictions = found(root)
    assert copies.startswith("2 of 14 test images have the pixels of an earlier one")
    assert contradictions.startswith("3 test images have the pixels of one with another label, such as ")
    for name in ("val/cat/2.png", "val/cat/cat.png", "val/dog/cat.png"):
        assert str(root / name) in contradictions


def test_a_test_set_of_one_image(tmp_path: Path) -> None:
    root = data_set(tmp_path / "set")
    for path in (root / "val").rglob("*.png"):
        if path != root / "val/cat/0.png":
            shutil.copy(root / "val/cat/0.png", path)
    copies, contradictions = found(root)
    assert copies.startswith("11 of 12 test images have")
    assert copies.endswith("; all show the same and judge nothing")
    assert contradictions.startswith("12 test images have")


def test_what_calibrates_and_judges_is_named(tmp_path: Path) -> None:
    data = folder.read(data_set(tmp_path / "set"))
    test = Images(data.test, SMALL)
    calibration = Images(data.test.take(np.array([3, 5, 8])), SMALL)
    (sentence,) = oddities.of_images(data.train, test, calibration)
    assert sentence.startswith("3 of 3 calibration images have the pixels of a test image, such as ")
    assert data.test.name(3) in sentence
    assert not oddities.of_images(data.train, test, Images(data.train, SMALL))


def test_what_trains_and_judges_is_named(tmp_path: Path) -> None:
    root = data_set(tmp_path / "set")
    shutil.copy(root / "train/dog/1.png", root / "val/dog/trained.png")
    # As long as another, and other bytes.
    content = bytearray((root / "train/dog/2.png").read_bytes())
    content[-1] ^= 255
    (root / "val/dog/as-long.png").write_bytes(content)
    data = folder.read(root)
    pairs = overlap.of_bytes(data.train, data.test)
    assert [(data.train.name(here), data.test.name(there)) for here, there in pairs.pairs] == [
        (str(root / "train/dog/1.png"), str(root / "val/dog/trained.png"))
    ]
    assert (pairs.sized, pairs.read) == (2, 2)
    trained, calibrates = found(root)
    assert calibrates.startswith("2 of 8 calibration images have the pixels of a test image, ")
    assert trained.startswith("1 of 14 test images are among the 8 training images byte for byte, such as ")
    assert trained.endswith(f"trained.png ({root / 'train/dog/1.png'}); only stored bytes were compared")


def test_training_images_of_arrays_are_compared_too() -> None:
    array = np.random.default_rng(0).integers(0, 256, (40, 8, 8), np.uint8)
    labels = np.zeros(40, np.int64)
    train = part_of(array, labels, "train").take(np.arange(0, 20))
    test = part_of(array, labels, "test").take(np.array([25, 13, 30]))
    assert overlap.of_bytes(train, test).pairs == [(13, 1)]
    # Images that are made when they are asked for lie nowhere.
    made = Part(test.labels, test.decode, test.name)
    assert overlap.of_bytes(made, made).sized == 0
    other_shape = part_of(array.reshape(40, 4, 16), labels, "test")
    assert not overlap.of_bytes(train, other_shape).pairs


def test_shards_of_arrays_know_where_their_images_lie(tmp_path: Path) -> None:
    array = np.random.default_rng(0).integers(0, 256, (6, 1, 8, 8)).astype(np.float32)
    np.save(tmp_path / "0.npy", array[:2])
    np.save(tmp_path / "1.npy", array[2:])
    shards = joined([from_array(tmp_path / "0.npy"), from_array(tmp_path / "1.npy")])
    np.testing.assert_array_equal(shards.take(np.array([4, 0])).stored(0), array[4])


def test_not_more_is_read_than_a_few_seconds_take(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = data_set(tmp_path / "set")
    for number in range(20):
        shutil.copy(root / "val/cat/0.png", root / f"train/cat/copy{number}.png")
    data = folder.read(root)
    size = (root / "val/cat/0.png").stat().st_size
    monkeypatch.setattr(overlap, "MOST_BYTES", 5 * size)
    pairs = overlap.of_bytes(data.train, data.test)
    assert (pairs.sized, pairs.read) == (20, 5)
    assert [there for _, there in pairs.pairs] == [0]
    assert "only 5 of the 20 training images that have the size of a test image were compared" in " ".join(found(root))


def sixteen(root: Path, largest: int, mode: str) -> Path:
    """A data set of 16 bits whose largest pixel is ``largest``."""
    rng = np.random.default_rng(0)
    for part, count in (("train", 3), ("val", 4)):
        for label in ("cat", "dog"):
            place = root / part / label
            place.mkdir(parents=True)
            for number in range(count):
                pixels = rng.integers(0, largest + 1, (40, 40), np.uint16)
                pixels[0, 0] = largest
                if mode in {"tif", "png"}:
                    Image.fromarray(pixels).save(place / f"{number}.{mode}")
                else:
                    (place / f"{number}.png").write_bytes(colour_png(np.stack([pixels] * 3, -1), alpha=mode == "alpha"))
    return root


def colour_png(pixels: np.ndarray, *, alpha: bool) -> bytes:
    """PNG of 16 bits in colour (PNG specification, 3rd edition), which Pillow reads and does not write."""
    if alpha:
        pixels = np.concatenate([pixels, np.full_like(pixels[..., :1], 65535)], -1)
    height, width, channels = pixels.shape
    rows = pixels.astype(">u2").tobytes()
    length = 2 * width * channels
    filtered = b"".join(b"\0" + rows[row * length : (row + 1) * length] for row in range(height))

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    header = struct.pack(">IIBBBBB", width, height, 16, 6 if alpha else 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(filtered)) + chunk(b"IEND", b"")


@pytest.mark.parametrize("mode", ["png", "tif", "colour", "alpha"])
@pytest.mark.parametrize(("largest", "said"), [(1023, True), (4095, True), (8191, True), (8704, False), (65535, False)])
def test_sixteen_bits_of_which_an_eighth_is_used(tmp_path: Path, largest: int, mode: str, said: bool) -> None:
    record = GREY if mode in {"png", "tif"} else SMALL
    sentences = found(sixteen(tmp_path / "set", largest, mode), record)
    assert len(sentences) == (2 if said else 0)
    if said:
        assert sentences[0].startswith(f"the largest pixel of 8 test images of 16 bits is {largest} of 65535")
        assert f"{largest.bit_length()} bits" in sentences[0]
        assert sentences[1].startswith(f"the largest pixel of 6 calibration images of 16 bits is {largest} of 65535")


def test_one_bright_image_of_16_bits_is_enough(tmp_path: Path) -> None:
    root = sixteen(tmp_path / "set", 4095, "png")
    for part, level in (("train", 60000), ("val", 50000)):
        Image.fromarray(np.full((40, 40), level, np.uint16)).save(root / part / "cat/bright.png")
    assert found(root, GREY) == []


def test_eight_bits_are_no_sixteen(tmp_path: Path) -> None:
    data = folder.read(data_set(tmp_path / "set"))
    assert (Images(data.test, SMALL).seen.largest == NOT_16).all()


def test_sixteen_bits_for_three_channels_are_no_sixteen_for_one(tmp_path: Path) -> None:
    """BMP of 5, 6 and 5 bits (BITMAPINFOHEADER, BI_BITFIELDS), and all of it dark."""
    pixels = np.random.default_rng(0).integers(0, 3, (32, 32)).astype("<u2")
    header = struct.pack("<IiiHHIIiiII", 40, 32, 32, 1, 16, 3, pixels.nbytes, 0, 0, 0, 0)
    masks = struct.pack("<III", 0xF800, 0x07E0, 0x001F)
    start = 14 + len(header) + len(masks)
    file_header = struct.pack("<2sIHHI", b"BM", start + pixels.nbytes, 0, 0, start)
    (tmp_path / "0.bmp").write_bytes(file_header + header + masks + pixels.tobytes())
    seen = Images(sampling.part(tmp_path, "--images"), SMALL).seen
    assert seen.largest.tolist() == [NOT_16]


def test_looks_are_kept_of_images_that_judge_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A training set has millions."""
    root = data_set(tmp_path / "set")
    data = folder.read(root)
    assert Images(data.train, SMALL).seen.looks is None
    monkeypatch.setattr(seeing, "MOST_PICTURES", 11)
    monkeypatch.setattr(oddities, "MOST_PICTURES", 11)
    assert found(root) == ["12 test images are too many to look for near copies: at most 11 are looked at"]


def test_dark_pictures_of_8_bits_are_honest(tmp_path: Path) -> None:
    root = data_set(tmp_path / "set")
    for path in root.rglob("*.png"):
        Image.open(path).point(lambda level: level // 12).save(path)
    assert found(root) == []


def test_near_copies_are_counted_once_each(tmp_path: Path) -> None:
    root = data_set(tmp_path / "set", side=96)
    Image.open(root / "val/cat/0.png").save(root / "val/cat/saved-again.jpg", quality=80)
    Image.open(root / "val/cat/0.png").save(root / "val/cat/and-again.jpg", quality=60)
    Image.open(root / "val/dog/1.png").resize((150, 150)).save(root / "val/dog/resized.png")
    shutil.copy(root / "val/dog/3.png", root / "val/dog/copy.png")
    copies, near = found(root)
    assert copies.startswith("1 of 16 test images have the pixels of an earlier one")
    assert near.startswith("3 of 16 test images are near copies of others, told by a perceptual hash, such as ")


def test_small_pictures_are_not_asked_what_they_look_like(tmp_path: Path) -> None:
    """Below 48 pixels, whatever the network sees them at."""
    root = data_set(tmp_path / "set", side=40)
    Image.open(root / "val/cat/0.png").save(root / "val/cat/saved-again.jpg", quality=95)
    assert found(root, Preprocessing(64, 64, "bilinear", 3, (0.5,) * 3, (0.5,) * 3)) == []


def test_pictures_of_other_crops_are_honest(tmp_path: Path) -> None:
    assert len(crops(60, 64)) == 60
    assert found(data_set(tmp_path / "set", train=2, test=60)) == []
