"""The TensorRT family's builder, for real: TensorRT-RTX needs no GPU to build."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest
from onnx import helper

from calibration import observe, qdq
from exporters import child, float16, lint
from exporters.engines import tensorrt, tensorrt_rtx
from exporters.float_weights import float_weights
from exporters.number_formats import FP8
from exporters.portable import cuda
from pipeline.building import backends
from pipeline.errors import BadRequest
from pipeline.precisions import PRECISIONS
from pipeline.recipe import Recipe

if TYPE_CHECKING:
    from collections.abc import Callable

    from conftest import Cli


def test_every_convolution_of_the_int8_file_is_built_in_int8(built: Path, tmp_path: Path) -> None:
    done = tensorrt_rtx.BACKEND.build(built / "05-int8.onnx", tmp_path / "x.engine")
    assert (done.convolutions, done.eight_bit_convolutions) == (13, 13)
    assert (tmp_path / "x.engine").read_bytes()[:4] == b"vtrt"


def test_the_folded_file_is_built_without_a_word_of_int8(built: Path, tmp_path: Path) -> None:
    assert (
        tensorrt_rtx.BACKEND.build(built / "04-fold_batchnorm.onnx", tmp_path / "x.engine").eight_bit_convolutions
        is None
    )


def test_a_zero_point_that_tensorrt_refuses_is_an_error_with_its_words(built: Path, tmp_path: Path) -> None:
    model = onnx.load(built / "05-int8.onnx")
    zero = next(i for i in model.graph.initializer if i.name.endswith("Relu_output_0_zero_point"))
    zero.CopyFrom(helper.make_tensor(zero.name, onnx.TensorProto.INT8, [], [3]))
    onnx.save(model, tmp_path / "a.onnx")
    with pytest.raises(RuntimeError, match="Non-zero zero point is not supported"):
        tensorrt_rtx.BACKEND.build(tmp_path / "a.onnx", tmp_path / "x.engine")
    assert not (tmp_path / "x.engine").exists()


def test_an_empty_file_never_reaches_the_parser(tmp_path: Path) -> None:
    (tmp_path / "a.onnx").write_bytes(b"")
    with pytest.raises(RuntimeError, match="ONNX file"):
        tensorrt_rtx.BACKEND.build(tmp_path / "a.onnx", tmp_path / "x.engine")


def test_lint_names_the_operators_that_the_parser_does_not_know() -> None:
    code = """
import onnx, tensorrt_rtx as trt
logger = trt.Logger(trt.Logger.ERROR)
builder = trt.Builder(logger)
parser = trt.OnnxParser(builder.create_network(0), logger)
names = {schema.name for schema in onnx.defs.get_all_schemas() if not schema.domain}
print(*(name for name in names if not parser.supports_operator(name)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert set(done.stdout.split()) == lint.UNKNOWN


@pytest.fixture(scope="module")
def files(built: Path, mixed: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The tiny network in every precision."""
    folder = tmp_path_factory.mktemp("precisions")
    src = built / "04-fold_batchnorm.onnx"
    images = np.random.default_rng(0).uniform(0, 255, (4, 1, 32, 32)).astype(np.float32)
    histograms = observe.observe(src, observe.activations(src), [images])
    peaks = {name: histogram.amax for name, histogram in histograms.items()}
    float16.float16(src, folder / "fp16.onnx", peaks)
    qdq.quantise(src, folder / "fp8.onnx", peaks, number_format=FP8)
    float_weights(built / "05-int8.onnx", folder / "trt8.onnx")
    halves = {"fp16": folder / "fp16.onnx", "int8-fp16": next(mixed.glob("0?-halve.onnx")), "fp8": folder / "fp8.onnx"}
    return {"fp32": src, "int8": built / "05-int8.onnx", "int8-trt8": folder / "trt8.onnx", **halves}


@pytest.mark.parametrize("target", tensorrt_rtx.TARGETS)
def test_each_gpu_gets_what_the_table_says(files: dict[str, Path], tmp_path: Path, target: str) -> None:
    assert set(files) == set(PRECISIONS)
    refused = []
    for precision, path in files.items():
        try:
            tensorrt_rtx.BACKEND.build(path, tmp_path / "x.engine", {"rtx_sm": [target]})
        except RuntimeError:
            refused.append(precision)
    recipe = Recipe(arch="resnet18", rtx_sm=[target])
    said = set()
    for precision in PRECISIONS.values():
        try:
            backends.options(tensorrt_rtx.BACKEND, recipe, precision)
        except BadRequest:
            said.add(precision.name)
    assert set(refused) == said


def test_several_gpus_share_one_engine(files: dict[str, Path], tmp_path: Path) -> None:
    for name, targets in (("one", ["86"]), ("three", ["86", "89", "120"])):
        tensorrt_rtx.BACKEND.build(files["fp16"], tmp_path / name, {"rtx_sm": targets})
    assert (tmp_path / "three").stat().st_size > (tmp_path / "one").stat().st_size


@pytest.mark.parametrize(
    ("flags", "part"),
    [
        (("--precision", "fp32", "--rtx-sm", "75"), "--rtx-sm 75: no fp32 there; take fp16, int8-fp16"),
        (("--precision", "fp8", "--rtx-sm", "120", "86"), "--rtx-sm 86: no fp8 there"),
        (("--precision", "fp16", "--rtx-sm", "87"), "TensorRT-RTX builds for 75, 80, 86, 89, 120, 121"),
        (
            ("--precision", "fp16", "--engine", "onnxruntime", "--rtx-sm", "86"),
            "--rtx-sm goes with --engine tensorrt-rtx",
        ),
    ],
)
def test_what_no_gpu_of_that_kind_can_is_refused_before_any_work(
    cli: Cli, tmp_path: Path, flags: tuple[str, ...], part: str
) -> None:
    assert part in cli.refused("--arch", "resnext_tiny", *flags, "-o", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_without_a_gpu_tensorrt_says_so() -> None:
    if cuda.driver() is None:
        assert "no NVIDIA GPU" in str(tensorrt.BACKEND.available())
    else:
        assert cuda.name()


def stopped_at(phase: str, number: signal.Signals) -> Callable[[str], None]:
    """What sends ``number`` to the builder's process as soon as it says ``phase``."""

    def heard(line: str) -> None:
        if line.startswith(phase):
            for stat in Path("/proc").glob("[0-9]*/stat"):
                if stat.read_text().rpartition(")")[2].split()[1] == str(os.getpid()):
                    os.kill(int(stat.parent.name), number)

    return heard


@pytest.mark.parametrize(
    ("limits", "sentence"),
    [
        (
            {"heard": stopped_at("Parsing node: /layer2", signal.SIGSEGV)},
            r"crashed \(SIGSEGV\): (Parsing node: |.* \d+/\d+$)",
        ),
        ({"heard": stopped_at("Timing graph nodes", signal.SIGSEGV)}, r"crashed \(SIGSEGV\): .* \d+/\d+$"),
        (
            {"heard": stopped_at("Timing graph nodes", signal.SIGSTOP), "seconds": 12},
            "did not end within 12 s and was stopped: ",
        ),
        ({"memory": 2**28}, "needed more than its limit of 0.2 GiB of memory"),
    ],
    ids=["a crash in the parser", "a crash in the builder", "a hang", "too little memory"],
)
def test_a_builder_that_dies_says_where(built: Path, tmp_path: Path, limits: dict[str, Any], sentence: str) -> None:
    src = built / "05-int8.onnx"
    dst = tmp_path / "x.engine"
    with pytest.raises(RuntimeError, match=sentence):
        child.call("exporters.engines.trt_builder:in_child", "tensorrt_rtx", str(src), str(dst), "{}", **limits)
    assert not dst.exists()


def test_every_profile_is_counted_once(built: Path, tmp_path: Path) -> None:
    phases = []
    options = {"profiles": [[1, 1, 1], [1, 4, 8]], "workspace": 2**28, "rtx_sm": ["86", "89"]}
    done = tensorrt_rtx.BACKEND.build(
        built / "05-int8.onnx", tmp_path / "x.engine", options, lambda phase, *_: phases.append(phase)
    )
    assert (done.convolutions, done.eight_bit_convolutions) == (13, 13)
    assert "Building engine" in phases
