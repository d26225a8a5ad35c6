"""Planted layers that cost accuracy: the search names them, and the figures come back without them."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest
from conftest import ROOT, Cli
from test_debug import CONV, FOLD, INPUT, INT8, Fault, both, change, coarser, residual

from calibration import dequantise_layers
from pipeline.data import sampling
from pipeline.finished import build_directory
from pipeline.finished.bisect import bisect
from pipeline.finished.debug import diagnose
from pipeline.parity import answers
from pipeline.parity.drift import drift
from pipeline.parity.layers_in_float import Trial
from pipeline.parity.search import smallest

if TYPE_CHECKING:
    from pathlib import Path

    from pipeline.data.images import Images
    from pipeline.stage import Tolerance

OTHER = "layer1.0.conv1.weight"
PLANTED: list[tuple[list[str], Fault]] = [
    (["layer2.0.conv2"], change(f"{CONV}_scale", lambda s: s * 4)),
    (["layer2.0.conv2"], coarser(CONV)),
    (["layer2.0.conv2"], change(f"{CONV}_scale", lambda s: s * np.nan)),
    (["layer2.0.conv2"], change(f"{INPUT}_scale", lambda s: s / 4)),
    (["layer1.0.conv1", "layer2.0.conv2"], both(coarser(CONV), change(f"{OTHER}_scale", lambda s: s * 4))),
]


def planted(build: Path, place: Path, plant: Fault) -> Path:
    model = onnx.load(build / INT8)
    plant(model)
    onnx.save(model, place / "bad.onnx")
    return place / "bad.onnx"


def clean(build: Path, images: Images, more: float) -> Tolerance:
    """What the honest INT8 file holds on ``images``, and ``more`` dB; which of few answers flip is luck."""
    reference = answers.of_file(build / FOLD).answers(images, "float")
    honest = drift(reference, answers.of_file(build / INT8).answers(images, "int8"))
    assert honest.sqnr_db is not None
    return build_directory.bounds(build, "int8", sqnr_db=honest.sqnr_db + more, agreement=0.8, drop=0.2)


@pytest.mark.parametrize(("modules", "plant"), PLANTED)
def test_planted_layers_are_found_exactly(built: Path, tmp_path: Path, modules: list[str], plant: Fault) -> None:
    bad, images = planted(built, tmp_path, plant), sampling.some(build_directory.test_images(built), 64)
    found = bisect(built / FOLD, bad, images, clean(built, images, -2))
    assert found["in_float"] == modules
    assert set(found["because"]) == set(modules)
    assert found["after"]["sqnr_db"] > 30
    assert found["evaluations"] <= len(modules) * (np.log2(found["layers"]) + 3) + 2


def test_three_layers_of_no_numbers_are_found(built: Path, tmp_path: Path) -> None:
    """No layer by itself gives anything back there: a ranking by that alone knows nothing."""
    modules = ["layer1.0.conv1", "layer2.0.conv1", "layer2.0.conv2"]
    planting = [change(f"{module}.weight_scale", lambda s: s * np.nan) for module in modules]
    bad, images = planted(built, tmp_path, both(*planting)), sampling.some(build_directory.test_images(built), 64)
    assert bisect(built / FOLD, bad, images, clean(built, images, -2))["in_float"] == modules


def test_the_set_is_within_one_layer_of_brute_force(built: Path) -> None:
    """Real noise adds up and cancels, so the search may miss the least set; by how much is counted."""
    images = sampling.some(build_directory.test_images(built), 32)
    layers = dequantise_layers.layers(built / INT8)
    reference = answers.of_file(built / FOLD).answers(images, "float")
    for more in (1.5, 2, 3, 4, 6):
        bounds = clean(built, images, more)
        trial = Trial(built / FOLD, built / INT8, images, bounds, {}, lambda: None, reference)
        found = smallest(layers, trial.passes, trial.ranked)
        assert found is not None
        if len(found) > 1:
            break
    assert len(found) > 1
    for size in range(len(found) - 1):
        assert not any(trial.passes(frozenset(off)) for off in itertools.combinations(layers, size)), size


def test_a_fault_outside_the_pairs_is_told_from_one_inside(built: Path, tmp_path: Path) -> None:
    bad = planted(built, tmp_path, residual)
    found = bisect(
        built / FOLD, bad, sampling.some(build_directory.test_images(built), 64), build_directory.bounds(built, "int8")
    )
    assert (found["verdict"], found["in_float"]) == ("fail", None)


@pytest.fixture(scope="session")
def resnet18(cli: Cli, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("resnet18") / "int8"
    flags = (
        "--arch",
        "resnet18",
        "--precision",
        "int8",
        "--engine",
        "onnxruntime",
        "--epochs",
        "2",
        "--recover",
        "none",
    )
    done = cli(*flags, "--test-samples", "100", "-o", output)
    assert done.returncode in {0, 1, 4}, done.stderr
    return output


@pytest.mark.parametrize("how", ["in DQ alone", "requantised"])
def test_both_commands_name_one_wrong_scale_of_a_resnet18(resnet18: Path, tmp_path: Path, how: str) -> None:
    weight = "layer2.1.conv2.weight"
    plant = coarser(weight) if how == "requantised" else change(f"{weight}_scale", lambda s: s * 4)
    bad, images = planted(resnet18, tmp_path, plant), sampling.some(build_directory.test_images(resnet18), 16)
    found = diagnose(resnet18 / FOLD, bad, images)
    assert [fault["module"] for fault in found["faults"]] == ["layer2.1.conv2"]
    assert bisect(resnet18 / FOLD, bad, images, clean(resnet18, images, -2))["in_float"] == ["layer2.1.conv2"]


def command(*arguments: object) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-m", "pipeline", "bisect", *map(str, arguments)]
    return subprocess.run(line, cwd=ROOT, capture_output=True, text=True, check=False)


def test_the_command_answers_and_refuses(built: Path, tmp_path: Path) -> None:
    assert "no layer is to blame on so few images as it is" in command(built, "--samples", 64).stdout
    more = json.loads(command(built, "--samples", 64, "--json").stdout)["before"]["sqnr_db"] + 0.5
    done = command(built, "--samples", 64, "--sqnr", more, "--json")
    assert done.returncode == 1, done.stderr
    assert json.loads(done.stdout)["after"]["sqnr_db"] >= more
    told = command(built, "--samples", 64, "--sqnr", more).stdout
    assert told.endswith("it was built with --recover none; auto equalises channels, and may mend this\n")
    for sentence, flags in {
        "holds no report.json": (tmp_path,),
        "has simplify, fold_batchnorm, int8, engine": (built, "--stage", "fp16"),
        "has no Q/DQ pairs": (built, "--stage", "fold_batchnorm"),
        "--sqnr nan is no number": (built, "--sqnr", "nan"),
    }.items():
        done = command(*flags)
        assert done.returncode == 2
        assert sentence in done.stderr
