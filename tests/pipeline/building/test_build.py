"""The main job, from the command line to the files it leaves."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest
from conftest import HEAVY, ROOT, TINY
from safetensors.numpy import load_file, save_file

from calibration.ranges import METHODS
from pipeline.precisions import PRECISIONS

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import Cli, Golden


def test_int8_is_judged_after_every_stage(built: Path, golden: Golden) -> None:
    report = json.loads((built / "report.json").read_text())
    assert report["verdict"] == "pass"
    assert {"schema", "recipe", "environment", "stages", "not_proven"} <= set(report)
    rows = report["stages"]
    assert [row["name"] for row in rows] == ["freeze", "export", "simplify", "fold_batchnorm", "int8", "engine"]
    for row in rows:
        golden("keys_of_a_stage", sorted(row))
        golden("keys_of_a_drift", sorted(row["drift"]))
        golden("keys_of_a_drift", sorted(row["step"]))
        assert row["verdict"] == "pass"
        assert row["accuracy"]["n"] == 900
        assert row["accuracy"]["top5"] >= row["accuracy"]["top1"] >= 0.96
    assert [rows[i]["work"].split("BatchNormalization ")[1] for i in (1, 2, 3)] == ["13", "13 → 13", "13 → 0"]
    assert rows[0]["drift"]["sqnr_db"] is None  # identical to the network in memory
    assert rows[1]["drift"]["sqnr_db"] > 100  # and the first file that another program computes is not
    proofs = [row["certificate"] for row in rows]
    assert [proof is not None and proof["proven"] for proof in proofs] == [False, True, True, True, True, False]
    assert (proofs[3]["folded"], proofs[3]["left"]) == (13, {})
    assert rows[4]["int8_share"] == 1.0
    assert rows[5]["int8_share"] == 10 / 13
    assert rows[0]["accuracy"]["top1"] - rows[5]["accuracy"]["top1"] <= 0.01


def test_files_are_numbered_and_nothing_else_stays(built: Path) -> None:
    files = ["01-freeze.safetensors", "02-export.onnx", "03-simplify.onnx", "04-fold_batchnorm.onnx", "05-int8.onnx"]
    files.append("06-engine.ort.onnx")
    notes = [f"{name.split('.')[0]}.json" for name in files]
    assert sorted(path.name for path in built.iterdir()) == sorted(
        [
            *files,
            *notes,
            "answers.safetensors",
            "conformance",
            "evidence.json",
            "looks.json",
            "report.html",
            "report.json",
        ]
    )
    noted = json.loads((built / "report.json").read_text())["conformance"]
    assert {path.name for path in (built / "conformance").iterdir()} == set(noted)


def test_the_onnx_file_says_what_it_is(built: Path) -> None:
    for name in ("02-export", "03-simplify", "04-fold_batchnorm", "05-int8"):
        model = onnx.load(built / f"{name}.onnx")
        said = {entry.key: entry.value for entry in model.metadata_props}
        assert json.loads(said["classes"]) == list("0123456789")
        assert json.loads(said["preprocessing"])["input_size"] == 32
        assert json.loads(said["versions"])["torch"]
        assert {"commit", "source", "architecture"} <= set(said)
        assert model.opset_import[0].version == 17
    names = {initializer.name for initializer in onnx.load(built / "02-export.onnx").graph.initializer}
    assert {"conv1.weight", "layer2.0.downsample.1.running_var", "fc.bias"} <= names


def test_a_second_run_reuses_every_file_and_judges_anew(cli: Cli, built: Path, tmp_path: Path) -> None:
    output = tmp_path / "copy"
    shutil.copytree(built, output)
    for path in output.glob("*"):  # time stamps say nothing
        path.touch()
    (output / "report.json").write_text("{}")
    report = cli.report(*TINY, "-o", output)
    assert all(row["reused"] for row in report["stages"])
    before = json.loads((built / "report.json").read_text())
    for old, new in zip(before["stages"], report["stages"], strict=True):
        assert (old["sha256"], old["drift"]) == (new["sha256"], new["drift"])


def test_only_what_depends_on_a_change_is_made_again(cli: Cli, built: Path, tmp_path: Path) -> None:
    output = tmp_path / "copy"
    shutil.copytree(built, output)
    report = cli.report(*TINY, "--calib-method", "minmax", "-o", output)
    assert [row["reused"] for row in report["stages"]] == [True] * 4 + [False] * 2


def test_a_file_that_was_touched_is_made_again(cli: Cli, built: Path, tmp_path: Path) -> None:
    output = tmp_path / "copy"
    shutil.copytree(built, output)
    path = output / "04-fold_batchnorm.onnx"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    report = cli.report(*TINY, "-o", output)
    assert [row["reused"] for row in report["stages"]] == [True] * 3 + [False] + [True] * 2
    assert path.read_bytes() == (built / path.name).read_bytes()


def test_another_precision_in_the_same_directory_leaves_no_stray_file(cli: Cli, built: Path, tmp_path: Path) -> None:
    output = tmp_path / "copy"
    shutil.copytree(built, output)
    own = {"05-chapter.json": '{"file": "thesis.txt"}', "thesis.txt": "", "05-notes.json": '{"file": "05-notes.txt"}'}
    own["05-notes.txt"] = "a person's own file"
    for name, text in own.items():
        (output / name).write_text(text)
    report = cli.report("--arch", "resnext_tiny", "--precision", "fp16", "--engine", "onnxruntime", "-o", output)
    assert [row["name"] for row in report["stages"]][-2:] == ["fp16", "engine"]
    assert {path.name for path in output.glob("05-*")} | {"thesis.txt"} == {"05-fp16.onnx", "05-fp16.json", *own}
    assert (output / "thesis.txt").exists()
    assert any("float32" in sentence for sentence in report["not_proven"])


def test_fp16_is_really_float16(cli: Cli, tmp_path: Path) -> None:
    report = cli.report("--arch", "resnext_tiny", "--precision", "fp16", "--engine", "onnxruntime", "-o", tmp_path)
    model = onnx.load(tmp_path / "05-fp16.onnx")
    kinds = {initializer.name: initializer.data_type for initializer in model.graph.initializer}
    assert {kinds.pop("pixel_mean"), kinds.pop("pixel_std")} == {onnx.TensorProto.FLOAT}
    assert set(kinds.values()) == {onnx.TensorProto.FLOAT16}
    assert 40 < report["stages"][4]["drift"]["sqnr_db"] < 90


def test_precision_is_fp32_unless_asked(cli: Cli, tmp_path: Path) -> None:
    report = cli.report("--arch", "resnext_tiny", "--engine", "onnxruntime", "-o", tmp_path / "out")
    assert report["recipe"]["precision"] == "fp32"
    assert [row["name"] for row in report["stages"]][-2:] == ["fold_batchnorm", "engine"]


def test_an_engine_that_cannot_run_here_is_never_called_verified(cli: Cli, tmp_path: Path) -> None:
    done = cli("--arch", "resnext_tiny", "--precision", "int8", "-o", tmp_path)
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "report.json").read_text())
    ahead = next(row for row in report["stages"] if row["name"] == "engine_tensorrt_rtx")
    assert ahead["verdict"] == "not_run"
    assert (ahead["drift"], ahead["accuracy"], ahead["provider"]) == (None, None, None)
    assert ahead["int8_share"] == 1.0  # all 13 convolutions, as the builder itself lists them
    assert any("engine_tensorrt_rtx" in sentence for sentence in report["not_proven"])
    assert "built, not run" in done.stdout


def test_wrong_calibration_images_fail_the_int8_stage_by_name(
    cli: Cli, golden: Golden, built: Path, weights: Path, tmp_path: Path
) -> None:
    dark = np.random.default_rng(0).random((32, 1, 32, 32)).astype(np.float32) * 40
    np.save(tmp_path / "dark.npy", dark)
    output = tmp_path / "out"
    shutil.copytree(built, output)
    report = cli.report(*TINY, "--weights", weights, "--calib-data", tmp_path / "dark.npy", "-o", output, expect=1)
    assert report["verdict"] == "fail"
    assert [row["verdict"] for row in report["stages"]] == ["pass"] * 4 + ["fail", "not_run"]
    assert report["stages"][4]["reasons"]
    golden("keys_of_a_stage", sorted(report["stages"][5]))
    assert report["stages"][5]["file"] is None
    assert json.loads((output / "report.json").read_text()) == report
    # A directory that held a passing build holds no engine of it any more.
    assert not list(output.glob("06-*"))


def test_channels_of_unequal_size_are_equalised(cli: Cli, weights: Path, tmp_path: Path) -> None:
    """What a channel loses in one layer it gains in the next: the same network, but bad for one scale a tensor."""
    held = load_file(weights)
    rng = np.random.default_rng(0)
    for layer in ("layer1.0", "layer2.0", "layer3.0"):
        factors = np.exp(rng.uniform(-3, 3, len(held[f"{layer}.bn1.weight"]))).astype(np.float32)
        grouped = held[f"{layer}.conv2.weight"]  # input channel c of group g is row c - g * width of that group's
        for name in ("weight", "bias"):
            held[f"{layer}.bn1.{name}"] *= factors
        width, outputs = grouped.shape[1], len(grouped) // (len(factors) // grouped.shape[1])
        for group in range(len(factors) // width):
            rows = slice(group * outputs, (group + 1) * outputs)
            grouped[rows] /= factors[group * width : (group + 1) * width][None, :, None, None]
    save_file(held, tmp_path / "w.safetensors")
    flags = (*TINY, "--weights", tmp_path / "w.safetensors", "-o", tmp_path / "out")
    before = json.loads(cli(*flags, "--json").stdout)["stages"]
    after = cli.report(*flags, "--recover", "auto")["stages"]
    assert [row["name"] for row in after[3:6]] == ["fold_batchnorm", "equalise", "int8"]
    assert after[4]["step"]["max_abs"] == 0  # the very same bits
    assert after[4]["certificate"]["rescaled"] >= 3
    assert after[5]["drift"]["sqnr_db"] > before[4]["drift"]["sqnr_db"] + 6


def test_too_few_images_leave_it_undecided(cli: Cli, weights: Path, tmp_path: Path) -> None:
    report = cli.report(*TINY, "--weights", weights, "--test-samples", 100, "-o", tmp_path, expect=4)
    assert report["verdict"] == "undecided"
    assert "which 100 images cannot tell from 1" in report["stages"][-1]["reasons"][0]


def test_margins_are_the_users(cli: Cli, built: Path, tmp_path: Path) -> None:
    shutil.copytree(built, tmp_path / "copy")
    flags = (*TINY, "--max-drop", "0.002", "--confidence", "0.99", "-o", tmp_path / "copy")
    report = cli.report(*flags, expect=4)  # 900 images cannot show a drop below a fifth of a point
    assert all(row["reused"] for row in report["stages"])
    assert [row["verdict"] for row in report["stages"]] == ["pass"] * 4 + ["undecided"] * 2
    assert report["stages"][5]["tolerance"]["confidence"] == 0.99


def test_calibration_pixels_may_come_as_arrays(cli: Cli, weights: Path, tmp_path: Path) -> None:
    from pipeline.data import digits

    part = digits.read().calibration
    pixels = np.stack([np.asarray(part.decode(index), np.float32)[None] for index in range(len(part))])
    np.savez(tmp_path / "calib.npz", images=pixels)
    flags = (*TINY, "--weights", weights, "-o", tmp_path / "out")
    report = cli.report(*flags, "--calib-data", tmp_path / "calib.npz", "--calib-samples", 50)
    assert "over 50 images" in report["stages"][4]["work"]


def test_grey_images_in_a_colour_network_only_when_asked(cli: Cli, tmp_path: Path) -> None:
    report = cli.report("--arch", "resnet_tiny", "--channels", 3, "--epochs", 4, "-o", tmp_path, expect=0)
    assert report["preprocessing"]["channels"] == 3
    assert report["preprocessing"]["mean"] == [0.305] * 3


def test_two_builds_at_once_the_second_refuses(cli: Cli, tmp_path: Path) -> None:
    flags = ("--arch", "resnet_tiny", "--epochs", 40, "-o", tmp_path)
    first = subprocess.Popen(cli.command(*flags), env=cli.environment, stderr=subprocess.PIPE, text=True)
    try:
        assert first.stderr is not None
        assert "data:" in first.stderr.readline()
        while not list(tmp_path.glob(".unfinished-*")):
            assert first.poll() is None
        assert "another build is writing there" in cli.refused(*flags)
    finally:
        first.kill()
        first.communicate()


def test_a_refused_request_leaves_the_finished_build_alone(cli: Cli, built: Path, tmp_path: Path) -> None:
    output = tmp_path / "copy"
    shutil.copytree(built, output)
    cli.refused(*TINY, "--weights", tmp_path / "nothing.pth", "-o", output)
    assert (output / "report.json").read_bytes() == (built / "report.json").read_bytes()


@pytest.mark.parametrize("content", ["{}", "[1]", "no json", '{"key": null}'])
def test_a_note_that_says_nothing_is_no_note(cli: Cli, built: Path, tmp_path: Path, content: str) -> None:
    output = tmp_path / "copy"
    shutil.copytree(built, output)
    (output / "06-engine.json").write_text(content)
    report = cli.report(*TINY, "-o", output)
    assert [row["reused"] for row in report["stages"]] == [True] * 5 + [False]


def test_help_answers_without_heavy_imports() -> None:
    code = f"""
import sys
for name in {HEAVY!r}:
    sys.modules[name] = None
from pipeline.__main__ import main
main(["build", "--help"])
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    lists = (f"--precision {{{','.join(PRECISIONS)}}}", f"--calib-method {{auto,{','.join(METHODS)}}}")
    for flag in (*lists, "--json"):
        assert flag in done.stdout


@pytest.mark.gpu
def test_the_best_engine_of_a_gpu_machine_is_tensorrt_and_is_judged(cli: Cli, tmp_path: Path) -> None:
    del cli.environment["CUDA_VISIBLE_DEVICES"]
    report = cli.report("--arch", "resnext_tiny", "--precision", "int8", "-o", tmp_path)
    engine = next(row for row in report["stages"] if row["name"] == "engine")
    assert engine["provider"] == "TensorRT"
    assert engine["verdict"] == "pass"
