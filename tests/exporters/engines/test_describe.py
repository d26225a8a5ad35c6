"""Engines described: the counts are those of the graph, and what is left in float is named by its module."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest
from conftest import ROOT, TINY, Cli
from faults import unpaired

from calibration import observe, qdq
from exporters import float16
from exporters.engines import description, onnxruntime, tensorrt_rtx

if TYPE_CHECKING:
    from pathlib import Path

    from exporters.engines.description import EngineDescription

INPUT = "/layer2/layer2.0/relu/Relu_output_0"
BRANCH = "/layer2/layer2.0/bn3/BatchNormalization_output_0"


def describe(*arguments: object) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-m", "pipeline", "describe", *map(str, arguments)]
    return subprocess.run(line, cwd=ROOT, capture_output=True, text=True, check=False)


def told(*arguments: object) -> dict[str, Any]:
    done = describe(*arguments, "--json")
    assert done.returncode == 0, done.stderr
    (only,) = json.loads(done.stdout)
    return dict(only)


def refused(*arguments: object) -> str:
    done = describe(*arguments)
    assert done.returncode == 2, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done.stderr


def test_a_compiled_file_is_told_as_its_nodes_and_its_report_say(built: Path) -> None:
    found = told(built)
    (engine,) = built.glob("*.ort.onnx")
    kinds = [node.op_type for node in onnx.load(engine).graph.node]
    row = json.loads((built / "report.json").read_text())["stages"][-1]
    counts = found["counts"]
    assert counts["layers"] == len(kinds) == len(found["layers"])
    assert counts["reformats"] == sum(kind in {"QuantizeLinear", "DequantizeLinear"} for kind in kinds) > 0
    assert counts["convolutions"] == sum(kind in {"Conv", "FusedConv", "QLinearConv"} for kind in kinds) == 13
    assert counts["convolutions_in_8_bits"] == kinds.count("QLinearConv") == round(13 * row["int8_share"]) < 13
    assert (counts["adds"], counts["adds_in_8_bits"], counts["adds_fused"]) == (kinds.count("Add"), 0, 0)
    assert row["details"] == {"backend": "onnxruntime", "description": None}
    assert found == {**told(engine), "file": engine.name}
    assert {"module": "layer2.0", "sentence": "residual Add reads float32, hands on float32"} in found["remarks"]


def test_of_very_many_layers_the_rest_is_counted(built: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (engine,) = built.glob("*.ort.onnx")
    whole = onnxruntime.BACKEND.describe(engine)
    monkeypatch.setattr(description, "MOST", 5)
    cut = onnxruntime.BACKEND.describe(engine)
    assert len(cut.layers) == 5 < len(whole.layers) == 5 + cut.left_out
    assert cut.counts() == whole.counts()


def test_the_table_has_every_module_with_its_types_and_names_what_is_in_float(built: Path) -> None:
    shown = describe(built).stdout
    assert re.search(r"layer1\.0\.conv2 +QLinearConv +uint8 +uint8", shown)
    assert re.search(r"layer1\.0\.conv3 +Conv +float32 +float32", shown)
    assert "residual Adds: 3, in the layer of a convolution: 0, in 8 bits throughout: 0" in shown
    assert "convolution reads float32, hands on float32: layer1.0.conv3, layer2.0.conv3, layer3.0.conv3" in shown


@pytest.fixture(scope="module")
def peaks(built: Path) -> dict[str, float]:
    """The largest magnitude of every activation on noise."""
    src = built / "04-fold_batchnorm.onnx"
    images = np.random.default_rng(0).uniform(0, 255, (4, 1, 32, 32)).astype(np.float32)
    histograms = observe.observe(src, observe.activations(src), [images])
    return {name: histogram.amax for name, histogram in histograms.items()}


@pytest.fixture(scope="module")
def integers(built: Path, peaks: dict[str, float], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny network with pairs for ONNX Runtime."""
    dst = tmp_path_factory.mktemp("integers") / "a.onnx"
    qdq.quantise(built / "04-fold_batchnorm.onnx", dst, peaks, "onnxruntime")
    return dst


def compiled(src: Path, folder: Path, *tensors: str) -> EngineDescription:
    """The file, without the pairs of ``tensors``, compiled by ONNX Runtime and described."""
    model = onnx.load(src)
    for tensor in tensors:
        unpaired(tensor)(model)
    onnx.save(model, folder / "planted.onnx")
    onnxruntime.BACKEND.build(folder / "planted.onnx", folder / "x.ort.onnx")
    return onnxruntime.BACKEND.describe(folder / "x.ort.onnx")


def test_all_in_integers_leaves_nothing_to_remark(integers: Path, tmp_path: Path) -> None:
    found = compiled(integers, tmp_path)
    assert found.counts()["convolutions_in_8_bits"] == 13
    assert found.counts()["adds_in_8_bits"] == 3
    assert list(found.remarks()) == []
    assert (found.weights or 0) > 100_000


def test_a_residual_branch_without_its_pair_shows_that_add_and_its_convolution(integers: Path, tmp_path: Path) -> None:
    remarks = dict(compiled(integers, tmp_path, BRANCH).remarks())
    assert remarks == {
        "layer2.0.conv3": "convolution reads float32, hands on float32",
        "layer2.0": "residual Add reads float32, hands on float32",
    }


def test_a_convolution_without_the_pair_of_its_input_shows_as_float(integers: Path, tmp_path: Path) -> None:
    remarks = dict(compiled(integers, tmp_path, INPUT).remarks())
    assert remarks.keys() == {"layer2.0.conv1", "layer2.0.conv2"}
    assert remarks["layer2.0.conv2"] == "convolution reads float32, hands on float32"


def test_types_that_onnx_runtime_does_not_write_down_are_found(
    built: Path, peaks: dict[str, float], tmp_path: Path
) -> None:
    float16.float16(built / "05-int8.onnx", tmp_path / "half.onnx", peaks)
    found = compiled(tmp_path / "half.onnx", tmp_path)
    weights = "uint8" if onnxruntime.processor() == onnxruntime.SATURATES else "int8"
    types = {name for layer in found.layers for name in layer.inputs}
    assert types == {"float32", "float16", "uint8", weights}
    assert {convolution.inputs for convolution in found.convolutions} == {("float32", "float32", "float32")}
    assert not any("Inserted" in module for layer in found.layers for module in layer.modules)


def test_a_build_keeps_what_tensorrt_rtx_listed(cli: Cli, built: Path, tmp_path: Path) -> None:
    assert built
    cli.report(*TINY, "--engine", "tensorrt-rtx", "-o", tmp_path / "x")
    found = told(tmp_path / "x")
    counts = found["counts"]
    assert (counts["convolutions"], counts["convolutions_that_read_8_bits"], counts["adds"]) == (13, 13, 3)
    assert found["source"] == "the builder's list"
    assert found["dla"] == 0 < found["weights"] < found["activations"]
    (conv,) = (layer for layer in found["layers"] if layer["name"].startswith("/layer2/layer2.0/conv2/Conv"))
    assert (conv["modules"], conv["inputs"]) == (["layer2.0.conv2"], ["int8"])
    assert {"fc", "maxpool", "layer3.0.relu_2"} <= {module for layer in found["layers"] for module in layer["modules"]}
    assert "convolution reads int8, hands on float32: conv1, layer1.0.conv1" in describe(tmp_path / "x").stdout
    engine = next((tmp_path / "x").glob("*.engine"))
    assert "give the directory of the build" in refused(engine)
    engine.write_bytes(b"another")
    assert "was changed after the build wrote it" in refused(tmp_path / "x")


def test_tensorrt_rtx_shows_the_convolution_whose_input_has_no_pair(built: Path, tmp_path: Path) -> None:
    model = onnx.load(built / "05-int8.onnx")
    unpaired(INPUT)(model)
    onnx.save(model, tmp_path / "planted.onnx")
    done = tensorrt_rtx.BACKEND.build(tmp_path / "planted.onnx", tmp_path / "x.engine")
    found = tensorrt_rtx.BACKEND.describe(tmp_path / "x.engine", {"description": done.description})
    assert found.counts()["convolutions_that_read_8_bits"] == done.eight_bit_convolutions == 12
    in_float = [convolution.module for convolution in found.convolutions if not convolution.reads_8_bits]
    assert in_float == ["layer2.0.conv2"]
    assert dict(found.remarks())["layer2.0.conv2"].startswith("convolution reads float32")


def test_of_several_profiles_each_convolution_counts_once(built: Path, tmp_path: Path) -> None:
    profiles = {"profiles": [[1, 1, 1], [2, 8, 16]]}
    done = tensorrt_rtx.BACKEND.build(built / "05-int8.onnx", tmp_path / "x.engine", profiles)
    counts = tensorrt_rtx.BACKEND.describe(tmp_path / "x.engine", {"description": done.description}).counts()
    assert counts["convolutions_that_read_8_bits"] == counts["convolutions"] == done.eight_bit_convolutions == 13
    assert counts["layers"] > 2 * 13 + 13


def test_float_convolutions_take_their_residual_adds_in_and_nothing_is_remarked(built: Path, tmp_path: Path) -> None:
    done = tensorrt_rtx.BACKEND.build(built / "04-fold_batchnorm.onnx", tmp_path / "x.engine")
    found = tensorrt_rtx.BACKEND.describe(tmp_path / "x.engine", {"description": done.description})
    assert (found.counts()["adds_fused"], found.counts()["convolutions_that_read_8_bits"]) == (3, 0)
    assert list(found.remarks()) == []


def test_a_backend_that_tells_nothing_hides_no_other(built: Path, tmp_path: Path) -> None:
    directory = shutil.copytree(built, tmp_path / "two")
    report = json.loads((directory / "report.json").read_text())
    engine = report["stages"][-1]
    silent = {**engine, "name": "engine_onnxruntime_cuda", "details": {"backend": "onnxruntime-cuda"}}
    report["stages"].insert(-1, silent)
    (directory / "report.json").write_text(json.dumps(report))
    done = describe(directory)
    assert done.returncode == 0, done.stderr
    assert f"not described: {engine['file']}: ONNX Runtime's CUDA provider fuses when it loads" in done.stderr
    assert "convolutions" in done.stdout


def test_what_cannot_be_described_is_refused_in_a_sentence(built: Path, tmp_path: Path) -> None:
    assert "no directory of a build" in refused(tmp_path / "missing")
    assert "no directory of a build" in refused(built / "05-int8.onnx")
    (tmp_path / "a.ort.onnx").write_bytes(b"\x08")
    assert "a.ort.onnx" in refused(tmp_path / "a.ort.onnx")
    assert "holds no report.json" in refused(tmp_path)
    old = shutil.copytree(built, tmp_path / "old")
    report = json.loads((old / "report.json").read_text())
    for details in ({}, {"backend": "os"}, {"backend": "tensorrt-rtx", "description": None}):
        report["stages"][-1]["details"] = details
        (old / "report.json").write_text(json.dumps(report))
        assert re.search("build again|no layers that could be read", refused(old))
    report["stages"][-1]["details"] = {"backend": "tensorrt-rtx", "description": {"layers": [1]}}
    (old / "report.json").write_text(json.dumps(report))
    assert "not whole" in refused(old)
    report["stages"], report["verdict"] = report["stages"][:-1], "fail"
    (old / "report.json").write_text(json.dumps(report))
    assert f"has no engine, and its verdict is fail; check {old} says why" in refused(old)
