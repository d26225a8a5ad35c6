"""Another loader next to the contract: an honest one conforms, a planted fault is named with what it costs."""

from __future__ import annotations

import io
import json
import re
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from conftest import ROOT
from PIL import ExifTags, Image

from pipeline.__main__ import parser
from pipeline.data import loader_test_images
from pipeline.data.conformance import FOLDER, LARGEST, Vector, png
from pipeline.data.loader_faults import CONTRACT, FRAME, RESIZE, TURN, Loader
from pipeline.data.loader_search import conforms, distance, explain
from pipeline.data.preprocessing import Preprocessing
from pipeline.errors import BadRequest
from pipeline.finished.conform import conform

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import Cli

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
# Written after record.json alone, with torch: nothing of it is ours.
LOADERS = """
import numpy as np, torch
import torch.nn.functional as F
from PIL import Image, ImageOps

MEAN, STD = (np.array(v).reshape(3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))

def honest(path, shorter=40, mode="bilinear", antialias=True, move=(0, 0), even=True, turn=False):
    image = Image.open(path)
    image = ImageOps.exif_transpose(image) if turn else image
    pixels = np.asarray(image.convert("RGB"), np.float32).transpose(2, 0, 1)
    height, width = pixels.shape[1:]
    size = [shorter * side // min(height, width) for side in (height, width)]
    pixels = F.interpolate(torch.from_numpy(pixels)[None], size=size, mode=mode, antialias=antialias)[0]
    pixels = pixels.clamp(0, 255)
    half = round if even else int
    top, left = (half((side - 32) / 2) + by for side, by in zip(size, move))
    return pixels[None, :, top : top + 32, left : left + 32].numpy()

def eight_bits(path): return np.rint(honest(path)).astype(np.uint8)[0]
def bgr(path): return honest(path)[:, ::-1]
def unit(path): return torch.from_numpy(honest(path) / 255)
def normalised(path): return (honest(path) / 255 - MEAN) / STD
def swapped(path): return (honest(path) / 255 - STD) / MEAN
def mean_only(path): return honest(path) / 255 - MEAN
def std_only(path): return honest(path) / 255 / STD
def no_antialias(path): return honest(path, antialias=False)
def bicubic(path): return honest(path, mode="bicubic", antialias=False)
def too_far_left(path): return honest(path, move=(0, -1))
def down_right(path): return honest(path, move=(1, 1))
def floored(path): return honest(path, even=False)
def no_margin(path): return honest(path, shorter=32)
def transposed(path): return honest(path).swapaxes(2, 3)
def hwc(path): return honest(path)[0].transpose(1, 2, 0)
def hwc_bytes(path): return np.ascontiguousarray(hwc(path)).reshape(3, 32, 32)
def mirrored(path): return honest(path)[..., ::-1]
def inverted(path): return 255 - honest(path)
def squashed(path): return np.asarray(Image.open(path).convert("RGB").resize((32, 32), 2)).transpose(2, 0, 1)
def usual(path): return honest(path, antialias=False, even=False)[:, ::-1] / 255
def usual_hwc(path): return normalised(path)[0, ::-1].transpose(1, 2, 0)
def turned(path): return honest(path, turn=True)
def usual_turned(path): return honest(path, antialias=False, even=False, turn=True)[:, ::-1] / 255
def root(path): return np.sqrt(honest(path))
def brighter(path): return 1.3 * honest(path) + 7

def raises(path): raise KeyError("no such camera")
def leaves(path): raise SystemExit(0)
def small(path): return honest(path)[..., :31]
def nan(path): return honest(path) * np.nan
def text(path): return path
number = 3
"""
NO_ANTIALIAS = "resized with bilinear without antialias (OpenCV's INTER_LINEAR)"
APPLIED = "mean and std already applied, and the graph does it again"
BGR = "channels in the order BGR instead of RGB"
UNIT = "pixels 0..1 instead of 0..255"
FLOORED = "crop's halves of a pixel rounded down"
HWC = "layout HWC instead of CHW"
TURNED = "turned by its EXIF orientation, which the contract ignores"
PLANTED = {
    "bgr": [BGR],
    "unit": [UNIT],
    "normalised": [APPLIED],
    "swapped": ["mean and std already applied, and swapped"],
    "mean_only": ["mean already subtracted, pixels 0..1"],
    "std_only": ["already divided by std, pixels 0..1"],
    "no_antialias": [NO_ANTIALIAS],
    "bicubic": ["resized with bicubic without antialias (OpenCV's INTER_CUBIC)"],
    "too_far_left": ["crop one pixel too far left"],
    "down_right": ["crop one pixel too far down and one right"],
    "floored": [FLOORED],
    "no_margin": ["no crop margin: shorter side resized straight to the input size"],
    "squashed": ["no crop: squashed to the input size, whatever the aspect"],
    "transposed": ["rows and columns swapped"],
    "hwc": [HWC],
    "hwc_bytes": [HWC],
    "mirrored": ["mirrored left to right"],
    "inverted": ["inverted, black for white"],
    "usual": [NO_ANTIALIAS, FLOORED, BGR, UNIT],
    "turned": [TURNED],
    "usual_turned": [NO_ANTIALIAS, FLOORED, BGR, UNIT, TURNED],
    "usual_hwc": [HWC, "mean and std already applied in the order BGR", BGR],
}


@pytest.fixture(scope="module")
def colour(cli: Cli, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A build that tells red from blue, with a margin around the crop."""
    root, pixels = tmp_path_factory.mktemp("colour"), np.random.default_rng(0)
    for part, count in (("train", 30), ("val", 20)):
        for label, channel in (("red", 0), ("blue", 2)):
            place = root / "images" / part / label
            place.mkdir(parents=True)
            for index in range(count):
                image = pixels.integers(0, 128, (67 + index, 91, 3), np.uint8)
                image[..., channel] += 100
                Image.fromarray(image).save(place / f"{index}.png")
    sizes = ("--input-size", 32, "--resize", 40, "--epochs", 8, "--max-drop", "0.4")
    cli.report("--arch", "resnet_tiny", "--data", root / "images", *sizes, "-o", root / "build")
    return root / "build"


@pytest.fixture
def loaders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "loaders.py").write_text(LOADERS)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "loaders", raising=False)
    return tmp_path


def command(directory: Path, *flags: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    run = f"import sys; sys.path.append({str(ROOT)!r}); from pipeline.__main__ import main; sys.exit(main())"
    arguments = [sys.executable, "-c", run, "conform", str(directory), *map(str, flags)]
    return subprocess.run(arguments, cwd=cwd, capture_output=True, text=True, check=False)


@pytest.mark.usefixtures("loaders")
@pytest.mark.parametrize("name", ["honest", "eight_bits"])
def test_an_honest_loader_conforms_and_costs_nothing(
    colour: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    arguments = parser()[0].parse_args(["conform", str(colour), "--loader", f"loaders:{name}", "--json"])
    assert arguments.run(arguments) == 0
    result = json.loads(capsys.readouterr().out)
    assert (result["verdict"], result["faults"], len(result["images"])) == ("pass", [], 8)
    assert max(row["largest"] for row in result["images"]) <= 1
    assert result["cost"]["contract"] == result["cost"]["loader"] == 1


@pytest.mark.usefixtures("loaders")
@pytest.mark.parametrize(("name", "faults"), PLANTED.items(), ids=PLANTED)
def test_a_planted_fault_is_named(colour: Path, name: str, faults: list[str]) -> None:
    result = conform(colour, f"loaders:{name}", None, 1)
    assert result["verdict"] == "fail"
    assert [sorted(found) for found in result["faults"]] == [sorted(faults)]


def test_the_cost_of_a_fault_is_counted_on_the_images_that_judged(colour: Path, loaders: Path) -> None:
    done = command(colour, "--loader", "loaders:bgr", cwd=loaders)
    assert done.returncode == 1
    assert f"likely fault: {BGR}" in done.stdout
    assert "40 images): 100.00 % by the contract, 0.00 % by this loader; 100.00 points lost" in done.stdout
    drop = conform(colour, "loaders:mirrored", None, None)["cost"]["drop"]  # noise is the same in a mirror
    assert (drop["lost"], drop["gained"]) == (0, 0)


@pytest.mark.usefixtures("loaders")
def test_what_no_fault_explains_is_described_and_not_guessed(colour: Path) -> None:
    result = conform(colour, "loaders:root", None, 1)
    assert (result["verdict"], result["faults"]) == ("fail", [])
    assert len(result["known"]) == 1
    assert result["known"][0].startswith("its values lie in 0..15.")
    known = conform(colour, "loaders:brighter", None, 1)["known"]
    scales = [float(re.match(rf"channel {channel} is (\S+) x pixel", known[1 + channel])[1]) for channel in range(3)]
    assert scales == pytest.approx([1.3] * 3, rel=0.01)


# Each with how many rows are the contract itself: its own filter; floats where nothing overshoots (the grey of two
# colours hardly does); three ways to grey where there is no colour.
RECORDS = {
    Preprocessing(32, 40, "bicubic", 3, MEAN, STD): 1 + 3,
    Preprocessing(24, 28, "bilinear", 3, MEAN, STD): 1 + 2 + 3,
    Preprocessing(32, 37, "lanczos", 1, MEAN[:1], STD[:1], convert=True): 1 + 1,
    Preprocessing(32, 40, "nearest", 1, MEAN[:1], STD[:1]): 1 + 2 + 3,
    Preprocessing(32, 40, "bilinear", 3, MEAN, STD, exif="apply"): 1 + 2 + 3,
}


@pytest.mark.parametrize(("record", "same"), RECORDS.items(), ids=lambda item: getattr(item, "interpolation", ""))
def test_the_charts_tell_every_fault_from_the_contract_and_from_every_other(
    record: Preprocessing, same: int, tmp_path: Path
) -> None:
    vectors = [
        Vector(name, tmp_path, image, record.pixels(image, name)) for name, image in loader_test_images.draw(record)
    ]
    for vector in vectors:
        np.testing.assert_array_equal(CONTRACT(record, vector.image), vector.expected)
    conforming = 0
    for name, way in {**RESIZE, **FRAME, **TURN[record.exif]}.items():
        steps: dict[str, Any] = {"resized": way} if name in RESIZE else way
        made = {vector.name: Loader(**steps)(record, vector.image) for vector in vectors}
        if all(conforms(distance(made[vector.name], vector.expected)) for vector in vectors):
            conforming += 1
        else:
            assert explain(record, vectors, made) == [[name]]
    assert conforming == same


def test_tensors_of_another_program_are_compared_and_have_no_cost(colour: Path, tmp_path: Path) -> None:
    expected = colour / FOLDER / "expected.npz"
    done = command(colour, "--tensors", expected, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "top-1 not measured: tensors alone" in done.stdout
    with np.load(expected) as held:
        tensors = dict(held)
    np.savez(tmp_path / "mine.npz", **{name: array[None, ::-1] for name, array in tensors.items()})
    assert conform(colour, None, tmp_path / "mine.npz", None)["faults"] == [[BGR]]
    del tensors["chart-wide.png"]
    np.savez(tmp_path / "mine.npz", **tensors)
    with pytest.raises(BadRequest, match=r"mine\.npz has no array chart-wide\.png; it needs one for each of"):
        conform(colour, None, tmp_path / "mine.npz", None)
    (tmp_path / "mine.npz").write_text("no archive")
    with pytest.raises(BadRequest, match=r"is no readable \.npz"):
        conform(colour, None, tmp_path / "mine.npz", None)


def test_the_vectors_are_the_same_in_every_build_and_small(cli: Cli, colour: Path, tmp_path: Path) -> None:
    shutil.copytree(colour, tmp_path / "build")
    recipe = json.loads((colour / "report.json").read_text())["recipe"]
    sizes = ("--input-size", 32, "--resize", 40, "--epochs", 8, "--max-drop", "0.4")
    report = cli.report("--arch", "resnet_tiny", "--data", recipe["data"], *sizes, "-o", tmp_path / "build")
    assert report["conformance"] == json.loads((colour / "report.json").read_text())["conformance"]
    record = json.loads((colour / FOLDER / "record.json").read_text())
    assert (record["conforms"]["largest"], record["tensor"]["channels"]) == (LARGEST, "RGB")
    assert sum(path.stat().st_size for path in (colour / FOLDER).iterdir()) < 200_000


@pytest.mark.parametrize("exif", ["ignore", "apply"])
def test_a_png_of_an_image_keeps_its_turn(exif: str) -> None:
    record = Preprocessing(8, 8, "bilinear", 3, MEAN, STD, exif=exif)
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (8, 12, 3), np.uint8))
    image.getexif()[ExifTags.Base.Orientation] = 6
    content = png(image, record, record.pixels(image, ""))
    assert content is not None
    assert Image.open(io.BytesIO(content)).getexif()[ExifTags.Base.Orientation] == 6


def test_what_no_png_holds_is_not_taken_for_the_same() -> None:
    record = Preprocessing(8, 8, "bilinear", 3, MEAN, STD)
    four = Image.fromarray(np.full((8, 8, 4), 90, np.uint8), "RGBA").convert("CMYK")
    assert png(four, record, record.pixels(four, "")) is None
    assert png(np.zeros((3, 8, 8), np.float32), record, np.zeros((3, 8, 8), np.float32)) is None
    plain = four.convert("RGB")
    assert png(plain, record, record.pixels(plain, "")) is not None


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        ([], "takes either --loader module:function or --tensors FILE.npz"),
        (["--loader", "loaders:honest", "--tensors", "x.npz"], "takes either"),
        (["--tensors", "x.npz", "--samples", "3"], "--samples goes with --loader"),
        (["--loader", "loaders"], "--loader loaders is not module:function"),
        (["--loader", "nowhere.at:all"], "there is no module nowhere.at here"),
        (["--loader", "needs:any"], "needs could not be imported (No module named 'camera'); install what it needs"),
        (["--loader", "broken:any"], "broken could not be imported (ZeroDivisionError: division by zero)"),
        (["--loader", "loaders:other"], "loaders has no other"),
        (["--loader", "loaders:number"], "loaders has no callable number"),
        (["--loader", "loaders:raises"], "raised KeyError: 'no such camera' for "),
        (["--loader", "loaders:leaves"], "raised SystemExit: 0 for "),
        (["--loader", "loaders:small"], "found float32 (1, 3, 32, 31); it must be numbers of shape (3, 32, 32)"),
        (["--loader", "loaders:text"], "chart-small.png: found <U"),
        (["--loader", "loaders:nan"], "chart-small.png: found NaN or infinity; pixels are 0..255"),
    ],
)
def test_a_bad_request_is_one_sentence(
    colour: Path, loaders: Path, capsys: pytest.CaptureFixture[str], flags: list[str], sentence: str
) -> None:
    (loaders / "needs.py").write_text("import camera")
    (loaders / "broken.py").write_text("print('on standard output')\n1 / 0")
    arguments = parser()[0].parse_args(["conform", str(colour), *flags])
    with pytest.raises(BadRequest, match=re.escape(sentence)):
        arguments.run(arguments)
    assert not capsys.readouterr().out


def test_vectors_that_are_gone_or_damaged_are_told(colour: Path, tmp_path: Path) -> None:
    copy = tmp_path / "build"
    shutil.copytree(colour, copy)
    expected, report = copy / FOLDER / "expected.npz", json.loads((copy / "report.json").read_text())
    expected.write_bytes(expected.read_bytes()[:-9])
    with pytest.raises(BadRequest, match=r"conformance/expected\.npz is gone or not what this build wrote"):
        conform(copy, None, expected, None)
    for noted, sentence in ((None, "holds no conformance vectors"), ({"../record.json": "0"}, "holds no conformance")):
        (copy / "report.json").write_text(json.dumps({**report, "conformance": noted}))
        with pytest.raises(BadRequest, match=sentence):
            conform(copy, None, expected, None)
