"""A graph raised to a newer opset answers as before, or is refused by the operator that means something else there."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import parser

from exporters import onnx_file, reference
from exporters.raise_opset import raise_opset

if TYPE_CHECKING:
    from pathlib import Path

REDUCTIONS = ("L1", "L2", "LogSum", "LogSumExp", "Max", "Mean", "Min", "Prod", "SumSquare")
# The bodies of graphs of opset 17 from images (N, 4, 6, 6) to logits.
BODIES = {
    **{f"Reduce{name}": f"logits = Reduce{name} <axes = [2, 3]> (images)" for name in REDUCTIONS},
    "ReduceMean, all axes": "logits = ReduceMean (images)",
    "ReduceMax, from the back": "logits = ReduceMax <axes = [-1]> (images)",
    "ReduceSum": "axes = Constant <value_ints = [1, 2]> () logits = ReduceSum (images, axes)",
    "Split, equal parts": "first, second = Split <axis = 1> (images) logits = Sub (first, second)",
    "Split, sizes": (
        "sizes = Constant <value_ints = [2, 2]> () "
        "first, second = Split <axis = 1> (images, sizes) logits = Sub (first, second)"
    ),
    "AveragePool": "logits = AveragePool <kernel_shape = [3, 3], pads = [1, 1, 1, 1], count_include_pad = 1> (images)",
    "Pad": "pads = Constant <value_ints = [0, 0, 1, 1, 0, 0, 1, 1]> () logits = Pad <mode = 'reflect'> (images, pads)",
    "Resize": (
        "scales = Constant <value_floats = [1.0, 1.0, 2.0, 2.0]> () "
        "logits = Resize <mode = 'linear', coordinate_transformation_mode = 'half_pixel'> (images, , scales)"
    ),
    "If": (
        "yes = Constant <value_int = 1> () condition = Cast <to = 9> (yes) "
        "logits = If (condition) <"
        "then_branch = one () => (a) { a = ReduceMean <axes = [2, 3]> (images) }, "
        "else_branch = other () => (b) { b = ReduceMax <axes = [2, 3]> (images) }>"
    ),
}


def saved(path: Path, body: str, opset: int = 17) -> Path:
    text = f"""<ir_version: 8, opset_import: ["" : {opset}]>
    net (float[n, 4, 6, 6] images) => (float[a, b, c, d] logits) {{ {body} }}"""
    model = parser.parse_model(text.replace("'", '"'))
    onnx.save(model, path)
    return path


def raised(path: Path, least: int) -> Path:
    model = onnx_file.read(path)
    raise_opset(model, least)
    after = path.with_name("raised.onnx")
    onnx_file.write(model, after)
    return after


@pytest.mark.parametrize("name", BODIES)
def test_a_raised_graph_answers_as_before(name: str, tmp_path: Path) -> None:
    before = saved(tmp_path / "a.onnx", BODIES[name])
    after = raised(before, 19)
    model = onnx.load(after)
    assert model.opset_import[0].version == 19
    assert model.ir_version == 9
    images = np.random.default_rng(0).uniform(0.1, 2, (3, 4, 6, 6)).astype(np.float32)
    expected = reference.session(before).run(None, {"images": images})[0]
    answers = reference.session(after).run(None, {"images": images})[0]
    # ONNX Runtime sums an AveragePool of opset 19 in another order.
    np.testing.assert_allclose(answers, expected, rtol=1e-6)


def test_what_means_something_else_is_refused_by_name_and_nothing_is_changed(tmp_path: Path) -> None:
    body = "largest = ReduceMax <axes = [1]> (images) logits = Softmax <axis = 1> (largest)"
    model = onnx_file.read(saved(tmp_path / "a.onnx", body, opset=12))
    before = ir.to_proto(model).SerializeToString(deterministic=True)
    with pytest.raises(ValueError, match=r"opset 12 to 19, which Softmax of .* does not allow"):
        raise_opset(model, 19)
    assert ir.to_proto(model).SerializeToString(deterministic=True) == before


def test_a_graph_that_is_new_enough_stays(tmp_path: Path) -> None:
    model = onnx_file.read(saved(tmp_path / "a.onnx", BODIES["ReduceMean"]))
    before = ir.to_proto(model).SerializeToString(deterministic=True)
    raise_opset(model, 17)
    raise_opset(model, 13)
    assert ir.to_proto(model).SerializeToString(deterministic=True) == before
