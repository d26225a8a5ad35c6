"""INT8 convolutions and float16 around them: what strong typing asks for, and what float16 does to scales."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest
from faults import array
from onnx import TensorProto, numpy_helper

from exporters import float16
from exporters.certify import certify
from exporters.engines import tensorrt_rtx
from pipeline.data import sampling
from pipeline.finished.finished_build import FinishedBuild
from pipeline.parity import answers
from pipeline.parity.drift import drift

if TYPE_CHECKING:
    from pathlib import Path

INT8, HALVED = "06-int8.onnx", "07-halve.onnx"


def test_a_build_passes_and_says_which_engine_computes_in_int8(mixed: Path) -> None:
    report = json.loads((mixed / "report.json").read_text())
    rows = {row["name"]: row for row in report["stages"]}
    engines = ["engine", "engine_tensorrt_rtx", "fp16", "fp16_engine_tensorrt_rtx"]
    assert list(rows)[4:] == ["equalise", "int8", "halve", *engines]
    assert report["verdict"] == "pass"
    assert rows["halve"]["certificate"]["proven"]
    assert 30 < rows["halve"]["step"]["sqnr_db"] < 60
    assert rows["engine"]["work"] == "onnxruntime, 8-bit convolutions 0 of 13"
    assert rows["engine"]["verdict"] == "pass"
    assert rows["engine_tensorrt_rtx"]["work"] == "tensorrt-rtx, 8-bit convolutions 13 of 13"
    assert sum("float16 sums on a GPU" in sentence for sentence in report["not_proven"]) == 1


def test_all_but_the_levels_and_the_pixels_is_float16(mixed: Path) -> None:
    model = onnx.shape_inference.infer_shapes(onnx.load(mixed / HALVED), strict_mode=True, check_type=True)
    assert model.opset_import[0].version == 19
    kinds = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    levels = {name for name in kinds if name.endswith(("_int8", "_zero_point"))}
    assert {kinds.pop(name) for name in levels} == {TensorProto.INT8}
    assert {kinds.pop("pixel_mean"), kinds.pop("pixel_std")} == {TensorProto.FLOAT}
    assert set(kinds.values()) == {TensorProto.FLOAT16}
    types = {value.name: value.type.tensor_type.elem_type for value in model.graph.value_info}
    dequantised = [types[node.output[0]] for node in model.graph.node if node.op_type == "DequantizeLinear"]
    assert len(dequantised) == 29  # 15 activations, 14 weights
    assert set(dequantised) == {TensorProto.FLOAT16}
    ends = [*model.graph.input, *model.graph.output]
    assert {value.type.tensor_type.elem_type for value in ends} == {TensorProto.FLOAT}


@pytest.mark.parametrize("before", ["03-simplify.onnx", "05-equalise.onnx", INT8])
def test_it_is_proven_over_any_number_of_stages(mixed: Path, before: str) -> None:
    certificate = certify(mixed / before, mixed / HALVED)
    assert certificate.proven, certificate.refuted
    assert certificate.largest == 0 if before == INT8 else certificate.largest > 0.9


def test_next_to_float_weights_a_doubled_scale_excuses_nothing(mixed: Path, tmp_path: Path) -> None:
    model = onnx.load(mixed / HALVED)
    array("layer2.0.conv2.weight_scale", lambda scale: scale * 2)(model)
    onnx.save(model, tmp_path / "a.onnx")
    refuted = certify(mixed / "05-equalise.onnx", tmp_path / "a.onnx").refuted
    assert [item.module for item in refuted] == ["layer2.0.conv2"]


def test_scales_too_small_for_float16_are_counted_and_still_answer_right(mixed: Path, tmp_path: Path) -> None:
    src, dst = tmp_path / "a.onnx", tmp_path / "b.onnx"
    model = onnx.load(mixed / INT8)
    dying = np.array([1e-8, 3e-8, 3e-5], np.float32)  # the first becomes 0, the others subnormal
    array("layer2.0.conv2.weight_scale", lambda scale: np.r_[dying, scale[3:]])(model)
    onnx.save(model, src)
    scales = [numpy_helper.to_array(i) for i in model.graph.initializer if i.name.endswith("_scale")]
    coarse = sum(int((scale < 2**-14).sum()) for scale in scales)
    assert coarse >= 3
    assert f"{coarse} lie below 6.1e-05 and lose bits, 1 rose to 6e-08" in float16.float16(src, dst, {})
    stored = next(i for i in onnx.load(dst).graph.initializer if i.name == "layer2.0.conv2.weight_scale")
    assert list(numpy_helper.to_array(stored)[:3]) == [2**-24, 2**-24, np.float16(3e-5)]
    for before in (src, mixed / INT8):
        assert certify(before, dst).proven == (before == src)
    images = sampling.some(FinishedBuild.open(mixed).test_images(), 200)
    was, now = (answers.of_file(path).answers(images, "") for path in (src, dst))
    assert (drift(was, now).sqnr_db or 0) > 30
    assert tensorrt_rtx.BACKEND.build(dst, tmp_path / "x.engine").eight_bit_convolutions == 13
