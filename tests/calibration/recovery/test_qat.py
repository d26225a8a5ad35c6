"""Weights retrained under INT8: nearer to the float network, the same every time, and structure still proven."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest
from faults import array as constant
from faults import attribute, bump, drop_residual

from calibration import qdq
from calibration.recovery import qat
from calibration.recovery.student import Student
from exporters import onnx_file, reference
from exporters.certify import certify
from pipeline.building import calibrate
from pipeline.building.calibration_job import CalibrationJob
from pipeline.data import digits
from pipeline.data.images import Images
from pipeline.finished.finished_build import FinishedBuild
from pipeline.parity import answers
from pipeline.parity.drift import drift

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import Cli
    from faults import Fault

FOLD = "04-fold_batchnorm.onnx"
CONV = "/layer2/layer2.0/conv2/Conv"


@pytest.fixture(autouse=True)
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(qat, "RECIPE", replace(qat.RECIPE, steps=60))


def ranges(job: CalibrationJob, src: Path, tmp_path: Path) -> dict[str, float]:
    return calibrate.measured(job, src, tmp_path / "x.onnx")[0]


def tuned(src: Path, dst: Path, placement: str = "tensorrt") -> Path:
    """``src`` after QAT on the training images, for INT8 by minmax."""
    data = digits.read()
    job = CalibrationJob(Images(data.calibration, data.preprocessing), "minmax", placement=placement)
    train = Images(data.train, data.preprocessing)
    qat.qat(src, dst, ranges(job, src, dst.parent), placement, train.select, len(train), seed=0)
    return dst


@pytest.mark.parametrize("placement", ["tensorrt", "onnxruntime"])
def test_pytorch_computes_the_graph_and_its_pairs_as_onnx_runtime_does(
    built: Path, tmp_path: Path, placement: str
) -> None:
    data, src = digits.read(), built / FOLD
    images = Images(data.calibration, data.preprocessing)
    amax = ranges(CalibrationJob(images, "mse", placement=placement), src, tmp_path)
    levels = qdq.tensors(src, placement)
    student = Student(onnx_file.read(src).graph, {name: (amax[name], levels[name]) for name in levels})
    import torch

    pixels = images.select(np.arange(16))
    qdq.quantise(src, tmp_path / "q.onnx", amax, placement)
    for path, rounded, least in ((src, False, 120.0), (tmp_path / "q.onnx", True, 40.0)):
        with torch.no_grad():
            found = student(torch.from_numpy(pixels), student.weights, rounded=rounded).numpy()
        asked = reference.session(path).run(["logits"], {"images": pixels})[0]
        assert (drift(asked, found).sqnr_db or 999) > least


def test_int8_gains_and_the_same_seed_gives_the_same_bytes(built: Path, tmp_path: Path) -> None:
    test, src = FinishedBuild.open(built).test_images(), built / FOLD
    wanted = answers.of_file(src).answers(test, "float")
    data = digits.read()
    job = CalibrationJob(Images(data.calibration, data.preprocessing), "minmax")
    found = []
    for path in (src, tuned(src, tmp_path / "one.onnx")):
        qdq.quantise(path, tmp_path / "q.onnx", ranges(job, path, tmp_path))
        found.append(drift(wanted, answers.of_file(tmp_path / "q.onnx").answers(test, "int8")).sqnr_db or 999)
    assert found[1] > found[0] + 0.3
    assert tuned(src, tmp_path / "other.onnx").read_bytes() == (tmp_path / "one.onnx").read_bytes()


def wider(model: onnx.ModelProto) -> None:
    """A kernel with holes, of an answer of the same shape."""
    attribute(CONV, "dilations", [2, 2])(model)
    attribute(CONV, "pads", [2, 2, 2, 2])(model)


FAULTS: dict[str, Fault] = {
    "a kernel with holes": wider,
    "a residual": drop_residual,
    "pixel statistics": constant("pixel_std", bump((0, 0, 0, 0), 0.01)),
    "no numbers": constant("layer2.0.conv2.weight", lambda values: values * np.float32(np.inf)),
    "another shape": constant("fc.bias", lambda values: values[None]),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_structure_is_still_proven(built: Path, tmp_path: Path, fault: str) -> None:
    src, dst = built / FOLD, tmp_path / "qat.onnx"
    model = onnx.load(src)
    constant("layer2.0.conv1.weight", lambda values: values * np.float32(1.01))(model)
    onnx.save(model, dst)
    assert not certify(src, dst).proven
    certificate = certify(src, dst, retrained=True)
    assert (certificate.proven, certificate.retrained) == (True, 1)
    FAULTS[fault](model)
    # What the file says of its own tensors would give the fault away before anything is compared.
    del model.graph.value_info[:]
    onnx.save(model, dst)
    assert not certify(src, dst, retrained=True).proven


def test_a_build_retrains_only_where_asked_and_says_what_is_not_proven(cli: Cli, tmp_path: Path) -> None:
    flags = ("--arch", "resnext_tiny", "--precision", "int8", "--engine", "onnxruntime", "-o", tmp_path)
    report = cli.report(*flags, "--recover", "qat")
    row = next(row for row in report["stages"] if row["name"] == "qat")
    assert row["certificate"]["proven"]
    assert row["certificate"]["retrained"] > 20
    assert any("qat retrained the weights" in sentence for sentence in report["not_proven"])
    assert "equalise" not in [row["name"] for row in report["stages"]]


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (("--precision", "int8", "--recover", "qat,magic"), "there is no 'magic'; take none, auto"),
        (("--precision", "int8", "--recover", ""), "there is no ''"),
        (("--precision", "fp8", "--recover", "qat"), "qat goes with --precision int8"),
    ],
)
def test_recoveries_that_are_none_are_refused(cli: Cli, flags: tuple[str, ...], sentence: str) -> None:
    assert sentence in cli.refused("--arch", "resnet_tiny", *flags)


def test_an_operator_that_cannot_be_trained_through_is_named(built: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="BatchNormalization, which cannot be trained through"):
        tuned(built / "03-simplify.onnx", tmp_path / "x.onnx")
