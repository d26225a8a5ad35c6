"""Images and folders of them that cannot be used: exit code and sentence."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import numpy as np
import pytest
from conftest import TINY, Cli
from PIL import Image

if TYPE_CHECKING:
    from pathlib import Path


def test_no_training_or_validation_folder(cli: Cli, folder: Path) -> None:
    shutil.rmtree(folder / "val")
    assert "there is no folder val/" in cli.refused("--arch", "resnet_tiny", "--data", folder)


def test_data_that_is_no_folder(cli: Cli, tmp_path: Path) -> None:
    sentence = cli.refused("--arch", "resnet_tiny", "--data", tmp_path / "nowhere")
    assert "neither a folder nor one of digits, fashion-mnist" in sentence


def test_an_empty_data_folder(cli: Cli, folder: Path) -> None:
    for place in (folder / "train").iterdir():
        shutil.rmtree(place)
    assert "train/ is empty" in cli.refused("--arch", "resnet_tiny", "--data", folder)


def test_a_class_without_images(cli: Cli, folder: Path) -> None:
    for image in (folder / "val" / "class1").iterdir():
        image.unlink()
    assert "class1 holds no images" in cli.refused("--arch", "resnet_tiny", "--data", folder)


def test_one_class_only(cli: Cli, folder: Path) -> None:
    for part in ("train", "val"):
        shutil.rmtree(folder / part / "class1")
    assert "only the class class0" in cli.refused("--arch", "resnet_tiny", "--data", folder)


def test_classes_that_differ(cli: Cli, folder: Path) -> None:
    (folder / "val" / "class1").rename(folder / "val" / "other")
    assert "class class1 is in only one" in cli.refused("--arch", "resnet_tiny", "--data", folder)


def test_an_unreadable_image(cli: Cli, folder: Path, tmp_path: Path) -> None:
    broken = sorted((folder / "val" / "class0").iterdir())[3]
    broken.write_bytes(broken.read_bytes()[:60])
    sentence = cli.refused("--arch", "resnet_tiny", "--data", folder, "-o", tmp_path / "out")
    assert f"{broken} is no readable image" in sentence
    assert not (tmp_path / "out").exists()


def test_colour_among_grey_images(cli: Cli, folder: Path) -> None:
    odd = folder / "val" / "class0" / "odd.png"
    Image.new("RGB", (8, 8)).save(odd)
    sentence = cli.refused("--arch", "resnet_tiny", "--data", folder)
    assert f"{odd} is in colour" in sentence
    assert "--channels 1" in sentence


def test_grey_is_averaged_from_colour_when_asked(cli: Cli, folder: Path, tmp_path: Path) -> None:
    for path in folder.rglob("*.png"):
        Image.open(path).convert("RGB").save(path)
    flags = ("--arch", "resnet_tiny", "--data", folder, "--input-size", 32, "--resize", 32, "--epochs", 2)
    report = cli.report(*flags, "--channels", 1, "--test-samples", 2, "-o", tmp_path / "out")
    assert report["preprocessing"]["mean"] == [pytest.approx((0.485 + 0.456 + 0.406) / 3)]


def test_a_folder_of_images_is_trained_and_judged(cli: Cli, folder: Path, tmp_path: Path) -> None:
    flags = ("--arch", "resnet_tiny", "--data", folder, "--input-size", 32, "--resize", 32, "--epochs", 8)
    report = cli.report(*flags, "-o", tmp_path / "out")
    assert report["classes"] == ["class0", "class1"]
    assert report["stages"][0]["accuracy"]["n"] == 40


@pytest.mark.parametrize("flag", ["--test-samples", "--calib-samples"])
def test_more_images_than_there_are(cli: Cli, flag: str) -> None:
    sentence = cli.refused("--arch", "resnet_tiny", flag, 100000)
    assert f"{flag} 100000: there are only" in sentence


def test_one_test_image_shows_one_class(cli: Cli) -> None:
    assert "one class only" in cli.refused("--arch", "resnet_tiny", "--test-samples", 1)


@pytest.mark.parametrize(
    ("array", "part"),
    [
        (np.zeros((4, 32, 32), np.float32), "of shape (N, C, H, W)"),
        (np.full((4, 1, 32, 32), np.nan, np.float32), "NaN or infinite pixels"),
        (np.full((4, 1, 32, 32), 0.5, np.float32), "4 of 4 images have no pixel above 1; give pixels 0..255"),
        (np.random.default_rng(0).normal(size=(4, 1, 32, 32)), "4 of 4 images have pixels below 0; give pixels 0..255"),
        (np.full((4, 1, 32, 32), 65535, np.uint16), "4 of 4 images have pixels above 255; give pixels 0..255"),
        (np.full((4, 3, 32, 32), 200.0, np.float32), "--channels 3"),
        (np.array([{}], dtype=object), "no readable array"),
        (np.zeros((4, 1, 0, 0), np.float32), "of shape (N, C, H, W)"),
    ],
)
def test_bad_calibration_arrays(cli: Cli, tmp_path: Path, array: np.ndarray, part: str) -> None:
    np.save(tmp_path / "calib.npy", array, allow_pickle=True)
    assert part in cli.refused(*TINY, "--calib-data", tmp_path / "calib.npy", "-o", tmp_path / "out")


def test_a_damaged_calibration_archive(cli: Cli, tmp_path: Path) -> None:
    np.savez(tmp_path / "calib.npz", images=np.full((4, 1, 32, 32), 9.0))
    (tmp_path / "calib.npz").write_bytes((tmp_path / "calib.npz").read_bytes()[:900])
    assert "no readable array" in cli.refused(*TINY, "--calib-data", tmp_path / "calib.npz")


def test_calibration_data_that_is_not_there_or_empty(cli: Cli, tmp_path: Path) -> None:
    assert "no such file or folder" in cli.refused(*TINY, "--calib-data", tmp_path / "nothing")
    (tmp_path / "empty").mkdir()
    assert "holds no images" in cli.refused(*TINY, "--calib-data", tmp_path / "empty")
    np.save(tmp_path / "empty/part.npy", np.full((4, 1, 32, 32), 9.0))
    Image.new("L", (32, 32)).save(tmp_path / "empty/one.png")
    assert "holds images and arrays" in cli.refused(*TINY, "--calib-data", tmp_path / "empty")
    (tmp_path / "calib.txt").write_text("")
    assert "a folder of images, or pixels in .npy, .npz" in cli.refused(*TINY, "--calib-data", tmp_path / "calib.txt")
