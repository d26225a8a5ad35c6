"""Data sets, their splits, and the pixels that the network sees."""

from __future__ import annotations

import gzip
import http.server
import threading
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from pipeline.data import digits, fashion_mnist, sampling
from pipeline.data.array_file import from_array
from pipeline.data.images import Images
from pipeline.data.part import part_of, spread
from pipeline.data.preprocessing import Preprocessing
from pipeline.errors import BadRequest

if TYPE_CHECKING:
    from pathlib import Path

PLAIN = Preprocessing(32, 32, "bilinear", 1, (0.5,), (0.5,))


def test_the_digits_are_split_by_class_and_share_no_image() -> None:
    data = digits.read()
    assert [len(part) for part in (data.train, data.calibration, data.test)] == [797, 100, 900]
    names = [{part.name(index) for index in range(len(part))} for part in (data.train, data.calibration, data.test)]
    assert len(set.union(*names)) == 1797
    for part in (data.train, data.calibration, data.test):
        shares = np.bincount(part.labels) / len(part)
        assert shares.min() > 0.085
        assert shares.max() < 0.115


def test_choosing_is_spread_over_classes_and_repeatable() -> None:
    labels = np.repeat([0, 1, 2], [600, 300, 30])
    chosen = spread(labels, 31, seed=3)
    assert np.bincount(labels[chosen]).tolist() == [20, 10, 1]
    np.testing.assert_array_equal(chosen, spread(labels, 31, seed=3))
    assert not np.array_equal(chosen, spread(labels, 31, seed=4))
    assert len(set(chosen)) == 31


def test_the_last_batch_is_ragged_and_nothing_is_lost() -> None:
    array = np.random.default_rng(0).integers(0, 256, (10, 32, 32), np.uint8)
    images = Images(part_of(array, np.zeros(10, np.int64), "x"), PLAIN)
    batches = list(images.batches(4))
    assert [len(batch) for batch in batches] == [4, 4, 2]
    np.testing.assert_array_equal(np.concatenate(batches)[:, 0], array)


@pytest.mark.parametrize("most", [0, 2**28])
def test_a_set_gives_the_same_batches_whether_it_is_kept_or_not(monkeypatch: pytest.MonkeyPatch, most: int) -> None:
    monkeypatch.setattr("pipeline.data.images.CACHE_BYTES", most)
    array = np.random.default_rng(0).integers(0, 256, (10, 32, 32), np.uint8)
    images = Images(part_of(array, np.zeros(10, np.int64), "x"), PLAIN)
    for _ in range(2):
        (batch,) = images.batches()
        assert batch.dtype == np.float32
        np.testing.assert_array_equal(batch[:, 0], array)


def test_pixels_that_no_byte_holds_are_not_rounded_when_kept(tmp_path: Path) -> None:
    array = np.full((3, 1, 32, 32), 7, np.float32)
    array[2, 0, 0, :3] = 2550.0, -3.0, 0.25
    np.save(tmp_path / "some.npy", array)
    np.testing.assert_array_equal(next(Images(from_array(tmp_path / "some.npy"), PLAIN).batches()), array)


def test_shards_of_arrays_are_one_set_and_each_gives_its_share(tmp_path: Path) -> None:
    array = np.random.default_rng(0).integers(0, 256, (30, 1, 32, 32)).astype(np.float32)
    parts = [(9, 30), (3, 9), (0, 3)]
    for number, (first, end) in enumerate(parts):
        np.save(tmp_path / f"{number}.npy", array[first:end])
    images = Images(sampling.part(tmp_path, "--calib-data"), PLAIN)
    expected = np.concatenate([array[first:end] for first, end in parts])
    np.testing.assert_array_equal(images.select(np.arange(30)), expected)
    assert images.part.name(22) == f"{tmp_path / '1.npy'}[1]"
    assert np.bincount(-1 - images.labels[spread(images.labels, 10, seed=0)]).tolist() == [7, 2, 1]


def test_the_crop_is_central_and_the_shorter_side_is_resized() -> None:
    ramp = np.tile(np.arange(100, dtype=np.uint8), (50, 1))
    record = Preprocessing(40, 50, "bilinear", 1, (0.0,), (1.0,))
    pixels = record.pixels(Image.fromarray(ramp), "ramp")
    np.testing.assert_array_equal(pixels[0, 0], np.arange(30, 70))


@pytest.mark.parametrize("order", ["<u2", ">u2"])
def test_sixteen_bits_are_eight_bits_with_more_zeros(tmp_path: Path, order: str) -> None:
    grey = np.random.default_rng(0).integers(0, 256, (32, 32), np.uint8)
    Image.fromarray((grey.astype(np.uint16) * 257).astype(order)).save(tmp_path / "16.tif")
    with Image.open(tmp_path / "16.tif") as image:
        np.testing.assert_array_equal(PLAIN.pixels(image, "16")[0], grey)


@pytest.mark.parametrize("mode", ["I", "F"])
def test_pixels_of_unknown_range_are_refused(mode: str) -> None:
    with pytest.raises(BadRequest, match="32 bits per pixel"):
        PLAIN.pixels(Image.new(mode, (32, 32)), "x")


def test_an_image_that_would_fill_the_memory_is_refused() -> None:
    with pytest.raises(BadRequest, match="crop or remove it"):
        Preprocessing(224, 256, "bilinear", 1, (0.5,), (0.5,)).pixels(Image.new("L", (1, 300_000)), "x")


def test_array_pixels_are_neither_rounded_nor_clipped() -> None:
    array = np.full((1, 32, 32), 300.25, np.float32)
    np.testing.assert_array_equal(PLAIN.float_pixels(array, "x"), array)
    assert PLAIN.float_pixels(np.full((1, 8, 8), -3.5), "x").max() == -3.5


def test_an_array_of_the_networks_own_size_was_cropped_already() -> None:
    record, array = replace(PLAIN, resize=40), np.random.default_rng(0).uniform(0, 255, (1, 36, 36))
    cropped = array[:, 2:34, 2:34].astype(np.float32)
    np.testing.assert_array_equal(record.float_pixels(cropped, "x"), cropped)
    assert record.float_pixels(array, "x").shape == (1, 32, 32)


def test_downloads_are_checked_by_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A real server that serves one right file and one wrong one."""
    right = b"right content"
    served = tmp_path / "served"
    served.mkdir()
    (served / "a.gz").write_bytes(gzip.compress(right))
    (served / "b.gz").write_bytes(gzip.compress(b"wrong content"))
    hashes = {name: __import__("hashlib").sha256(right).hexdigest() for name in ("a", "b")}
    monkeypatch.setattr(fashion_mnist, "CONTENT", hashes)

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args: object) -> None:
            super().__init__(*args, directory=str(served))  # type: ignore[arg-type]

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Quiet) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/"
        with pytest.raises(BadRequest, match="not the published Fashion-MNIST file"):
            fashion_mnist.download(tmp_path / "cache", url)
        assert [path.name for path in (tmp_path / "cache").iterdir()] == ["a.gz"]
        server.shutdown()
    with pytest.raises(BadRequest, match="could not be fetched"):
        fashion_mnist.download(tmp_path / "cache", url)


def test_a_folder_without_the_files_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadRequest, match=r"has no train-images-idx3-ubyte\.gz"):
        fashion_mnist.read(tmp_path)
