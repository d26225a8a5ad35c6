"""The report of ranges and of layers, one at a time: figures that NumPy gives as well, and the planted layer on top."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest
from conftest import ROOT

from exporters import reference
from pipeline.commands.sensitivity import lines
from pipeline.data import sampling
from pipeline.errors import BadRequest
from pipeline.finished.finished_build import FinishedBuild
from pipeline.finished.sensitivity import sensitivity

if TYPE_CHECKING:
    from pathlib import Path

FOLD, INT8 = "04-fold_batchnorm.onnx", "05-int8.onnx"


def command(*arguments: object) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-m", "pipeline", "sensitivity", *map(str, arguments)]
    return subprocess.run(line, cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def shown(built: Path) -> dict[str, object]:
    done = command(built, "--samples", "32", "--json")
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


def test_each_tensor_has_the_figures_of_its_values(built: Path, shown: dict[str, object]) -> None:
    model = onnx.load(built / FOLD)
    name = "/layer2/layer2.0/relu/Relu_output_0"
    model.graph.output.append(onnx.ValueInfoProto(name=name))
    images = sampling.some(FinishedBuild.open(built).test_images(), 32)
    session = reference.session(model.SerializeToString())
    values = np.concatenate([session.run([name], {"images": batch})[0] for batch in images.batches(8)])
    row = next(row for row in shown["tensors"] if row["tensor"] == name)  # type: ignore[attr-defined]
    scale = row["amax"] / 127
    rounded = np.clip(np.rint(values / scale), -127, 127) * scale
    assert row["module"] == "layer2.0.relu"
    assert row["seen"] == pytest.approx(values.max(), rel=1e-5)
    assert row["clipped"] == pytest.approx((values > row["amax"]).mean(), abs=1e-4)
    assert row["sqnr_db"] == pytest.approx(10 * np.log10(np.sum(values**2) / np.sum((rounded - values) ** 2)), abs=0.3)
    largest = ((values > values.max() / 2) & (values <= values.max())).mean()
    assert row["octaves"][-1] == pytest.approx(largest, abs=2e-3)


def test_the_layer_that_was_spoilt_comes_first(built: Path, tmp_path: Path) -> None:
    model = onnx.load(built / INT8)
    tensor = next(t for t in model.graph.initializer if t.name == "layer2.0.conv3.weight_scale")
    tensor.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(tensor) * np.float32(1.5), tensor.name))
    onnx.save(model, tmp_path / INT8)
    images = sampling.some(FinishedBuild.open(built).test_images(), 16)
    result = sensitivity(built / FOLD, tmp_path / INT8, images)
    assert result["layers"][0]["layer"] == "layer2.0.conv3"
    assert len(result["layers"]) == 17
    assert all(row["sqnr_db"] is not None and row["layer"] != "maxpool" for row in result["layers"])
    text = list(lines(result, 3))
    assert len(text) == 9
    assert "layer2.0.conv3" in text[6]


def test_a_scale_that_is_no_number_is_a_sentence(built: Path, tmp_path: Path) -> None:
    model = onnx.load(built / INT8)
    quantise = next(node for node in model.graph.node if node.op_type == "QuantizeLinear" and node.input[1])
    tensor = next(t for t in model.graph.initializer if t.name == quantise.input[1])
    tensor.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(tensor) * np.float32(np.nan), tensor.name))
    onnx.save(model, tmp_path / INT8)
    with pytest.raises(BadRequest, match=r"05-int8.onnx with .* quantised: .*NaN or infinity; debug names the module"):
        sensitivity(built / FOLD, tmp_path / INT8, sampling.some(FinishedBuild.open(built).test_images(), 4))


def test_a_build_without_pairs_is_refused(built: Path) -> None:
    done = command(built, "--stage", "fold_batchnorm")
    assert done.returncode == 2
    assert "has no Q/DQ pairs" in done.stderr
