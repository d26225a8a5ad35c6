"""Where Q/DQ pairs stand: each runtime's own rules, kept by a build and asked of every file."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from conftest import ROOT, TINY, Cli
from faults import array, pair_after, skip
from onnxruntime.quantization import CalibrationDataReader, quantize_static

from exporters import lint, onnx_file

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Fault = Callable[[onnx.ModelProto], None]

CONV, STEM = "layer2.0.conv2.weight", "/relu/Relu_output_0"


@pytest.fixture(scope="session")
def integers(cli: Cli, built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny network placed for ONNX Runtime; not to be changed."""
    assert built
    output = tmp_path_factory.mktemp("integers")
    cli.report(*TINY, "--placement", "onnxruntime", "-o", output)
    return output


def test_all_convolutions_run_in_integers_and_closer_than_under_tensorrts_rules(built: Path, integers: Path) -> None:
    theirs, ours = (json.loads((folder / "report.json").read_text())["stages"] for folder in (built, integers))
    assert [row["verdict"] for row in ours] == ["pass"] * len(ours)
    assert ours[-1]["int8_share"] == 1 > theirs[-1]["int8_share"]
    assert ours[4]["drift"]["sqnr_db"] > theirs[4]["drift"]["sqnr_db"] + 1
    assert ours[4]["certificate"]["proven"]
    assert ours[-1]["step"]["sqnr_db"] > 35


def test_tensorrt_does_not_read_them_and_it_is_said_first(cli: Cli, tmp_path: Path) -> None:
    flags = ("--arch", "resnext_tiny", "--precision", "int8", "--placement", "onnxruntime", "-o", tmp_path / "x")
    assert "does not read pairs that are placed for onnxruntime" in cli.refused(*flags, "--engine", "tensorrt-rtx")
    assert "goes with --precision int8" in cli.refused(*flags, "--precision", "int8-fp16")
    assert not (tmp_path / "x").exists()


def test_honest_files_break_no_rule(built: Path, integers: Path, mixed: Path) -> None:
    for path in (built / "05-int8.onnx", next(integers.glob("05-int8.onnx")), next(mixed.glob("0?-halve.onnx"))):
        model = onnx_file.read(path)
        assert lint.lint(model, lint.placement_of(model)) == []


def other(name: str, change: Callable[[np.ndarray], np.ndarray]) -> Fault:
    """The initializer that ends so with another type or shape."""

    def plant(model: onnx.ModelProto) -> None:
        tensor = min((t for t in model.graph.initializer if t.name.endswith(name)), key=lambda t: len(t.name))
        tensor.CopyFrom(
            onnx.numpy_helper.from_array(np.asarray(change(onnx.numpy_helper.to_array(tensor))), tensor.name)
        )

    return plant


def quantised_bias(model: onnx.ModelProto) -> None:
    node = next(node for node in model.graph.node if node.op_type == "Conv" and "layer2.0/conv2" in node.name)
    bias = onnx.numpy_helper.to_array(next(t for t in model.graph.initializer if t.name == node.input[2]))
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.round(bias / 1e-3).astype(np.int32), "b32"))
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.array(1e-3, np.float32), "bs"))
    model.graph.node.insert(0, onnx.helper.make_node("DequantizeLinear", ["b32", "bs"], ["bdq"], name="bdq"))
    node.input[2] = "bdq"


def without(tensor: str) -> Fault:
    def plant(model: onnx.ModelProto) -> None:
        for operator in ("DequantizeLinear", "QuantizeLinear"):
            skip(f"{tensor}_{operator}")(model)

    return plant


def groups_of_two(model: onnx.ModelProto) -> None:
    node = next(node for node in model.graph.node if "layer2.0/conv2" in node.name and node.op_type == "Conv")
    group = next(attribute for attribute in node.attribute if attribute.name == "group")
    width = next(t for t in model.graph.initializer if t.name == f"{CONV}_int8").dims[1]
    group.i *= width // 2
    other(f"{CONV}_int8", lambda w: w[:, :2])(model)


ADD = "/layer1/layer1.0/Add"
PLANTED: list[tuple[str, str, Fault]] = [
    ("Q001", "relu", other(f"{STEM}_zero_point", lambda zero: zero.astype(np.uint8))),
    ("Q003", "relu", other(f"{STEM}_scale", lambda s: np.full(16, s))),
    ("Q004", "layer2.0.conv2", other(f"{CONV}_scale", np.max)),
    ("Q005", "layer2.0.conv2", quantised_bias),
    ("Q006", "layer2.0.relu", pair_after("/layer2/layer2.0/bn1/BatchNormalization_output_0", "p")),
    ("Q007", "layer2.0", pair_after("/layer2/layer2.0/bn3/BatchNormalization_output_0", "p")),
    ("Q009", "maxpool", without("/maxpool/MaxPool_output_0")),
    ("Q010", "layer2.0.conv2", groups_of_two),
    ("Q011", "layer2.0.conv2", without("/layer2/layer2.0/relu/Relu_output_0")),
    ("Q012", "layer2.0.conv2", other(f"{CONV}_scale", lambda s: s.astype(np.float16))),
]


@pytest.mark.parametrize(("rule", "module", "plant"), PLANTED, ids=[row[0] for row in PLANTED])
def test_a_broken_rule_is_named_with_its_module(built: Path, rule: str, module: str, plant: Fault) -> None:
    model = onnx.load(built / "05-int8.onnx")
    plant(model)
    found = {(finding.rule, finding.module) for finding in lint.lint(ir.from_proto(model))}
    assert (rule, module) in found


def lint_command(*arguments: object) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-m", "pipeline", "lint", *map(str, arguments)]
    return subprocess.run(line, cwd=ROOT, capture_output=True, text=True, check=False)


def test_a_file_of_another_quantiser_is_told_why_tensorrt_refuses_it(built: Path, tmp_path: Path) -> None:
    images = np.random.default_rng(0).uniform(0, 255, (8, 1, 32, 32)).astype(np.float32)

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        left = iter([{"images": images}])

        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(self.left, None)

    quantize_static(built / "04-fold_batchnorm.onnx", tmp_path / "own.onnx", Reader(), per_channel=True)
    done = lint_command(tmp_path / "own.onnx")
    assert done.returncode == 1
    assert "Q001 layer1.0.conv1: " in done.stdout or "Q001 layer1.0.relu" in done.stdout
    assert "Q005 layer2.0.conv2: its bias is quantised" in done.stdout
    assert lint_command(built / "05-int8.onnx").returncode == 0
    assert lint_command(built / "05-int8.onnx", "--placement", "onnxruntime", "--json").stdout.startswith("[")
    (tmp_path / "cut.onnx").write_bytes((built / "05-int8.onnx").read_bytes()[:5000])
    done = lint_command(tmp_path / "cut.onnx")
    assert done.returncode == 2
    assert "cut.onnx is truncated" in done.stderr
    assert lint_command(tmp_path / "missing.onnx").returncode == 2


def test_a_pair_that_cuts_off_what_no_relu_does_is_named(integers: Path) -> None:
    model = onnx.load(next(integers.glob("05-int8.onnx")))
    array("/Div_output_0_zero_point", np.zeros_like)(model)
    assert {finding.rule for finding in lint.lint(ir.from_proto(model), "onnxruntime")} == {"Q002"}
