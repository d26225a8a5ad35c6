"""Layers that INT8 loses go back to float, and only those: found on calibration images held out."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from conftest import TINY, Cli
from safetensors.numpy import load_file, save_file

from calibration import dequantise_layers
from exporters import lint
from pipeline.building import calibrate, recover
from pipeline.building.calibration_job import CalibrationJob
from pipeline.data import digits
from pipeline.data.images import Images
from pipeline.parity.layers_in_float import in_images
from pipeline.precisions import QUANTISED

if TYPE_CHECKING:
    from pathlib import Path

    from pipeline.stage import Made

LOST = "layer2.0.conv3"
FOLD = "04-fold_batchnorm.onnx"


@pytest.fixture(scope="session")
def lossy(weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The network with one channel dead, and what reads it so large that no other weight has a level left in INT8."""
    held = load_file(weights)
    dead, reader = LOST.replace("conv3", "bn2"), held[f"{LOST}.weight"]
    held[f"{dead}.weight"][0], held[f"{dead}.bias"][0] = 0, -1
    reader[:, 0] = 400 * np.abs(reader).max()
    path = tmp_path_factory.mktemp("lossy") / "w.safetensors"
    save_file(held, path)
    return path


def calibration(count: int) -> CalibrationJob:
    data = digits.read()
    return CalibrationJob(Images(data.calibration.take(np.arange(count)), data.preprocessing), "mse", hold=True)


def mended(job: CalibrationJob, built: Path, tmp_path: Path, **bounds: float | None) -> tuple[bool, Made]:
    """What the stage says of itself, and whether its file is, byte for byte, that of the stage without recovery."""
    plain, path = tmp_path / "plain.onnx", tmp_path / "mended.onnx"
    calibrate.quantise(job, built / FOLD, plain)
    made = calibrate.quantise(job, built / FOLD, path, partial(recover.mixed, job, replace(QUANTISED, **bounds)))
    return plain.read_bytes() == path.read_bytes(), made


def test_the_layer_that_int8_loses_goes_back_to_float(cli: Cli, lossy: Path, tmp_path: Path) -> None:
    flags = (*TINY, "--weights", lossy, "--recover", "auto", "-o", tmp_path)
    row = cli.report(*flags)["stages"][5]
    found = row["details"]["recovery"]
    assert found["in_float"] == [LOST]
    assert row["work"].endswith(f"; in float to keep the accuracy: {LOST}")
    assert row["work"].startswith("12 of 13 convolutions")
    assert row["int8_share"] == pytest.approx(12 / 13)
    assert found["before"]["sqnr_db"] < found["bounds"]["sqnr_db"] < found["after"]["sqnr_db"]
    nodes = onnx.load(tmp_path / row["file"]).graph.node
    assert {name for node in nodes for name in node.output} <= {"logits", *(n for node in nodes for n in node.input)}


def test_an_honest_network_keeps_every_layer_and_its_bytes(built: Path, tmp_path: Path) -> None:
    same, made = mended(calibration(100), built, tmp_path)
    found = made.details["recovery"]
    assert same
    assert made.work.endswith("over 80 images; 20 others show nothing against it")
    assert (found["in_float"], found["evaluations"]) == ([], 1)
    assert found["before"] == found["after"]


def test_more_than_int8_can_give_takes_layers_by_the_bound_alone(built: Path, tmp_path: Path) -> None:
    """Without labels nothing is said of accuracy."""
    same, made = mended(calibration(100), built, tmp_path, sqnr_db=40, drop=None)
    found = made.details["recovery"]
    assert not same
    assert found["before"]["sqnr_db"] < 40 <= found["after"]["sqnr_db"]
    assert (found["after"]["top1"], found["bounds"]["drop"]) == (None, None)


def test_bounds_that_float_misses_too_leave_the_file_alone(built: Path, tmp_path: Path) -> None:
    same, made = mended(calibration(100), built, tmp_path, drop=-1.0)
    assert same
    assert made.details["recovery"]["in_float"] is None
    assert made.work.endswith("the fault is not in a Q/DQ pair")


def test_too_few_images_are_all_for_calibration_and_it_is_said(built: Path, tmp_path: Path) -> None:
    same, made = mended(calibration(39), built, tmp_path, sqnr_db=100)
    assert same
    assert "over 39 images; 39 calibration images are too few" in made.work
    assert made.details["recovery"] == {}


def test_images_held_out_give_no_statistics_and_change_none_of_the_first() -> None:
    job = calibration(100)
    first, held = job.split
    assert (len(first), len(held)) == (80, 20)
    assert not set(first) & set(held)
    assert list(replace(job, hold=False).split[0][:80]) == list(first)
    assert len(set(job.images.labels[held])) == 10


def test_calibration_images_of_one_class_are_told_by_what_the_network_answers(
    cli: Cli, weights: Path, tmp_path: Path
) -> None:
    data = digits.read()
    images = Images(data.train.take(np.flatnonzero(data.train.labels == 3)), data.preprocessing)
    np.save(tmp_path / "threes.npy", np.concatenate(list(images.batches(20))))
    flags = ("--arch", "resnext_tiny", "--precision", "int8", "--weights", weights, "--engine", "onnxruntime")
    flags = (*flags, "--calib-data", tmp_path / "threes.npy", "-o", tmp_path / "out")
    sentence = cli.refused(*flags, "--recover", "auto")
    assert "the network answers class 3 to each of 1" in sentence
    assert not list((tmp_path / "out").glob("06-*"))
    assert cli(*flags, "--recover", "none").returncode in {0, 4}


def test_a_layer_in_float_leaves_no_pair_behind_that_breaks_a_rule(built: Path) -> None:
    """What reads a MaxPool in float takes the pair before the pool with it, and a residual Add its convolutions."""
    quantised = built / "05-int8.onnx"
    layers = dequantise_layers.layers(quantised)
    feeding = dequantise_layers.convolutions_feeding_adds(quantised)
    assert {"maxpool", "layer1.0"} <= set(layers)
    assert feeding["layer1.0"] == {"layer1.0.conv3", "layer1.0.downsample.0"}
    for layer in layers:
        modules = {layer, *feeding.get(layer, ())}
        file = onnx.load_from_string(dequantise_layers.with_layers_in_float(built / FOLD, quantised, modules))
        assert lint.lint(ir.from_proto(file)) == [], modules


def test_few_images_miss_a_share_only_beyond_chance() -> None:
    asked = replace(QUANTISED, agreement=0.97, drop=0.01)
    found = in_images(asked, 64)
    assert (found.agreement, found.drop) == (60 / 64, 1 / 64)
    # 59 or fewer of 64 would be alike in less than one of 20 samples of a network with 97 %, 60 or fewer would in more.
    rng = np.random.default_rng(0)
    alike = rng.binomial(64, 0.97, 100_000)
    assert (alike < 60).mean() < 0.05 < (alike < 61).mean()
    many = in_images(asked, 10**6)
    assert many.agreement == pytest.approx(0.97, abs=0.001)
    assert many.drop == pytest.approx(0.01, abs=1e-6)
    assert in_images(replace(asked, drop=None), 8).drop is None
