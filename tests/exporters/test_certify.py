"""An honest file is proven over any number of stages; what is not is refuted, and located."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

import onnx
import pytest
from conftest import ROOT
from faults import array, bump

from exporters.certify import certify

if TYPE_CHECKING:
    from pathlib import Path

STAGES = ["02-export", "03-simplify", "04-fold_batchnorm", "05-int8"]


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
    before = built / "03-simplify.onnx"
    after = built / "04-fold_batchnorm.onnx"
    done = certify_command(before, after)
    assert (done.returncode, done.stdout.splitlines()[-1][:6]) == (0, "proven")
    assert "13 folded, 0 left" in done.stdout

    model = onnx.load(after)
    array("layer3.0.conv1.weight", bump((7, 2, 0, 0), 0.01))(model)
    onnx.save(model, tmp_path / "moved.onnx")
    done = certify_command(before, tmp_path / "moved.onnx", "--json")
    assert done.returncode == 1
    certificate = json.loads(done.stdout)
    assert certificate["proven"] is False
    assert [refutation["module"] for refutation in certificate["refuted"]] == ["layer3.0.conv1"]
    assert "weight[7, 2, 0, 0]" in certificate["refuted"][0]["found"]

    done = certify_command(built / "01-freeze.safetensors", after)
    assert (done.returncode, "other files from the one before" in done.stdout) == (1, True)

    (tmp_path / "text.onnx").write_text("no model")
    for wrong in (before, tmp_path / "text.onnx", tmp_path / "missing.onnx"):
        done = certify_command(before, wrong)
        assert done.returncode == 2
        assert done.stderr.startswith("error: ")
        assert "Traceback" not in done.stderr
