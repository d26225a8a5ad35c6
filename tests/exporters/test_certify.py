"""Planted faults: each one is refuted, and located; an honest file is proven."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest
from conftest import ROOT
from onnx import helper, numpy_helper

from exporters.certify import certify

if TYPE_CHECKING:
    from pathlib import Path

STAGES = ["02-export", "03-simplify", "04-fold_batchnorm", "05-int8"]
Fault = Callable[[onnx.ModelProto], None]


def array(model: onnx.ModelProto, name: str, change: Callable[[np.ndarray], np.ndarray]) -> None:
    """Replace the initializer that ``name`` ends."""
    tensor = next(i for i in model.graph.initializer if i.name.endswith(name))
    changed = change(numpy_helper.to_array(tensor).copy())
    tensor.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(changed), tensor.name))


def bump(place: tuple[int, ...], size: float) -> Callable[[np.ndarray], np.ndarray]:
    def change(values: np.ndarray) -> np.ndarray:
        values[place] += np.asarray(size, values.dtype)
        return values

    return change


def node(model: onnx.ModelProto, name: str) -> onnx.NodeProto:
    return next(n for n in model.graph.node if n.name == name)


def dq_scale_alone(model: onnx.ModelProto) -> None:
    scale = next(i for i in model.graph.initializer if i.name.endswith("layer2.0/relu/Relu_output_0_scale"))
    model.graph.initializer.append(numpy_helper.from_array(numpy_helper.to_array(scale) * 4, "planted"))
    node(model, "/layer2/layer2.0/relu/Relu_output_0_DequantizeLinear").input[1] = "planted"


def drop_residual(model: onnx.ModelProto) -> None:
    add = node(model, "/layer2/layer2.0/Add")
    add.input[1] = add.input[0]


def drop_relu(model: onnx.ModelProto) -> None:
    relu = node(model, "/layer3/layer3.0/relu_1/Relu")
    for other in model.graph.node:
        for index, name in enumerate(other.input):
            if name == relu.output[0]:
                other.input[index] = relu.input[0]
    model.graph.node.remove(relu)


def attribute(name: str, key: str, value: object) -> Fault:
    def plant(model: onnx.ModelProto) -> None:
        found = node(model, name)
        kept = [a for a in found.attribute if a.name != key]
        del found.attribute[:]
        found.attribute.extend([*kept, helper.make_attribute(key, value)])

    return plant


def swap_weights(model: onnx.ModelProto) -> None:
    one, other = node(model, "/layer1/layer1.0/conv1/Conv"), node(model, "/layer1/layer1.0/conv3/Conv")
    one.input[2], other.input[2] = other.input[2], one.input[2]


CONV = "layer2.0.conv2.weight"
FAULTS: list[tuple[str, str, Fault]] = [
    ("simplify", "layer2.0.conv2", lambda m: array(m, CONV, bump((3, 1, 1, 1), 1e-6))),
    ("simplify", "layer2.0.bn2", lambda m: array(m, "layer2.0.bn2.running_var", bump((5,), 1e-4))),
    ("simplify", "layer2.0.bn2", attribute("/layer2/layer2.0/bn2/BatchNormalization", "epsilon", 1e-3)),
    ("simplify", "layer2.0.conv2", attribute("/layer2/layer2.0/conv2/Conv", "strides", [1, 1])),
    ("simplify", "", lambda m: array(m, "pixel_mean", bump((0, 0, 0, 0), 1.0))),
    ("simplify", "layer2.0", drop_residual),
    ("simplify", "layer3.0.relu_1", drop_relu),
    ("simplify", "fc", lambda m: array(m, "fc.weight", lambda w: w[::-1])),
    ("fold_batchnorm", "layer2.0.conv2", lambda m: array(m, CONV, bump((3, 1, 1, 1), 1e-4))),
    ("fold_batchnorm", "layer2.0.conv2", lambda m: array(m, CONV, lambda w: w.transpose(0, 1, 3, 2))),
    ("fold_batchnorm", "layer1.0.conv3", lambda m: array(m, "layer1.0.conv3.bias", lambda b: b * 0)),
    ("fold_batchnorm", "layer1.0.conv3", lambda m: array(m, "layer1.0.conv3.bias", lambda b: b * np.nan)),
    ("fold_batchnorm", "layer2.0.conv2", attribute("/layer2/layer2.0/conv2/Conv", "group", 2)),
    ("fold_batchnorm", "layer2.0", drop_residual),
    ("int8", "layer2.0.conv2", lambda m: array(m, f"{CONV}_int8", lambda q: np.where(q == q.max(), q - 2, q))),
    ("int8", "layer2.0.conv2", lambda m: array(m, f"{CONV}_scale", lambda s: s * 4)),
    ("int8", "layer2.0.conv2", lambda m: array(m, f"{CONV}_scale", lambda s: np.roll(s, 1))),
    ("int8", "layer2.0.conv2", dq_scale_alone),
    ("int8", "layer1.0.conv1", swap_weights),
    ("int8", "layer1.0.conv1", lambda m: array(m, "layer1.0.conv1.bias", bump((0,), 0.5))),
    ("int8", "maxpool", attribute("/maxpool/MaxPool", "pads", [0, 0, 1, 1])),
    ("int8", "layer2.0", drop_residual),
]


@pytest.mark.parametrize(("stage", "module", "plant"), FAULTS, ids=[f"{n}-{f[0]}" for n, f in enumerate(FAULTS)])
def test_every_planted_fault_is_refuted_and_located(
    built: Path, tmp_path: Path, stage: str, module: str, plant: Fault
) -> None:
    place = next(index for index, name in enumerate(STAGES) if name.endswith(stage))
    model = onnx.load(built / f"{STAGES[place]}.onnx")
    plant(model)
    onnx.save(model, tmp_path / "after.onnx")
    certificate = certify(built / f"{STAGES[place - 1]}.onnx", tmp_path / "after.onnx")
    assert not certificate.proven
    assert module in {refutation.module for refutation in certificate.refuted}


@pytest.mark.parametrize(("before", "after"), [(0, 1), (1, 2), (2, 3), (0, 2), (0, 3), (1, 3)])
def test_honest_files_are_proven_over_any_number_of_stages(built: Path, before: int, after: int) -> None:
    certificate = certify(built / f"{STAGES[before]}.onnx", built / f"{STAGES[after]}.onnx")
    assert certificate.proven, certificate.refuted
    assert certificate.largest <= 1
    assert certificate.constants == (30 if after > 1 else 69)  # 13 pairs of weight and bias, fc, pixel statistics


def test_a_file_is_not_compared_with_itself(built: Path) -> None:
    with pytest.raises(ValueError, match="compared with itself"):
        certify(built / "02-export.onnx", built / "02-export.onnx")


def certify_command(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pipeline", "certify", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def test_the_command_proves_refutes_and_refuses(built: Path, tmp_path: Path) -> None:
    before, after = built / "03-simplify.onnx", built / "04-fold_batchnorm.onnx"
    done = certify_command(before, after)
    assert (done.returncode, done.stdout.splitlines()[-1][:6]) == (0, "proven")
    assert "13 folded, 0 left" in done.stdout
    model = onnx.load(after)
    array(model, "layer3.0.conv1.weight", bump((7, 2, 0, 0), 0.01))
    onnx.save(model, tmp_path / "moved.onnx")
    done = certify_command(before, tmp_path / "moved.onnx", "--json")
    assert done.returncode == 1
    said = json.loads(done.stdout)
    assert said["proven"] is False
    assert [item["module"] for item in said["refuted"]] == ["layer3.0.conv1"]
    assert "weight[7, 2, 0, 0]" in said["refuted"][0]["found"]
    (tmp_path / "text.onnx").write_text("no model")
    for wrong in (before, tmp_path / "text.onnx", tmp_path / "missing.onnx"):
        done = certify_command(before, wrong)
        assert done.returncode == 2
        assert done.stderr.startswith("error: ")
        assert "Traceback" not in done.stderr
