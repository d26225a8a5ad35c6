"""A finished build judged again: what it left decides, and whoever touched it is told."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import onnx
import pytest
from accidents import note, reseal, with_new_hash
from conftest import ROOT

from pipeline.workspace import sha256 as hash_of

if TYPE_CHECKING:
    from pathlib import Path


def command(*arguments: object) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-m", "pipeline", *map(str, arguments)]
    return subprocess.run(line, cwd=ROOT, capture_output=True, text=True, check=False)


def check(*arguments: object) -> subprocess.CompletedProcess[str]:
    return command("check", *arguments)


def test_the_same_margins_give_the_same_report(built: Path) -> None:
    done = check(built, "--json")
    assert done.returncode == 0, done.stderr
    saved = json.loads((built / "report.json").read_text())
    assert {key: json.loads(done.stdout)[key] for key in saved} == saved


def test_every_file_can_be_run_again(built: Path) -> None:
    done = check(built, "--rerun", "--json")
    assert done.returncode == 0, done.stderr
    before, after = json.loads((built / "report.json").read_text()), json.loads(done.stdout)
    assert after["stages"] == before["stages"]


def test_a_file_and_every_hash_changed_together_are_found_by_running_it(copy: Path) -> None:
    """Whoever can rewrite a file can rewrite all that tells of it, and not what the file answers."""
    model = onnx.load(copy / "05-int8.onnx")
    scale = next(i for i in model.graph.initializer if i.name.endswith("layer3.0.conv2.weight_scale"))
    scale.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(scale) * 4, scale.name))
    onnx.save(model, copy / "05-int8.onnx")
    with_new_hash(copy, "05-int8.onnx", in_note=True)
    note("06-engine.json", key={"stage": "engine", "source": hash_of(copy / "05-int8.onnx")})(copy, copy)
    reseal(copy)
    done = check(copy)
    assert done.returncode == 0
    # Of this directory, wherever it was built.
    assert f"PASS, by this check of {copy}" in done.stdout
    done = check(copy, "--rerun")
    assert done.returncode == 1
    assert "int8: refuted at layer3.0.conv2" in done.stdout


def test_images_that_changed_are_told(copy: Path) -> None:
    report = json.loads((copy / "report.json").read_text())
    report["images"]["test"] = "0" * 64
    (copy / "report.json").write_text(json.dumps(report))
    done = check(copy, "--rerun")
    assert done.returncode == 2
    assert "no longer gives the 900 images" in done.stderr


@pytest.mark.parametrize(
    ("flags", "code"), [(["--max-drop", "0.5"], 0), (["--max-drop", "0.001"], 4), (["--confidence", "0.999999999"], 4)]
)
def test_other_margins_give_other_verdicts(built: Path, flags: list[str], code: int) -> None:
    done = check(built, *flags)
    assert done.returncode == code, done.stdout
    assert "06-engine" in done.stdout


@pytest.mark.parametrize("name", ["01-freeze.safetensors", "05-int8.onnx", "06-engine.ort.onnx"])
def test_a_file_that_was_touched_is_named(copy: Path, name: str) -> None:
    content = bytearray((copy / name).read_bytes())
    content[len(content) // 3] ^= 4
    (copy / name).write_bytes(content)
    done = check(copy)
    assert done.returncode == 1
    assert f"{name} was changed after the build wrote it" in done.stdout
    told = f"{name} was changed after the build wrote it: the page shows what was judged"
    assert told in command("report", copy).stderr
    (copy / name).unlink()
    assert f"{name} is gone" in check(copy).stdout


@pytest.mark.parametrize("name", ["record.json", "expected.npz", "chart-wide.png"])
def test_a_conformance_vector_that_was_touched_or_is_gone_is_named(copy: Path, name: str) -> None:
    path = copy / "conformance" / name
    path.write_bytes(path.read_bytes() + b" ")
    done = check(copy)
    assert done.returncode == 1
    assert f"conformance/{name} is gone or not what this build wrote" in done.stdout
    path.unlink()
    assert check(copy).returncode == 1


def test_a_file_that_is_gone_is_named(copy: Path) -> None:
    (copy / "04-fold_batchnorm.onnx").unlink()
    done = check(copy)
    assert done.returncode == 1
    assert "04-fold_batchnorm.onnx is gone" in done.stdout


def test_answers_that_were_touched_are_told(copy: Path) -> None:
    path = copy / "answers.safetensors"
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)
    done = check(copy)
    assert done.returncode == 1
    assert "answers.safetensors is not what this build wrote" in done.stdout


def change(copy: Path, **keys: Any) -> None:
    report = json.loads((copy / "report.json").read_text())
    row = report["stages"][4]
    row.update(keys)
    (copy / "report.json").write_text(json.dumps(report))


def test_what_was_refuted_stays_refuted_under_any_margin(copy: Path) -> None:
    change(copy, refuted=["it contradicts itself: permuted rows: the answers agree to 3.0 dB only, not 30"])
    done = check(copy, "--max-drop", "0.9")
    assert done.returncode == 1
    assert "it contradicts itself: permuted rows" in done.stdout


@pytest.mark.parametrize("keys", [{"drift": {}}, {"file": 3}, {"sha256": None, "file": "../../x"}])
def test_a_report_that_makes_no_sense_is_no_pass(copy: Path, keys: dict[str, Any]) -> None:
    change(copy, **keys)
    done = check(copy)
    assert done.returncode in {1, 2}
    assert "Traceback" not in done.stderr


def test_a_directory_without_a_build_is_refused(tmp_path: Path) -> None:
    done = check(tmp_path)
    assert done.returncode == 2
    assert "holds no report.json" in done.stderr
    (tmp_path / "report.json").write_text("[" * 200_000)
    done = check(tmp_path)
    assert done.returncode == 2
    assert "holds no report.json" in done.stderr
    done = check(tmp_path, "--confidence", "95")
    assert "--confidence 95 must be" in done.stderr
