"""Planted faults: each one is blamed on its module, and the case that is written fails by itself."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from conftest import ROOT
from onnx import helper, numpy_helper
from onnxruntime import quantization

from pipeline.data import sampling
from pipeline.finished.debug import diagnose
from pipeline.finished.finished_build import FinishedBuild

Fault = Callable[[onnx.ModelProto], None]
FOLD, INT8 = "04-fold_batchnorm.onnx", "05-int8.onnx"
BEFORE = {FOLD: "03-simplify.onnx", INT8: FOLD}
CONV, INPUT = "layer2.0.conv2.weight", "/layer2/layer2.0/relu/Relu_output_0"


def change(end: str, how: Callable[[np.ndarray], np.ndarray]) -> Fault:
    """The initializer whose name ends in ``end``, changed."""

    def plant(model: onnx.ModelProto) -> None:
        tensor = next(i for i in model.graph.initializer if i.name.endswith(end))
        kept = numpy_helper.to_array(tensor)
        changed = np.ascontiguousarray(how(kept.copy())).astype(kept.dtype).reshape(kept.shape)
        tensor.CopyFrom(numpy_helper.from_array(changed, tensor.name))

    return plant


def both(*faults: Fault) -> Fault:
    def plant(model: onnx.ModelProto) -> None:
        for fault in faults:
            fault(model)

    return plant


def coarser(weight: str) -> Fault:
    """Four times the scale, and the levels stored under that scale."""
    levels = change(f"{weight}_int8", lambda levels: np.rint(levels / 4.0))
    return both(levels, change(f"{weight}_scale", lambda scale: scale * 4))


def dequantised_alone(model: onnx.ModelProto) -> None:
    """Four times the scale of an activation, in its DequantizeLinear only."""
    scale = next(i for i in model.graph.initializer if i.name == f"{INPUT}_scale")
    model.graph.initializer.append(numpy_helper.from_array(numpy_helper.to_array(scale) * 4, "planted"))
    next(n for n in model.graph.node if n.name == f"{INPUT}_DequantizeLinear").input[1] = "planted"


def residual(model: onnx.ModelProto) -> None:
    add = next(n for n in model.graph.node if n.name == "/layer2/layer2.0/Add")
    add.input[1] = add.input[0]


def strides(model: onnx.ModelProto) -> None:
    conv = next(n for n in model.graph.node if n.name == "/layer2/layer2.0/conv2/Conv")
    kept = [attribute for attribute in conv.attribute if attribute.name != "strides"]
    del conv.attribute[:]
    conv.attribute.extend([*kept, helper.make_attribute("strides", [1, 1])])


def flipped(weights: np.ndarray) -> np.ndarray:
    """The largest weight with the other sign."""
    place = np.unravel_index(np.abs(weights.astype(np.float32)).argmax(), weights.shape)
    weights[place] = -weights[place]
    return weights


FAULTS: dict[str, tuple[str, str, Fault]] = {
    "weight scale x4 in DQ": (INT8, "layer2.0.conv2", change(f"{CONV}_scale", lambda s: s * 4)),
    "weight scale x4, requantised": (INT8, "layer2.0.conv2", coarser(CONV)),
    "weight scales in another order": (INT8, "layer2.0.conv2", change(f"{CONV}_scale", lambda s: np.roll(s, 1))),
    "weight scale NaN": (INT8, "layer2.0.conv2", change(f"{CONV}_scale", lambda s: s * np.nan)),
    "activation scale x4": (INT8, "layer2.0.conv2", change(f"{INPUT}_scale", lambda s: s * 4)),
    "activation scale /4": (INT8, "layer2.0.conv2", change(f"{INPUT}_scale", lambda s: s / 4)),
    "activation scale 0": (INT8, "layer2.0.conv2", change(f"{INPUT}_scale", lambda s: s * 0)),
    "activation scale x4 in DQ": (INT8, "layer2.0.conv2", dequantised_alone),
    "lost bias": (INT8, "layer2.0.conv2", change("layer2.0.conv2.bias", lambda b: b * 0)),
    "transposed": (INT8, "layer2.0.conv2", change(f"{CONV}_int8", lambda w: w.transpose(0, 1, 3, 2))),
    "one weight flipped": (INT8, "layer2.0.conv2", change(f"{CONV}_int8", flipped)),
    "lost shortcut": (INT8, "layer2.0", residual),
    "bias of fc": (INT8, "fc", change("fc.bias", lambda b: b + 5)),
    "folded: lost bias": (FOLD, "layer2.0.conv2", change("layer2.0.conv2.bias", lambda b: b * 0)),
    "folded: weights x0.999": (FOLD, "layer2.0.conv2", change(CONV, lambda w: w * 0.999)),
    "folded: transposed": (FOLD, "layer2.0.conv2", change(CONV, lambda w: w.transpose(0, 1, 3, 2))),
    "folded: one weight flipped": (FOLD, "layer2.0.conv2", change(CONV, flipped)),
    "folded: NaN": (FOLD, "layer2.0.conv2", change(CONV, lambda w: np.where(w == w.max(), np.nan, w))),
    "folded: another shape": (FOLD, "layer2.0.conv2", strides),
    "folded: lost shortcut": (FOLD, "layer2.0", residual),
}


@pytest.mark.parametrize("name", FAULTS)
def test_every_planted_fault_is_blamed_on_its_module(built: Path, tmp_path: Path, name: str) -> None:
    stage, module, plant = FAULTS[name]
    model = onnx.load(built / stage)
    plant(model)
    onnx.save(model, tmp_path / "bad.onnx")
    images = sampling.some(FinishedBuild.open(built).test_images(), 8)
    found = diagnose(built / BEFORE[stage], tmp_path / "bad.onnx", images)
    assert found["verdict"] == "fail"
    assert [fault["module"] for fault in found["faults"]] == [module]
    assert not found["case"]["measured_db"] >= found["case"]["bound_db"]


def debug(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pipeline", "debug", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.fixture
def images(built: Path, tmp_path: Path) -> Path:
    batches = sampling.some(FinishedBuild.open(built).test_images(), 8).batches(8)
    np.save(tmp_path / "images.npy", np.concatenate(list(batches)))
    return tmp_path / "images.npy"


def quantised_by_onnxruntime(src: Path, dst: Path, images: Path, **options: object) -> None:
    """``src`` as onnxruntime's own quantiser writes it, with a pair behind the logits."""
    batches = iter(np.load(images)[:, None])

    class Reader(quantization.CalibrationDataReader):  # type: ignore[misc]  # it brings no types
        def get_next(self) -> dict[str, np.ndarray] | None:
            batch = next(batches, None)
            return None if batch is None else {"images": batch}

    quantization.quantize_static(src, dst, Reader(), per_channel=True, **options)


def test_a_pair_behind_the_logits_is_no_fault(built: Path, images: Path, tmp_path: Path) -> None:
    """A bias lost before that pair still is one."""
    symmetric = {"ActivationSymmetric": True, "WeightSymmetric": True}
    signed = quantization.QuantType.QInt8
    quantised_by_onnxruntime(built / FOLD, tmp_path / INT8, images, activation_type=signed, extra_options=symmetric)
    done = debug(built / FOLD, tmp_path / INT8, "--images", images)
    assert "no module leaves its bound by itself" in done.stdout, done.stdout + done.stderr
    model = onnx.load(tmp_path / INT8)
    change("fc.bias_quantized", lambda b: 0 * b)(model)
    onnx.save(model, tmp_path / INT8)
    assert "first at fault: fc: its answers lie" in debug(built / FOLD, tmp_path / INT8, "--images", images).stdout


@pytest.mark.parametrize("levels", [quantization.QuantType.QInt8, quantization.QuantType.QUInt8])
def test_pairs_that_stand_for_a_relu_are_refused(
    built: Path, images: Path, tmp_path: Path, levels: quantization.QuantType
) -> None:
    """Zero points anywhere, and for unsigned levels at 0, where a Relu was: the quantiser's defaults."""
    quantised_by_onnxruntime(built / FOLD, tmp_path / INT8, images, activation_type=levels)
    done = debug(built / FOLD, tmp_path / INT8, "--images", images)
    assert (done.returncode, done.stdout) == (2, "")
    assert "zero points that cut off what a ReLU would" in done.stderr


def test_a_file_that_was_changed_is_said_to_be(copy: Path) -> None:
    model = onnx.load(copy / INT8)
    change("fc.bias", lambda b: b + 5)(model)
    onnx.save(model, copy / INT8)
    done = debug(copy, "--stage", "int8", "--samples", 8)
    assert f"{INT8} was changed after the build wrote it: this looks at what it is now" in done.stderr
    assert "first at fault: fc" in done.stdout
    (copy / INT8).unlink()
    done = debug(copy, "--stage", "int8")
    assert (done.returncode, f"{INT8} is gone; build again" in done.stderr) == (2, True)


@pytest.mark.parametrize("stage", ["simplify", "fold_batchnorm", "int8", "engine"])
def test_an_honest_stage_has_no_fault(built: Path, stage: str) -> None:
    done = debug(built, "--stage", stage, "--samples", 8)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "no module leaves its bound by itself" in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 100
    assert not list(built.glob("case-*"))


def test_the_case_runs_elsewhere_and_says_nothing_of_where_it_was_made(
    built: Path, images: Path, tmp_path: Path
) -> None:
    model = onnx.load(built / INT8)
    change(f"{CONV}_scale", lambda s: s * 4)(model)
    onnx.save(model, tmp_path / "bad.onnx")
    done = debug(built / FOLD, tmp_path / "bad.onnx", "--images", images, "--json")
    assert done.returncode == 1, done.stderr
    assert json.loads(done.stdout)["first"]["module"] == "layer2.0.conv2"
    case = tmp_path / "case-layer2.0.conv2"
    content = b"".join(path.read_bytes() for path in case.iterdir())
    for secret in (str(tmp_path), str(ROOT), str(Path.home())):
        assert secret.encode() not in content
    # A name of two letters stands in any compressed data, so it is looked for in text, as a word of its own.
    text = "".join(path.read_text() for path in case.iterdir() if path.suffix in {".json", ".py", ".md", ".txt"})
    assert text
    assert not re.search(rf"\b{re.escape(os.uname().nodename)}\b", text)
    assert {node.op_type for node in onnx.load(case / "bad.onnx").graph.node} == {
        "QuantizeLinear",
        "DequantizeLinear",
        "Conv",
    }
    moved = shutil.move(case, tmp_path / "elsewhere")
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [sys.executable, "-I", f"{moved}/reproduce.py"]
    again_run = subprocess.run(command, cwd="/", env=environment, capture_output=True, text=True, check=False)
    assert again_run.returncode == 10, again_run.stderr
    assert again_run.stdout.startswith("layer2.0.conv2: the scale of the weights")


def test_what_cannot_be_compared_is_refused_in_a_sentence(built: Path, images: Path, tmp_path: Path) -> None:
    good, bad = built / FOLD, built / INT8
    (tmp_path / "link.onnx").symlink_to(good)
    (tmp_path / "cut.onnx").write_bytes(bad.read_bytes()[:3000])
    shutil.copy(bad, tmp_path / "some.engine")
    np.save(tmp_path / "none.npy", np.zeros((0, 1, 32, 32), np.uint8))
    two = onnx.load(bad)
    two.graph.input.append(helper.make_tensor_value_info("more", 1, [1]))
    onnx.save(two, tmp_path / "two.onnx")
    shifted = onnx.load(bad)
    for tensor in shifted.graph.initializer:
        if tensor.name.endswith("_output_0_zero_point"):
            tensor.CopyFrom(numpy_helper.from_array(np.array(-100, np.int8), tensor.name))
    onnx.save(shifted, tmp_path / "shifted.onnx")
    broken = onnx.load(good)
    change(CONV, lambda w: w * np.nan)(broken)
    onnx.save(broken, tmp_path / "nan.onnx")
    asked = {
        "are the same file": (good, tmp_path / "link.onnx", "--images", images),
        "is truncated": (good, tmp_path / "cut.onnx", "--images", images),
        "is gone or no ONNX file": (good, tmp_path / "some.engine", "--images", images),
        "there is no such file": (tmp_path / "missing.onnx", bad, "--images", images),
        "(0, 1, 32, 32)": (good, bad, "--images", tmp_path / "none.npy"),
        "takes images, more; only files that take pixels alone": (good, tmp_path / "two.onnx", "--images", images),
        "zero points that cut off": (good, tmp_path / "shifted.onnx", "--images", images),
        "NaN or infinity in the earlier file already": (tmp_path / "nan.onnx", bad, "--images", images),
        "or two files and --images": (good, bad),
        "holds no report.json": (tmp_path,),
        "has simplify, fold_batchnorm, int8, engine": (built, "--stage", "fp16"),
    }
    for sentence, arguments in asked.items():
        done = debug(*arguments)
        assert done.returncode == 2, (sentence, done.stdout, done.stderr)
        assert sentence in done.stderr
        assert done.stderr.startswith("error: ")
        assert not done.stdout
