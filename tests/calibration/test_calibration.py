"""Histograms, ranges and the placement of Q/DQ pairs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest

from calibration import observe, qdq
from calibration.histogram import Histogram

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
