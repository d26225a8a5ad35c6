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
from exporters.certify_weights import certify_weights

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


@pytest.mark.parametrize(
    ("before", "after", "stage"),
    [
        (0, 1, "simplify"),
        (1, 2, "fold_batchnorm"),
        (2, 3, "int8"),
        (1, 3, "fold_batchnorm and int8"),
    ],
)
def test_the_stage_is_read_off_both_files_and_said(built: Path, before: int, after: int, stage: str) -> None:
    files = [built / f"{STAGES[index]}.onnx" for index in (before, after)]
    assert certify(*files).stage == stage
    done = certify_command(*files)
    assert done.returncode == 0
    assert done.stdout.splitlines()[-1].startswith(f"proven as {stage}: ")


@pytest.mark.parametrize(
    ("before", "after", "stage", "found"),
    [
        (1, 2, "simplify", "BatchNormalization was folded into it, which simplify does not do"),
        (2, 3, "fold_batchnorm", "weight is stored as int8 levels, which fold_batchnorm does not make"),
        (2, 3, "simplify", "is a new Q/DQ pair of int8, which simplify does not make"),
        (2, 3, "fp8", "is a new Q/DQ pair of int8, which fp8 does not make"),
    ],
)
def test_a_stage_may_change_what_its_row_says_and_nothing_else(
    built: Path, before: int, after: int, stage: str, found: str
) -> None:
    certificate = certify(built / f"{STAGES[before]}.onnx", built / f"{STAGES[after]}.onnx", stage=stage)
    assert any(found.split(" ", maxsplit=1)[1] in item.found for item in certificate.refuted), certificate.refuted[:2]


def test_a_stage_that_nobody_knows_is_refused(built: Path) -> None:
    with pytest.raises(ValueError, match="'folded' is no stage that certify knows; choose among simplify, fold_batch"):
        certify(built / "03-simplify.onnx", built / "04-fold_batchnorm.onnx", stage="folded")


def edited_metadata(path: Path, dst: Path, **changes: str | None) -> Path:
    model = onnx.load(path)
    kept = {item.key: item.value for item in model.metadata_props}
    kept.update(changes)
    del model.metadata_props[:]
    onnx.helper.set_model_props(model, {key: value for key, value in kept.items() if value is not None})
    onnx.save(model, dst)
    return dst


def test_classes_and_preprocessing_are_part_of_the_file(built: Path, tmp_path: Path) -> None:
    before = built / "03-simplify.onnx"
    after = built / "04-fold_batchnorm.onnx"
    classes = json.loads(next(item.value for item in onnx.load(after).metadata_props if item.key == "classes"))
    exchanged = edited_metadata(after, tmp_path / "x.onnx", classes=json.dumps([classes[1], classes[0], *classes[2:]]))
    [refutation] = certify(before, exchanged).refuted
    assert refutation.found.startswith("the metadata 'classes' are ")

    lost = edited_metadata(after, tmp_path / "y.onnx", preprocessing=None)
    [refutation] = certify(before, lost).refuted
    assert refutation.found.startswith("the metadata 'preprocessing' are missing, they were ")

    elsewhere = edited_metadata(after, tmp_path / "z.onnx", commit="another")
    certificate = certify(before, elsewhere)
    assert certificate.proven
    assert certificate.noted[0].startswith("the metadata 'commit' are another, they were ")


def test_a_graph_with_other_classes_than_the_frozen_network_is_refuted(built: Path, tmp_path: Path) -> None:
    assert certify_weights(built / "01-freeze.safetensors", built / "02-export.onnx").proven
    other = edited_metadata(built / "02-export.onnx", tmp_path / "x.onnx", classes=json.dumps(["cat", "dog"]))
    [refutation] = certify_weights(built / "01-freeze.safetensors", other).refuted
    assert "the graph says other classes than the frozen network" in refutation.found
