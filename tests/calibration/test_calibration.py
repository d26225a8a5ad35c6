"""Histograms, ranges and the placement of Q/DQ pairs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest

from calibration import excess_noise, observe, qdq, ranges
from calibration.histogram import Histogram
from exporters import lint, onnx_file
from exporters.certify import certify
from exporters.number_formats import INT8, NUMBER_FORMATS, NumberFormat
from pipeline.data import digits
from pipeline.data.images import Images
from pipeline.parity import answers
from pipeline.parity.drift import drift

if TYPE_CHECKING:
    from pathlib import Path

RNG = np.random.default_rng(0)


def histogram_of(values: np.ndarray, pieces: int) -> Histogram:
    histogram = Histogram()
    for piece in np.array_split(values.astype(np.float32), pieces):
        histogram.add(piece)
    return histogram


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_numbers_that_are_none_are_refused(bad: float) -> None:
    with pytest.raises(ValueError, match="NaN or infinite"):
        histogram_of(np.array([1.0, bad]), 1)


def producers(path: Path) -> tuple[onnx.ModelProto, dict[str, onnx.NodeProto]]:
    model = onnx.load(path)
    return model, {output: node for node in model.graph.node for output in node.output}


def test_pairs_stand_where_tensorrt_fuses_them(built: Path) -> None:
    model, made_by = producers(built / "05-int8.onnx")
    readers: dict[str, list[str]] = {}
    for node in model.graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node.op_type)
    for node in model.graph.node:
        if node.op_type in {"Conv", "Gemm"}:
            assert [made_by[name].op_type for name in node.input[:2]] == ["DequantizeLinear"] * 2, node.name
            assert node.input[2] not in made_by  # the bias stays a float constant
        if node.op_type == "Add":  # one branch only: the other one fuses with its convolution
            assert sorted(made_by[name].op_type for name in node.input) == ["Conv", "DequantizeLinear"]
        if node.op_type == "Relu":
            assert made_by[node.input[0]].op_type in {"Conv", "Add"}  # nothing between a convolution and its ReLU
        if node.op_type == "QuantizeLinear":
            assert readers[node.output[0]] == ["DequantizeLinear"]


def test_scales_are_symmetric_and_per_channel(built: Path) -> None:
    model, _ = producers(built / "05-int8.onnx")
    arrays = {i.name: onnx.numpy_helper.to_array(i) for i in model.graph.initializer}
    assert all(not array.any() for name, array in arrays.items() if name.endswith("zero_point"))
    assert all((array > 0).all() for name, array in arrays.items() if name.endswith("_scale"))
    stored = {name: array for name, array in arrays.items() if name.endswith(".weight_int8")}
    assert len(stored) == 14
    for name, array in stored.items():
        assert array.dtype == np.int8
        assert arrays[name.replace("_int8", "_scale")].shape == (array.shape[0],)
        assert np.abs(array.reshape(len(array), -1).astype(int)).max(axis=1).min() == 127


def test_a_dead_channel_gets_a_scale_all_the_same() -> None:
    weight = np.stack([np.zeros((3, 3)), np.ones((3, 3))]).astype(np.float32)
    np.testing.assert_allclose(qdq.channel_scales(weight, 0), [1, 1 / 127])


def test_observing_reads_every_image(built: Path) -> None:
    src = built / "04-fold_batchnorm.onnx"
    batches = [RNG.uniform(0, 255, size=(n, 1, 32, 32)).astype(np.float32) for n in (7, 3)]
    seen = observe.observe(src, qdq.tensors(src), batches)
    assert seen["/Div_output_0"].total == 10 * 32 * 32


# A format that is no row of ours: signed weights of four bits beside activations of eight, from opset 21 on.
INT4 = NumberFormat("int4", "INT4", bits=4, zero_point=0, largest_level=7, opset=21, least_own_db=3.0, activations=INT8)


@pytest.mark.parametrize("placement", qdq.PLACEMENTS)
def test_a_row_is_all_that_a_new_format_needs(
    built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, placement: str
) -> None:
    monkeypatch.setitem(NUMBER_FORMATS, INT4.name, INT4)
    src, dst = built / "04-fold_batchnorm.onnx", tmp_path / "int4.onnx"
    data = digits.read()
    images = Images(data.calibration, data.preprocessing)
    formats = qdq.tensors(src, placement, INT4)
    seen = observe.observe(src, formats, images.batches(25))
    amax = {name: ranges.mse(histogram, formats[name]) for name, histogram in seen.items()}
    assert qdq.quantise(src, dst, amax, placement, INT4).startswith("13 of 13 convolutions with INT4 operands, ")

    stored = [tensor for tensor in onnx.load(dst).graph.initializer if tensor.name.endswith(".weight_int4")]
    assert len(stored) == 14
    for tensor in stored:
        assert tensor.data_type == onnx.TensorProto.INT4
        assert np.abs(onnx.numpy_helper.to_array(tensor).astype(np.int8)).max() == 7

    assert certify(src, dst).refuted == []
    model = onnx_file.read(dst)
    assert lint.placement_of(model) == placement
    assert lint.lint(model, placement) == []
    assert max(pair.excess_db for pair in excess_noise.excess_noises(src, dst, seen)) < 4.8
    float_answers, int4_answers = (answers.of_file(path).answers(images, "") for path in (src, dst))
    assert (drift(float_answers, int4_answers).sqnr_db or 999) > 8


def test_no_scale_is_a_number_that_a_gpu_takes_for_0(built: Path, tmp_path: Path) -> None:
    """As of a channel that weight decay has driven below the normal numbers."""
    model = onnx.load(built / "04-fold_batchnorm.onnx")
    weight = next(each for each in model.graph.initializer if each.name == "layer2.0.conv2.weight")
    numbers = onnx.numpy_helper.to_array(weight).copy()
    numbers[3] = 1e-37
    weight.CopyFrom(onnx.numpy_helper.from_array(numbers, weight.name))
    onnx.save(model, tmp_path / "a.onnx")

    ranges_of = dict.fromkeys(qdq.tensors(tmp_path / "a.onnx"), 3.0)
    qdq.quantise(tmp_path / "a.onnx", tmp_path / "b.onnx", ranges_of)
    assert lint.lint(onnx_file.read(tmp_path / "b.onnx")) == []
    assert certify(tmp_path / "a.onnx", tmp_path / "b.onnx").refuted == []
