"""The table of number formats against ONNX and ml_dtypes."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper

from exporters import number_formats, pairs
from exporters.number_formats import FP8, INT8, NUMBER_FORMATS, UINT8, NumberFormat

ROWS = pytest.mark.parametrize("row", NUMBER_FORMATS.values(), ids=NUMBER_FORMATS)


def model(row: NumberFormat, opset: int) -> onnx.ModelProto:
    """An image that becomes levels of ``row`` and then an image again."""
    constants = [
        numpy_helper.from_array(np.array(0.5, np.float32), "scale"),
        helper.make_tensor("zero", TensorProto.DataType.Value(row.onnx_type), [], [row.zero_point]),
    ]
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["levels"]),
        helper.make_node("DequantizeLinear", ["levels", "scale", "zero"], ["y"]),
    ]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [3]) for name in ("x", "y")]
    graph = helper.make_graph(nodes, "pair", ends[:1], ends[1:], constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)


@ROWS
def test_onnx_writes_it_from_its_opset_on(row: NumberFormat) -> None:
    onnx.checker.check_model(model(row, row.opset), full_check=True)
    before = onnx.defs.get_schema("QuantizeLinear", row.opset).since_version - 1
    # Of opset 10 are the types that 13 has too; what 13 brought are scales for each channel.
    if before > 12:
        with pytest.raises(onnx.shape_inference.InferenceError, match="unsupported type"):
            onnx.checker.check_model(model(row, before), full_check=True)


@ROWS
def test_its_magnitudes_are_those_that_are_stored(row: NumberFormat) -> None:
    magnitudes = row.magnitudes()
    assert magnitudes[0] == 0
    assert magnitudes[-1] == row.largest_level
    assert (np.diff(magnitudes) > 0).all()
    assert len(magnitudes) <= 2**row.bits
    shifted = magnitudes + row.zero_point
    np.testing.assert_array_equal(shifted.astype(row.dtype).astype(np.float64), shifted)


@pytest.mark.parametrize("row", [INT8, FP8], ids=lambda row: row.name)
def test_levels_are_the_nearest_and_end_at_the_largest(row: NumberFormat) -> None:
    ratios = np.random.default_rng(0).uniform(-2 * row.largest_level, 2 * row.largest_level, 9999).astype(np.float32)
    stored = row.to_levels(ratios)
    assert stored.dtype == row.dtype
    grid = np.concatenate([-row.magnitudes()[::-1], row.magnitudes()])
    distances = np.abs(np.clip(ratios, -row.largest_level, row.largest_level)[:, None] - grid)
    nearest = distances.min(axis=1)
    np.testing.assert_allclose(np.abs(np.clip(ratios, *grid[[0, -1]]) - stored.astype(np.float64)), nearest)


@ROWS
def test_a_pair_is_known_by_its_zero_point(row: NumberFormat) -> None:
    assert number_formats.stored_as(row.dtype, row.zero_point) is row
    assert (number_formats.symmetric_in(row.dtype) is row) == row.symmetric
    quantise = next(node for node in ir.from_proto(model(row, row.opset)).graph if node.op_type == "QuantizeLinear")
    # Nothing says that the image is never negative.
    assert pairs.number_format_of(quantise) is (None if row is UINT8 else row)


def test_what_is_no_row_is_no_format() -> None:
    for dtype, zero_point in ((np.int8, 3), (np.uint8, 127), (np.int32, 0), (FP8.dtype, np.nan)):
        assert number_formats.stored_as(np.dtype(dtype), zero_point) is None
    assert number_formats.symmetric_in(np.dtype(np.float32)) is None
