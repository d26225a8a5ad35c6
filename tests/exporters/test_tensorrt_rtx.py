"""The TensorRT family's builder, for real: TensorRT-RTX needs no GPU to build."""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnx
import pytest
from onnx import helper

from exporters.engines import gpu, tensorrt, tensorrt_rtx

if TYPE_CHECKING:
    from pathlib import Path


def test_every_convolution_of_the_int8_file_is_built_in_int8(built: Path, tmp_path: Path) -> None:
    done = tensorrt_rtx.build(built / "05-int8.onnx", tmp_path / "x.engine")
    assert (done["convolutions"], done["int8"]) == (13, 13)
    assert (tmp_path / "x.engine").read_bytes()[:4] == b"vtrt"


def test_the_folded_file_is_built_without_a_word_of_int8(built: Path, tmp_path: Path) -> None:
    assert tensorrt_rtx.build(built / "04-fold_batchnorm.onnx", tmp_path / "x.engine")["int8"] is None


def test_a_zero_point_that_tensorrt_refuses_is_an_error_with_its_words(built: Path, tmp_path: Path) -> None:
    model = onnx.load(built / "05-int8.onnx")
    zero = next(i for i in model.graph.initializer if i.name.endswith("Relu_output_0_zero_point"))
    zero.CopyFrom(helper.make_tensor(zero.name, onnx.TensorProto.INT8, [], [3]))
    onnx.save(model, tmp_path / "a.onnx")
    with pytest.raises(RuntimeError, match="Non-zero zero point is not supported"):
        tensorrt_rtx.build(tmp_path / "a.onnx", tmp_path / "x.engine")
    assert not (tmp_path / "x.engine").exists()


def test_an_empty_file_never_reaches_the_parser(tmp_path: Path) -> None:
    (tmp_path / "a.onnx").write_bytes(b"")
    with pytest.raises(RuntimeError, match="ONNX file"):
        tensorrt_rtx.build(tmp_path / "a.onnx", tmp_path / "x.engine")


def test_without_a_gpu_tensorrt_says_so() -> None:
    if gpu.driver() is None:
        assert "no NVIDIA GPU" in str(tensorrt.available())
    else:
        assert gpu.name()
