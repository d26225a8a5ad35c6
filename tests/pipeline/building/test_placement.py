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
from faults import array
from onnxruntime.quantization import CalibrationDataReader, quantize_static

from exporters import lint, onnx_file

if TYPE_CHECKING:
    from pathlib import Path


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


@pytest.mark.parametrize(
    ("flags", "code", "said"),
    [
        ("--tensorrt 10.3", 0, "05-int8.onnx: 0 findings by the rules of tensorrt\n"),
        ("--tensorrt 8.6", 1, "Q021 layer2.0.conv2: its weights are stored quantised"),
        ("--tensorrt 8.2", 1, "Q024 the graph: the file is written in opset 17, and 13 is the newest that is read"),
        ("--opset 16", 1, "1 findings by the rules of tensorrt"),
        ("--tensorrt 7.2", 2, "nothing is known of TensorRT 7.2; give the opset it reads by --opset"),
        ("--tensorrt ten", 2, "ten is no version"),
        ("--tensorrt 8.6 --placement onnxruntime", 2, "does not go with the rules of onnxruntime"),
    ],
)
def test_lint_knows_what_a_tensorrt_reads(built: Path, flags: str, code: int, said: str) -> None:
    done = lint_command(built / "05-int8.onnx", *flags.split())
    assert said in done.stdout + done.stderr
    assert done.returncode == code


def test_a_pair_that_cuts_off_what_no_relu_does_is_named(integers: Path) -> None:
    model = onnx.load(next(integers.glob("05-int8.onnx")))
    array("/Div_output_0_zero_point", np.zeros_like)(model)
    assert {finding.rule for finding in lint.lint(ir.from_proto(model), "onnxruntime")} == {"Q002"}
