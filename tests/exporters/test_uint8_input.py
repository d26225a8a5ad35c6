"""Pixels as bytes: the same numbers in, the same bits out, and no other."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest
from faults import array
from safetensors.numpy import load_file, save_file

from exporters.certify import certify
from exporters.uint8_input import uint8_input
from pipeline.data import sampling
from pipeline.finished import debug, recheck
from pipeline.finished.finished_build import FinishedBuild
from pipeline.parity import answers

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import Cli


@pytest.fixture(scope="module")
def bytes_in(cli: Cli, weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("uint8") / "out"
    flags = ("--arch", "resnext_tiny", "--precision", "int8", "--input-dtype", "uint8", "--weights", weights)
    cli.report(*flags, "-o", output)
    return output


def test_every_engine_takes_bytes_and_answers_the_same(bytes_in: Path) -> None:
    rows = {row["name"]: row for row in json.loads((bytes_in / "report.json").read_text())["stages"]}
    for name in ("uint8_input", "fp16_uint8_input"):
        assert rows[name]["verdict"] == "pass"
        assert rows[name]["step"]["max_abs"] == 0  # the same bits
        assert rows[name]["certificate"]["proven"]
    assert (rows["engine"]["source"], rows["engine"]["verdict"]) == ("uint8_input", "pass")
    assert rows["engine_tensorrt_rtx"]["int8_share"] == 1
    for path in bytes_in.glob("*-engine.ort.onnx"):
        (images,) = onnx.load(path).graph.input
        assert images.type.tensor_type.elem_type == onnx.TensorProto.UINT8


def test_pixels_that_are_no_bytes_are_refused(bytes_in: Path) -> None:
    run = answers.of_file(next(bytes_in.glob("*-uint8_input.onnx"))).run
    whole = np.full((1, 1, 32, 32), 255, np.float32)
    assert run(whole).shape == (1, 10)
    for wrong in (whole + 0.5, whole + 1, -whole):
        with pytest.raises(ValueError, match="no whole numbers from 0 to 255"):
            run(wrong)


def test_what_is_not_only_cast_is_another_input(built: Path, tmp_path: Path) -> None:
    src = built / "05-int8.onnx"
    dst = tmp_path / "a.onnx"
    uint8_input(src, dst)
    assert certify(src, dst).proven
    model = onnx.load(dst)
    model.graph.node.append(onnx.helper.make_node("Shape", ["images"], ["shape"], "/Shape"))
    onnx.save(model, dst)
    assert "UINT8" in certify(src, dst).refuted[0].found


def test_the_first_module_at_fault_is_found_behind_bytes(bytes_in: Path, tmp_path: Path) -> None:
    good, bad = FinishedBuild.open(bytes_in).stage_files("uint8_input")
    model = onnx.load(bad)
    array("layer2.0.conv1.bias", lambda bias: bias + 1)(model)
    onnx.save(model, tmp_path / "bad.onnx")
    images = sampling.some(FinishedBuild.open(bytes_in).test_images(), 16)
    for before in (good, bad):  # pixels as float32, and as bytes
        diagnosis = debug.diagnose(before, tmp_path / "bad.onnx", images, tmp_path / "case")
        assert diagnosis["first"]["module"] == "layer2.0.conv1"


def test_a_check_asks_for_the_same_bits_as_well(bytes_in: Path, tmp_path: Path) -> None:
    shutil.copytree(bytes_in, tmp_path / "copy")
    path = tmp_path / "copy" / "answers.safetensors"
    tensors = load_file(path)
    for name in ("uint8_input", "fp16_uint8_input"):
        tensors[f"step_max_abs.{name}"].fill(0.01)
        tensors[f"step_sqnr_db.{name}"].fill(45)
    save_file(tensors, path)
    checked, _ = recheck.recheck(tmp_path / "copy")
    failed = {row.name: row.reasons for row in checked.stages if row.verdict == "fail"}
    # The first one tells that the answers are others.
    assert failed.keys() == {"freeze", "uint8_input", "fp16_uint8_input"}
    assert any("is 45, below its bound of 300" in reason for reason in failed["uint8_input"])
