"""Calibration through the real command line: kills, caches, TensorRT's table, odd images, the tournament."""

from __future__ import annotations

import subprocess
import sys
import time
from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest
from conftest import ROOT, TINY, Cli
from safetensors.numpy import load_file, save_file

from calibration import qdq, ranges, table, tournament
from calibration.observe import observe
from pipeline.building.calibration_job import CalibrationJob
from pipeline.data import digits
from pipeline.data.array_file import from_array
from pipeline.data.images import Images
from pipeline.data.screen import screen
from pipeline.errors import BadRequest
from pipeline.workspace import sha256

if TYPE_CHECKING:
    from pathlib import Path


def pixels() -> np.ndarray:
    part = digits.read().calibration
    return np.stack([np.asarray(part.decode(index).resize((32, 32)), np.float32)[None] for index in range(len(part))])


def images(tmp_path: Path, array: np.ndarray) -> Images:
    np.save(tmp_path / "some.npy", array)
    return Images(from_array(tmp_path / "some.npy"), digits.read().preprocessing)


def test_a_killed_calibration_goes_on_with_the_same_scales(weights: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    many = np.clip(pixels()[rng.integers(0, 100, 8_000)] + rng.integers(-9, 9, (8_000, 1, 32, 32)), 0, 255)
    np.save(tmp_path / "many.npy", many.astype(np.uint8))
    flags = (*TINY, "--weights", weights, "--calib-data", tmp_path / "many.npy", "--calib-samples", 8_000)
    cli = Cli(tmp_path / "cache")
    statistics = tmp_path / "seen.safetensors"
    command = cli.command(*flags, "-o", tmp_path / "killed", "--calib-cache", statistics)
    process = subprocess.Popen(command, env=cli.environment, stderr=subprocess.DEVNULL)
    while not statistics.exists() and process.poll() is None:
        time.sleep(0.05)
    process.kill()
    process.wait()
    assert not (tmp_path / "killed/05-int8.onnx").exists()
    done = cli(*flags, "-o", tmp_path / "killed", "--calib-cache", statistics)
    assert "calibration goes on after" in done.stderr, done.stderr
    cli.report(*flags, "-o", tmp_path / "calm")
    assert sha256(tmp_path / "killed/05-int8.onnx") == sha256(tmp_path / "calm/05-int8.onnx")
    assert not list((tmp_path / "cache/edge-resnet").glob("calibration/*"))


def test_a_cache_serves_another_method_and_no_other_network(cli: Cli, weights: Path, tmp_path: Path) -> None:
    flags = (*TINY, "--weights", weights, "--calib-cache", tmp_path / "seen.safetensors")
    cli.report(*flags, "-o", tmp_path / "out")
    before = sha256(tmp_path / "seen.safetensors")
    again = cli(*flags, "-o", tmp_path / "out", "--calib-method", "percentile")
    assert "goes on after 100 images" in again.stderr
    assert sha256(tmp_path / "seen.safetensors") == before
    refused = cli(*flags, "-o", tmp_path / "out", "--seed", 1)
    assert refused.returncode == 2
    assert "statistics of another order of images; delete that file" in refused.stderr


def test_tensorrts_table_is_written_and_read_back(cli: Cli, built: Path, weights: Path, tmp_path: Path) -> None:
    path = tmp_path / "tensorrt.cache"
    flags = (*TINY, "--weights", weights, "--calib-cache", path, "-o", tmp_path / "out")
    cli.report(*flags)
    first = sha256(tmp_path / "out/05-int8.onnx")
    header, *lines = path.read_text().splitlines()
    assert header == "TRT-8502-EntropyCalibration2"
    held = dict(line.rsplit(": ", 1) for line in lines)
    assert {"logits", *qdq.tensors(built / "04-fold_batchnorm.onnx")} <= set(held)
    scale = np.array(int(held["/Div_output_0"], 16), np.uint32).view(np.float32)
    arrays = {
        each.name: onnx.numpy_helper.to_array(each)
        for each in onnx.load(tmp_path / "out/05-int8.onnx").graph.initializer
    }
    assert scale == arrays["/Div_output_0_scale"]
    report = cli.report(*flags)
    assert "scales of" in report["stages"][4]["work"]
    assert sha256(tmp_path / "out/05-int8.onnx") == first
    path.write_text(path.read_text().replace("/Div_output_0", "/other"))
    assert "another network: it has no scale for /Div_output_0" in cli(*flags).stderr


@pytest.mark.parametrize(
    ("text", "part"),
    [("", "begins with ''"), ("TRT-1-X\na: 00000000\n", "no scale above 0"), ("TRT-1-X\na 3f800000\n", "'a 3f800000'")],
)
def test_what_is_no_table_is_refused(tmp_path: Path, text: str, part: str) -> None:
    (tmp_path / "bad.table").write_text(text)
    with pytest.raises(ValueError, match=part):
        table.read(tmp_path / "bad.table", ["a"])


def test_the_known_line_of_a_real_table_is_one_over_127(tmp_path: Path) -> None:
    (tmp_path / "mnist.cache").write_text("TRT-7202-EntropyCalibration2\ndata: 3c008912\n")
    assert table.read(tmp_path / "mnist.cache", ["data"])["data"] == pytest.approx(0.99637, abs=1e-4)
    assert table.to_text({"data": 254.0, "dead": 0.0}) == f"{table.HEADER}\ndata: 40000000\ndead: 3f800000\n"


@pytest.mark.parametrize("placement", qdq.PLACEMENTS)
def test_the_table_of_a_network_with_a_dead_activation_is_read_back(
    cli: Cli, weights: Path, tmp_path: Path, placement: str
) -> None:
    """The first block of the network keeps only its shortcut."""
    held = load_file(weights)
    for key, value in {"weight": 0.0, "bias": -1.0}.items():
        held[f"layer1.0.bn1.{key}"][:] = value
    save_file(held, tmp_path / "dead.safetensors")
    path = tmp_path / "tensorrt.cache"
    flags = (*TINY, "--weights", tmp_path / "dead.safetensors", "--calib-cache", path, "--placement", placement)
    first, again = (cli.report(*flags, "-o", tmp_path / name)["stages"][4] for name in ("first", "again"))
    assert "are 0 on every image" in first["work"]
    assert ": 3f800000" in path.read_text()
    assert "scales of" in again["work"]
    scales, back = (
        {
            each.name: float(onnx.numpy_helper.to_array(each))
            for each in onnx.load(tmp_path / name / "05-int8.onnx").graph.initializer
            if each.name.endswith("_scale") and not each.dims
        }
        for name in ("first", "again")
    )
    assert back == pytest.approx(scales, rel=1e-6)


def test_a_planted_heavy_tail_makes_minmax_lose(built: Path, tmp_path: Path) -> None:
    src, array = built / "04-fold_batchnorm.onnx", pixels()
    seen = observe(src, qdq.tensors(src), [array[:70], array[:1] * 40])  # one image far too bright

    def quantise(method: str, path: Path) -> None:
        qdq.quantise(src, path, {name: ranges.METHODS[method](each) for name, each in seen.items()})

    outcome = tournament.compete(src, quantise, ranges.METHODS, tmp_path / "trial.onnx", lambda: [array[70:]])
    assert outcome.error_db["minmax"] > outcome.error_db[outcome.winner] + 3
    assert outcome.sentence.startswith(f"{outcome.winner}, ")
    assert outcome.rival in outcome.sentence


def test_the_default_stays_unless_it_is_beaten_beyond_the_interval() -> None:
    mse = np.random.default_rng(0).normal(-30, 1, 50)
    noise = np.random.default_rng(1).normal(0, 2, 50)
    close = tournament.play({"mse": mse, "entropy": mse - 0.1 + noise - noise.mean()})
    assert close.sentence.startswith("mse, since entropy is 0.1 dB better, which may be chance (-")
    assert tournament.play({"mse": mse, "entropy": mse - 2 + noise}).winner == "entropy"


def test_it_stops_when_more_images_change_no_rounding(cli: Cli, weights: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "many.npy", np.tile(pixels(), (6, 1, 1, 1)))
    flags = (*TINY, "--weights", weights, "--calib-data", tmp_path / "many.npy", "-o", tmp_path / "out")
    found = cli.report(*flags)["stages"][4]["details"]
    assert found["of"] == 512
    assert found["images"] in {128, 256}
    assert f"images round {found['images']} no worse than their own by 0.5 dB" in found["stopped"]
    asked = cli.report(*flags, "--calib-samples", 512)["stages"][4]["details"]
    assert (asked["images"], asked["stopped"]) == (512, None)


def test_odd_images_are_counted_and_named(tmp_path: Path) -> None:
    array = pixels()
    array[1], array[2], array[3] = array[0], 7.0, array[3] * 30
    found = screen(images(tmp_path, array))
    assert [found[kind]["count"] for kind in ("duplicates", "constant", "outside 0..255", "unlike the others")] == [
        1, 1, 1, 2,
    ]  # fmt: skip
    assert found["outside 0..255"]["names"] == [f"{tmp_path / 'some.npy'}[3]"]
    assert not [note for note in found["notes"] if "class" in note or "cropped" in note]
    larger = screen(images(tmp_path, np.tile(array, (1, 1, 2, 2))))
    assert "calibration arrays of 64 x 64, resized and cropped to 32 x 32" in larger["notes"]
    with pytest.raises(BadRequest, match="of one colour"):
        screen(images(tmp_path, np.full((5, 1, 32, 32), 9.0)))
    with pytest.raises(BadRequest, match="sets a fifth of the 20 calibration images aside"):
        _ = CalibrationJob(images(tmp_path, array[:20]), "auto").held


FLAT = """
import resource, sys
from pathlib import Path
import numpy as np
from calibration import observe, qdq
from calibration.histogram import Histogram
src, rng = Path(sys.argv[1]), np.random.default_rng(0)
observer = observe.Observer(src, qdq.tensors(src), Histogram)
peaks = []
for batches in (5, 495):
    observer.take(rng.uniform(0, 255, (20, 1, 32, 32)).astype(np.float32) for _ in range(batches))
    peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
print(peaks[1] - peaks[0])
"""


def test_memory_does_not_grow_from_100_to_10_000_images(built: Path) -> None:
    command = [sys.executable, "-c", FLAT, str(built / "04-fold_batchnorm.onnx")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert float(done.stdout) < 50  # megabytes
