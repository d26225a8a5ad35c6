"""``--precision fp8``: E4M3 operands, float16 around them; every weight the nearest E4M3 number."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest
from conftest import ROOT

from calibration import excess_noise, observe, range_fit
from exporters.certify import certify
from pipeline.finished.finished_build import FinishedBuild

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import Cli

WEIGHT = "layer2.0.conv2.weight"


@pytest.fixture(scope="module")
def eighth(
    cli: Cli, weights: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, dict[str, dict[str, object]]]:
    output = tmp_path_factory.mktemp("fp8")
    report = cli.report("--arch", "resnext_tiny", "--precision", "fp8", "--weights", weights, "-o", output)
    return output, {row["name"]: row for row in report["stages"]}


def test_fp8_is_judged_and_built(eighth: tuple[Path, dict[str, dict[str, object]]]) -> None:
    output, rows = eighth
    assert [row["verdict"] for row in rows.values()] == ["pass"] * 8 + ["not_run", "pass", "not_run"]
    assert "13 of 13 convolutions with FP8 operands" in str(rows["fp8"]["work"])
    # The builder leaves one in float, by its own list.
    assert rows["engine_tensorrt_rtx"]["work"] == "tensorrt-rtx, 8-bit convolutions 12 of 13"
    kinds = {
        tensor.name: tensor.data_type for tensor in onnx.load(output / str(rows["halve"]["file"])).graph.initializer
    }
    assert kinds[f"{WEIGHT}_float8_e4m3fn"] == onnx.TensorProto.FLOAT8E4M3FN
    assert kinds[f"{WEIGHT}_scale"] == onnx.TensorProto.FLOAT16


@pytest.mark.parametrize("command", ["sensitivity", "bisect"])
def test_commands_find_the_quantised_stage_by_its_role(
    eighth: tuple[Path, dict[str, dict[str, object]]], command: str
) -> None:
    output, _ = eighth
    line = [sys.executable, "-m", "pipeline", command, output, "--samples", "16"]
    done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("06-fp8.onnx next to 05-equalise.onnx on 16 images")


def level(raw: bytearray, _: np.ndarray) -> None:
    raw[7] ^= 1  # the neighbouring number


def sign(raw: bytearray, _: np.ndarray) -> None:
    raw[int(np.argmax(np.frombuffer(raw, np.uint8) & 0x7F))] ^= 0x80


def coarser(_: bytearray, scale: np.ndarray) -> None:
    scale *= 2


@pytest.mark.parametrize(("factor", "least", "most"), [(1, 0, 0.5), (8, 0, 1), (2**-6, 15, 99), (2**17, 15, 99)])
def test_a_scale_wastes_what_it_costs_e4m3(
    eighth: tuple[Path, dict[str, dict[str, object]]], tmp_path: Path, factor: float, least: float, most: float
) -> None:
    """Eight times too large costs a format with an exponent next to nothing."""
    output, rows = eighth
    before, file = (output / str(rows[name]["file"]) for name in ("equalise", "fp8"))
    model = onnx.load(file)
    quantise = next(node for node in model.graph.node if node.op_type == "QuantizeLinear" and "layer2" in node.name)
    scale = next(tensor for tensor in model.graph.initializer if tensor.name == quantise.input[1])
    larger = onnx.numpy_helper.to_array(scale) * np.float32(factor)
    scale.CopyFrom(onnx.numpy_helper.from_array(larger, scale.name))
    onnx.save(model, tmp_path / "planted.onnx")
    tensors = excess_noise.tensors(before, tmp_path / "planted.onnx")
    seen = observe.observe(before, tensors, FinishedBuild.open(output).test_images().batches())
    found = max(each.excess_db for each in excess_noise.excess_noises(before, tmp_path / "planted.onnx", seen))
    assert least <= found <= most
    assert {each.sqnr_db > 30 for each in range_fit.fits(file, seen) if each.sqnr_db} == {True}


@pytest.mark.parametrize("plant", [level, sign, coarser])
def test_another_number_than_the_nearest_is_refuted(
    eighth: tuple[Path, dict[str, dict[str, object]]], tmp_path: Path, plant: object
) -> None:
    output, rows = eighth
    before, file = (output / str(rows[name]["file"]) for name in ("equalise", "fp8"))
    assert certify(before, file).proven
    model = onnx.load(file)
    stored, scale = (
        next(t for t in model.graph.initializer if t.name == f"{WEIGHT}_{end}") for end in ("float8_e4m3fn", "scale")
    )
    raw, values = bytearray(stored.raw_data), onnx.numpy_helper.to_array(scale).copy()
    plant(raw, values)  # type: ignore[operator]
    stored.raw_data = bytes(raw)
    scale.CopyFrom(onnx.numpy_helper.from_array(values, scale.name))
    onnx.save(model, tmp_path / "planted.onnx")
    refuted = certify(before, tmp_path / "planted.onnx").refuted
    assert "layer2.0.conv2" in {item.module for item in refuted}
