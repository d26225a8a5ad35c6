"""What a build says of its images and weights: in the news, the report, the table and the page; it decides nothing."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
import torch
from conftest import TINY, Cli
from PIL import ExifTags, Image
from safetensors.torch import load_file, save_file

if TYPE_CHECKING:
    from pathlib import Path

SIZES = ("--input-size", 32, "--resize", 36)


def trained(cli: Cli, output: Path, *flags: object) -> Path:
    """The weights of a training that says how many of the test images are turned."""
    command = [sys.executable, "-m", "pipeline", "train", "--arch", "resnet_tiny", "--no-curves", *map(str, flags)]
    done = subprocess.run(
        [*command, "-o", str(output)], env=cli.environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "10 of 40 test images carry an EXIF turn" in done.stderr
    return output / "weights.safetensors"


def build(cli: Cli, *flags: object) -> tuple[dict[str, Any], str]:
    """The report and the news of a build that passes."""
    done = cli(*flags, "--json")
    assert done.returncode in {0, 4}, done.stderr
    return json.loads(done.stdout), done.stderr


def test_an_honest_build_warns_of_nothing(built: Path) -> None:
    assert json.loads((built / "report.json").read_text())["warnings"] == []


@pytest.fixture
def photos(folder: Path) -> Path:
    """Digits of two classes that photos of a telephone hold: a third of them turned."""
    for path in folder.rglob("*.png"):
        image = Image.open(path).resize((40, 40))
        exif = image.getexif()
        if int(path.stem) % 3 == 0:
            image = image.transpose(Image.Transpose.ROTATE_90)
            exif[ExifTags.Base.Orientation] = 6
        image.save(path.with_suffix(".jpg"), exif=exif, quality=95)
        path.unlink()
    # val/ has been that of train/: other images are to judge.
    for path in (folder / "val").rglob("*.jpg"):
        image = Image.open(path)
        image.save(path, exif=image.getexif(), quality=80)
    return folder


def test_every_oddity_is_said_everywhere(cli: Cli, photos: Path, tmp_path: Path) -> None:
    some = sorted((photos / "val/class0").iterdir())
    shutil.copy(some[0], some[0].with_name("copy.jpg"))
    shutil.copy(some[1], photos / "val/class1/wrong.jpg")
    shutil.copy(some[2], some[2].with_name(f"._{some[2].name}"))
    shutil.copy(some[3], photos / "train/class0/seen.jpg")
    done = cli("--arch", "resnet_tiny", "--data", photos, *SIZES, "--epochs", 8, "-o", tmp_path / "out")
    report = json.loads((tmp_path / "out/report.json").read_text())
    beginnings = (
        "1 hidden image left out, such as ",
        "2 of 42 test images have the pixels of an earlier one",
        "2 test images have the pixels of one with another label",
        "1 of 42 test images are among the 41 training images byte for byte",
        "1 of 41 calibration images have the pixels of a test image",
        "12 of 42 test images and 10 of 41 calibration images carry an EXIF turn",
    )
    page = (tmp_path / "out/report.html").read_text()
    for sentence, beginning in zip(report["warnings"], beginnings, strict=True):
        assert sentence.startswith(beginning)
        assert done.stderr.count(sentence) == 1
        assert f"warning: {beginning[:40]}" in done.stdout
        assert beginning in page
    assert done.returncode in {0, 4}


def test_photos_are_read_as_the_weights_were_trained(cli: Cli, photos: Path, tmp_path: Path) -> None:
    flags = ("--data", photos, *SIZES, "--epochs", 2, "--validation", 0, "--batch", 8)
    upright = trained(cli, tmp_path / "upright", *flags, "--exif", "apply")
    training = json.loads((tmp_path / "upright/training.json").read_text())
    assert "--exif apply" in training["next"]
    as_stored = trained(cli, tmp_path / "as-stored", *flags)

    asked = ("--arch", "resnet_tiny", "--data", photos, *SIZES)
    report, news = build(cli, *asked, "--weights", upright, "-o", tmp_path / "a")
    assert report["preprocessing"]["exif"] == report["recipe"]["exif"] == "apply"
    assert f"--exif apply, as the weights in {upright} were trained" in news
    assert "turned here, by --exif apply" in " ".join(report["warnings"])

    # The build knows its own images again, and its weights hand the turn on.
    check = subprocess.run(
        [sys.executable, "-m", "pipeline", "check", str(tmp_path / "a"), "--rerun"],
        env=cli.environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert check.returncode in {0, 4}, check.stderr
    frozen, _ = build(cli, *asked, "--weights", tmp_path / "a/01-freeze.safetensors", "-o", tmp_path / "b")
    assert frozen["images"] == report["images"]

    other, _ = build(cli, *asked, "--weights", upright, "--exif", "ignore", "-o", tmp_path / "c")
    assert other["preprocessing"]["exif"] == "ignore"
    assert other["images"]["test"] != report["images"]["test"]
    assert f"the weights in {upright} were trained with --exif apply, and this is --exif ignore" in other["warnings"]

    plain, _ = build(cli, *asked, "--weights", as_stored, "-o", tmp_path / "d")
    assert plain["preprocessing"]["exif"] == "ignore"
    assert plain["recipe"]["exif"] is None
    assert plain["images"] == other["images"]
    assert not [sentence for sentence in plain["warnings"] if "trained with" in sentence]


def test_weights_of_levels_are_named_and_a_network_that_guesses_is_doubted(
    cli: Cli, weights: Path, tmp_path: Path
) -> None:
    tensors = load_file(weights)
    for name, value in tensors.items():
        if value.ndim == 4:
            tensors[name] = (value / value.abs().amax() * 127).round().to(torch.int8)
    save_file(tensors, tmp_path / "levels.safetensors")
    report, _ = build(
        cli, *TINY, "--precision", "fp32", "--weights", tmp_path / "levels.safetensors", "-o", tmp_path / "a"
    )
    assert "kernels of these weights are whole numbers from " in report["warnings"][0]

    tensors = load_file(weights)
    tensors["fc.weight"] = tensors["fc.weight"].roll(1, 0)
    tensors["fc.bias"] = tensors["fc.bias"].roll(1, 0)
    save_file(tensors, tmp_path / "rolled.safetensors")
    done = cli(*TINY, "--precision", "fp32", "--weights", tmp_path / "rolled.safetensors", "-o", tmp_path / "b")
    (sentence,) = json.loads((tmp_path / "b/report.json").read_text())["warnings"]
    assert "which is not shown to be better than" in sentence
    assert "warning: the float network answers" in done.stdout
    # It warns, and the files are still those of the network.
    assert done.returncode == 0


def test_a_report_without_warnings_is_shown(cli: Cli, copy: Path) -> None:
    """One of an earlier version has no such key."""
    report = json.loads((copy / "report.json").read_text())
    # It kept no hashes either, and its page named none.
    for key in ("warnings", "content", "evidence", "notes"):
        del report[key]
    (copy / "report.html").unlink()
    (copy / "report.json").write_text(json.dumps(report))
    for command in ("check", "report"):
        done = subprocess.run(
            [sys.executable, "-m", "pipeline", command, str(copy)],
            env=cli.environment, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert "Traceback" not in done.stderr
        assert done.returncode == 0, done.stderr
