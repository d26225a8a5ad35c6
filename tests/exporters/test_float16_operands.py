"""Float16 whatever a graph is made of: constants in every spelling, operands of one type, shapes, graphs in graphs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest
from onnx import TensorProto, parser

from calibration import observe, qdq
from calibration.histogram import Peak
from exporters import onnx_file, reference
from exporters.float16 import float16
from exporters.portable.sqnr import sqnr_db

if TYPE_CHECKING:
    from pathlib import Path

IMAGES = np.random.default_rng(0).uniform(0, 255, (4, 2, 6, 6)).astype(np.float32)
# The spellings of a weight of 0.5 and a bias of 1.5, each once.
WEIGHTS = {
    "value": "half = Constant <value = float[1] {0.5}> () one = Constant <value = float {1.5}> ()",
    "value_float": "half = Constant <value_float = 0.5> () one = Constant <value_floats = [1.5]> ()",
    "Identity": "stored = Constant <value_float = 0.5> () half = Identity (stored) one = Identity (half2)",
    "Cast": "whole = Constant <value_ints = [1, 3]> () both = Cast <to = 1> (whole) "
    "two = Constant <value_float = 2.0> () halves = Div (both, two) "
    "zero = Constant <value_int = 0> () first = Constant <value_int = 1> () "
    "half = Gather (halves, zero) one = Gather (halves, first)",
    "Reshape": "stored = Constant <value_floats = [0.5, 1.5]> () row = Constant <value_ints = [2, 1]> () "
    "column = Reshape (stored, row) zero = Constant <value_int = 0> () first = Constant <value_int = 1> () "
    "half = Gather (column, zero) one = Gather (column, first)",
    "ConstantOfShape": "shape = Constant <value_ints = [1]> () "
    "half = ConstantOfShape <value = float[1] {0.5}> (shape) one = ConstantOfShape <value = float[1] {1.5}> (shape)",
}
WEIGHTS["Identity"] = (
    WEIGHTS["Identity"].replace("half2", "other").replace("half = ", "other = Constant <value_float = 1.5> () half = ")
)
# A network's arithmetic behind one ReLU, between ``x`` and ``y``.
BODIES = {
    **{f"constant in {name}": f"{body} scaled = Mul (x, half) y = Add (scaled, one)" for name, body in WEIGHTS.items()},
    "bounds": "low = Constant <value_float = 0.0> () high = Constant <value_float = 6.0> () y = Clip (x, low, high)",
    "infinite bounds": "low = Constant <value = float {0.5}> () high = Constant <value = float {inf}> () "
    "y = Clip (x, low, high)",
    "one bound": "low = Constant <value_float = 0.5> () y = Clip (x, low)",
    "scales of a Resize": "scales = Constant <value_floats = [1.0, 1.0, 2.0, 2.0]> () "
    "y = Resize <mode = 'nearest', nearest_mode = 'floor', coordinate_transformation_mode = 'asymmetric'>"
    " (x, , scales)",
    "scales out of shapes": "shape = Shape (x) floats = Cast <to = 1> (shape) "
    "wanted = Constant <value_floats = [4.0, 2.0, 12.0, 12.0]> () scales = Div (wanted, floats) "
    "y = Resize <mode = 'nearest', nearest_mode = 'floor', coordinate_transformation_mode = 'asymmetric'>"
    " (x, , scales)",
    "an image full of a number": "shape = Shape (x) ones = ConstantOfShape <value = float[1] {1.0}> (shape) "
    "y = Sub (x, ones)",
    "a mask": "one = Constant <value_float = 1.0> () above = Greater (x, one) mask = Cast <to = 1> (above) "
    "y = Mul (x, mask)",
    "a choice": "one = Constant <value_float = 1.0> () zero = Constant <value_float = 0.0> () "
    "above = Greater (x, one) y = Where (above, x, zero)",
    "counting": "zero = Constant <value_float = 0.0> () one = Constant <value_float = 1.0> () "
    "six = Constant <value_float = 6.0> () columns = Range (zero, six, one) y = Add (x, columns)",
    "no float16": "y = Celu (x)",
    "integers": "two = Constant <value_int = 2> () whole = Cast <to = 7> (x) odd = Mod (whole, two) "
    "floats = Cast <to = 1> (odd) y = Add (x, floats)",
    "a tiny epsilon": "tiny = Constant <value_float = 0.0000000000001> () more = Add (x, tiny) y = Sqrt (more)",
    "two answers": "values, indices = MaxPool <kernel_shape = [2, 2]> (x) y = Relu (values)",
    "a branch": "yes = Constant <value_int = 1> () condition = Cast <to = 9> (yes) "
    "taken = If (condition) <"
    "then_branch = one () => (float[n, c, h, w] a) { a = Neg (x) }, "
    "else_branch = other () => (float[n, c, h, w] b) { b = Abs (x) }> y = Relu (taken)",
    "a branch that is computed": "six = Constant <value_int = 6> () place = Constant <value_int = 2> () "
    "shape = Shape (x) height = Gather (shape, place) condition = Equal (height, six) "
    "taken = If (condition) <"
    "then_branch = one () => (float[n, c, h, w] a) { a = Neg (x) }, "
    "else_branch = other () => (float[n, c, h, w] b) { b = Abs (x) }> y = Abs (taken)",
}


def saved(path: Path, body: str) -> Path:
    """Images (N, 2, 6, 6), normalised by constants, to the mean of ``body``'s ``y``, (N, 2)."""
    text = f"""<ir_version: 8, opset_import: ["" : 17]>
    net (float[n, 2, 6, 6] images) => (float[n, c] logits) {{
        mean = Constant <value = float[1] {{128.0}}> ()
        std = Constant <value = float[1] {{64.0}}> ()
        centred = Sub (images, mean)
        pixels = Div (centred, std)
        x = Relu (pixels)
        {body}
        pooled = GlobalAveragePool (y)
        logits = Flatten (pooled)
    }}"""
    model = parser.parse_model(text.replace("'", '"'))
    onnx.save(model, path)
    return path


def halved(src: Path) -> tuple[Path, str]:
    """``src`` in float16 after a look at every activation, and the sentence on it."""
    observer = observe.Observer(src, observe.activations(src), Peak)
    observer.take([IMAGES])
    dst = src.with_name("float16.onnx")
    work = float16(src, dst, {name: peak.amax for name, peak in observer.seen.items()})
    return dst, work


def answers(path: Path) -> np.ndarray:
    logits: np.ndarray = reference.session(path).run(None, {"images": IMAGES})[0]
    return logits


@pytest.mark.parametrize("name", BODIES)
def test_every_graph_becomes_float16_and_answers_as_before(name: str, tmp_path: Path) -> None:
    before = saved(tmp_path / "a.onnx", BODIES[name])
    after, _ = halved(before)
    onnx.checker.check_model(str(after), full_check=True)
    assert np.median(sqnr_db(answers(before), answers(after))) > 50
    types = {value.name: value.type.tensor_type.elem_type for value in inferred(after).graph.value_info}
    assert types["centred"] == types["pixels"] == TensorProto.FLOAT
    assert types["x"] == (TensorProto.FLOAT if "branch" in name else TensorProto.FLOAT16)
    assert types["pooled"] == TensorProto.FLOAT16


def inferred(path: Path) -> onnx.ModelProto:
    return onnx.shape_inference.infer_shapes(onnx.load(path), strict_mode=True, check_type=True)


@pytest.mark.parametrize("name", [f"constant in {name}" for name in WEIGHTS])
def test_a_constant_is_stored_in_float16_and_its_spelling_is_gone(name: str, tmp_path: Path) -> None:
    after, work = halved(saved(tmp_path / "a.onnx", BODIES[name]))
    assert work.startswith("2 weight tensors in float16, 0 weights too small")
    model = onnx_file.read(after)
    assert onnx_file.count(model, "Cast") == 2  # behind the pixels, and in front of the logits
    (scaled,) = [node for node in model.graph if node.op_type == "Mul"]
    assert onnx_file.initializer_array(scaled.inputs[1]).dtype == np.float16


def test_what_no_float16_holds_is_named(tmp_path: Path) -> None:
    sentences = {
        "no float16": "Celu takes no float16",
        "a tiny epsilon": "weights as low as 1e-13 at most lose their bits",
        "a branch that is computed": "If runs a graph of its own",
    }
    for name, sentence in sentences.items():
        _, work = halved(saved(tmp_path / "a.onnx", BODIES[name]))
        assert sentence in work


def test_what_is_computed_from_shapes_stays_in_float32(tmp_path: Path) -> None:
    after, _ = halved(saved(tmp_path / "a.onnx", BODIES["scales out of shapes"]))
    types = {value.name: value.type.tensor_type.elem_type for value in inferred(after).graph.value_info}
    assert types["scales"] == types["floats"] == TensorProto.FLOAT
    assert types["y"] == TensorProto.FLOAT16


def test_a_weight_that_is_no_number_is_refused(tmp_path: Path) -> None:
    for number in ("nan", "inf"):
        body = f"odd = Constant <value = float {{{number}}}> () y = Mul (x, odd)"
        src = saved(tmp_path / "a.onnx", body)
        with pytest.raises(ValueError, match="the weights odd are no finite numbers"):
            float16(src, tmp_path / "b.onnx", {})


def test_pairs_stand_on_activations_alone(tmp_path: Path) -> None:
    body = (
        "one = Constant <value_float = 1.0> () more = Add (x, one) less = Neg (more) y = Add (more, less) "
        "two = Constant <value_ints = [1, 1, 1, 1]> () shape = Shape (x) larger = Add (shape, two) "
        "again = Add (larger, shape) none = ConstantOfShape (again)"
    )
    src = saved(tmp_path / "a.onnx", body)
    assert list(qdq.tensors(src)) == ["more"]


def test_a_layer_that_is_called_twice_has_its_weight_quantised_once(tmp_path: Path) -> None:
    body = (
        "weight = Constant <value = float[2, 2, 1, 1] {0.5, 0.25, -0.5, 1.0}> () "
        "first = Conv (x, weight) second = Conv (first, weight) y = Relu (second)"
    )
    src = saved(tmp_path / "a.onnx", body)
    dst = tmp_path / "b.onnx"
    qdq.quantise(src, dst, dict.fromkeys(qdq.tensors(src), 4.0))
    assert qdq.quantised(dst) == (2, 2)
    model = onnx_file.read(dst)
    weights = {convolution.inputs[1] for convolution in onnx_file.convolutions(model)}
    assert len(weights) == 1
    assert np.median(sqnr_db(answers(src), answers(dst))) > 25
    halved_path, _ = halved(dst)
    assert np.median(sqnr_db(answers(dst), answers(halved_path))) > 40
