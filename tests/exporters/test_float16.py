"""FP16 made safe: what float16 cannot hold over all calibration images stays in float32, and nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnx
import pytest
from safetensors.numpy import load_file, save_file

from exporters import onnx_file
from exporters.engines import tensorrt_rtx

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import Cli


def scaled(weights: Path, path: Path, factor: float) -> Path:
    """The same function with what goes from conv1 to conv2 of layer2.0 ``factor`` times as large."""
    tensors = load_file(weights)
    tensors["layer2.0.bn1.weight"] *= factor
    tensors["layer2.0.bn1.bias"] *= factor
    tensors["layer2.0.conv2.weight"] /= factor
    save_file(tensors, path)
    return path


@pytest.mark.parametrize("precision", ["fp16", "int8-fp16"])
@pytest.mark.parametrize("factor", [1e6, 1e-7])
def test_a_layer_out_of_range_stays_in_float32_by_name(
    cli: Cli, weights: Path, tmp_path: Path, precision: str, factor: float
) -> None:
    path = scaled(weights, tmp_path / "w.safetensors", factor)
    flags = ("--arch", "resnext_tiny", "--precision", precision, "--recover", "none", "--weights", path)
    report = cli.report(*flags, "--engine", "onnxruntime", "--max-drop", "0.03", "-o", tmp_path / "out")
    row = next(row for row in report["stages"] if row["name"] in {"fp16", "halve"})
    kept = row["work"].split("float32 kept: ")[1]
    assert "layer2.0.conv1 (" in kept
    assert "layer2.0.conv2 (" in kept
    assert "layer1" not in kept
    assert "layer3" not in kept
    assert row["certificate"]["proven"]
    float16_path = tmp_path / "out" / row["file"]
    types = {tensor.name: tensor.data_type for tensor in onnx.load(float16_path).graph.initializer}
    assert types["layer2.0.conv1.bias"] == onnx.TensorProto.FLOAT
    assert types["layer3.0.conv1.bias"] == onnx.TensorProto.FLOAT16
    assert onnx_file.count(onnx_file.read(float16_path), "Cast") <= 5
    tensorrt_rtx.BACKEND.build(float16_path, tmp_path / "engine")


def test_a_network_in_range_stays_whole(mixed: Path) -> None:
    halved = onnx_file.read(next(mixed.glob("0?-halve.onnx")))
    assert onnx_file.count(halved, "Cast") == 2
