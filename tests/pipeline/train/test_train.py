"""Training by the real command: killed and resumed, by one process and by two, and what becomes of bad input."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from pipeline.data import cifar10, digits
from pipeline.data.cifar10 import RECORD, TRAIN
from pipeline.workspace import sha256

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import Cli

TINY = ("--arch", "resnet_tiny", "--no-curves")


def command(*flags: object, processes: int = 1) -> list[str]:
    several = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    return [sys.executable, *(several if processes > 1 else []), "-m", "pipeline", "train", *map(str, flags)]


def train(cli: Cli, *flags: object, expect: int = 0, **options: Any) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(command(*flags, **options), env=cli.environment, capture_output=True, text=True, check=False)
    assert done.returncode == expect, done.stdout + done.stderr
    return done


def refused(cli: Cli, *flags: object, code: int = 2) -> str:
    done = train(cli, *TINY, *flags, expect=code)
    assert "Traceback" not in done.stderr
    sentence = done.stderr.strip().splitlines()[-1]
    assert sentence.startswith("error: ")
    return sentence


def history(output: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (output / "history.jsonl").read_text().splitlines()]


def losses(output: Path) -> list[float]:
    return [row[part]["loss"] for row in history(output) for part in ("train", "validation")]


def test_five_kills_change_no_bit(cli: Cli, tmp_path: Path) -> None:
    flags = (*TINY, "--epochs", 3, "--batch", 64, "--shards", 2, "--mixup", 0.2, "--flip", "yes", "--save-seconds", 0)
    calm, disturbed = tmp_path / "calm", tmp_path / "disturbed"
    train(cli, *flags, "-o", calm)
    kills = 0
    while kills < 5:
        process = subprocess.Popen(command(*flags, "-o", disturbed), env=cli.environment, stderr=subprocess.DEVNULL)
        seen = set[int]()
        while len(seen) < 5:  # four more checkpoints, within an epoch or at its end
            assert process.poll() is None, "it was over before it could be killed"
            if (disturbed / "last.safetensors").exists():
                seen.add((disturbed / "last.safetensors").stat().st_mtime_ns)
            time.sleep(0.002)
        process.kill()
        process.wait()
        kills += 1
    assert not (disturbed / "training.json").exists()
    train(cli, *flags, "-o", disturbed)
    assert sha256(disturbed / "weights.safetensors") == sha256(calm / "weights.safetensors")
    ours, theirs = (load_file(place / "last.safetensors") for place in (calm, disturbed))
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)
    assert losses(disturbed) == losses(calm)
    assert {path.name for path in disturbed.iterdir()} == {path.name for path in calm.iterdir()}


def test_two_processes_follow_one_that_does_both_shards(cli: Cli, tmp_path: Path) -> None:
    """Twenty epochs of one step each: every loss, and the validation behind it, which BatchNorm's statistics decide."""
    flags = (*TINY, "--input-size", 16, "--epochs", 20, "--batch", 512, "--shards", 2, "--arithmetic", "float64")
    train(cli, *flags, "-o", tmp_path / "one")
    train(cli, *flags, "-o", tmp_path / "two", processes=2)
    one, two = losses(tmp_path / "one"), losses(tmp_path / "two")
    assert len(one) == len(two) == 40
    assert max(abs(a - b) for a, b in zip(one, two, strict=True)) < 1e-9
    assert one[0] - one[-2] > 0.3
    result = json.loads((tmp_path / "two" / "training.json").read_text())
    assert result["processes"] == 2
    assert result["test"]["top1"] == json.loads((tmp_path / "one" / "training.json").read_text())["test"]["top1"]


@pytest.fixture(scope="module")
def trained(cli: Cli, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished training with curves; not to be changed."""
    output = tmp_path_factory.mktemp("train") / "out"
    done = train(cli, "--arch", "resnet_tiny", *FINISHED, "-o", output)
    assert "next: python -m pipeline build --arch resnet_tiny --weights" in done.stdout
    assert done.stderr.count("epoch ") == 10
    return output


FINISHED = ("--epochs", 10, "--batch", 32, "--learning-rate", 0.05, "--ema", 0.9)


def test_a_build_takes_the_weights_and_finds_the_same_accuracy(cli: Cli, trained: Path, tmp_path: Path) -> None:
    weights = trained / "weights.safetensors"
    report = cli.report("--arch", "resnet_tiny", "--weights", weights, "--engine", "onnxruntime", "-o", tmp_path)
    result = json.loads((trained / "training.json").read_text())
    assert report["stages"][0]["accuracy"]["top1"] == pytest.approx(result["test"]["top1"], abs=1e-9)
    assert result["test"]["top1"] > 0.9
    assert result["test"]["lower"] < result["test"]["top1"] < result["test"]["upper"]
    best = max(history(trained), key=lambda row: (row["validation"]["top1"], -row["validation"]["loss"]))
    assert result["kept"] == best["epoch"]


def test_curves_show_both_parts_and_a_finished_training_is_not_repeated(cli: Cli, trained: Path) -> None:
    assert "<svg" in (trained / "curves.svg").read_text()
    before = sha256(trained / "last.safetensors")
    again = train(cli, "--arch", "resnet_tiny", *FINISHED, "-o", trained, "--json")
    assert json.loads(again.stdout)["epochs"] == 10
    assert "epoch 1 of" not in again.stderr
    assert sha256(trained / "last.safetensors") == before


def test_what_changed_since_the_checkpoint_is_named(cli: Cli, trained: Path, folder: Path, tmp_path: Path) -> None:
    before = sha256(trained / "last.safetensors")
    sentence = refused(cli, *FINISHED, "-o", trained, "--seed", 1, "--mixup", 0.5)
    assert "--mixup was 0.0 and is 0.5; --seed was 0 and is 1" in sentence
    assert "--learning-rate" not in sentence
    assert sha256(trained / "last.safetensors") == before
    flags = ("--data", folder, "--input-size", 32, "--epochs", 1, "--batch", 16, "-o", tmp_path / "out")
    train(cli, *TINY, *flags)
    odd = next((folder / "train" / "class0").iterdir())
    Image.fromarray(255 - np.asarray(Image.open(odd))).save(odd)
    sentence = refused(cli, *flags)
    assert "holds another training: the training images (--data) are others; ask" in sentence
    (tmp_path / "out" / "last.safetensors").write_bytes(b"\0" * 100)
    assert "last.safetensors is damaged" in refused(cli, *flags)


def test_a_training_that_diverges_names_the_step_and_keeps_the_last_good_checkpoint(cli: Cli, tmp_path: Path) -> None:
    flags = ("--batch", 64, "--warmup", 0, "--learning-rate", 1e30, "--save-seconds", 0, "-o", tmp_path)
    sentence = refused(cli, *flags, code=3)
    assert "training diverged at step 1: the loss is nan" in sentence
    assert f"{tmp_path / 'last.safetensors'} is the last good checkpoint" in sentence
    assert all(bool(value.isfinite().all()) for value in load_file(tmp_path / "last.safetensors").values())


def test_weights_of_other_classes_or_channels_name_the_flag(cli: Cli, trained: Path, tmp_path: Path) -> None:
    weights = load_file(trained / "weights.safetensors")
    path, flags = tmp_path / "w.safetensors", ("--epochs", 1, "-o", tmp_path / "out")
    head = {key: torch.zeros(1000, *value.shape[1:]) for key, value in weights.items() if key.startswith("fc.")}
    save_file({**weights, **head}, path)
    assert "knows 1000 classes and --data digits has 10; add --new-head" in refused(cli, "--weights", path, *flags)
    train(cli, *TINY, "--weights", path, "--new-head", *flags)
    save_file({**weights, "conv1.weight": weights["conv1.weight"].repeat(1, 3, 1, 1)}, path)
    assert "ask for --channels 3" in refused(cli, "--weights", path, *flags)
    train(cli, *TINY, "--weights", path, "--channels", 3, "--epochs", 1, "-o", tmp_path / "three")


def test_cifar10_is_read_and_its_faults_are_named(cli: Cli, tmp_path: Path) -> None:
    """The digits in colour, laid out as the binary version lays out its images: one class lacks, one file is cut."""
    data = digits.read().train
    rows = [
        np.concatenate([[label], np.asarray(data.decode(i).convert("RGB").resize((32, 32))).transpose(2, 0, 1).ravel()])
        for i, label in enumerate(data.labels)
    ]
    records = np.array(rows, np.uint8)
    assert records.shape[1] == RECORD
    for number, name in enumerate((*TRAIN, "test_batch.bin")):
        records[number::6].tofile(tmp_path / name)
    flags = ("--data", "cifar10", "--data-root", tmp_path, "--epochs", 1, "--batch", 64, "-o", tmp_path / "out")
    read = cifar10.read(tmp_path)
    np.testing.assert_array_equal(np.asarray(read.test.decode(3)).transpose(2, 0, 1).ravel(), records[5::6][3, 1:])
    train(cli, *TINY, *flags)
    for name in TRAIN:
        records_there = np.fromfile(tmp_path / name, np.uint8).reshape(-1, RECORD)
        records_there[records_there[:, 0] < 8].tofile(tmp_path / name)
    sentence = refused(cli, *flags)
    assert "the network has 10 classes and no training image shows ship, truck" in sentence
    (tmp_path / "test_batch.bin").write_bytes(records.tobytes()[:-1])
    assert "are no whole records of 3073" in refused(cli, *flags)
    (tmp_path / "test_batch.bin").write_bytes(b"\xff" * RECORD)
    assert "holds the label 255" in refused(cli, *flags)
    (tmp_path / "test_batch.bin").unlink()
    assert "has no test_batch.bin" in refused(cli, *flags)
    assert "give the folder of its .bin files with --data-root" in refused(cli, "--data", "cifar10")


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (("--shards", 3), "--batch 128 in --shards 3 by 1 process(es): the batch must be a multiple"),
        (("--batch", 8, "--shards", 8), "a shard has fewer than 2"),
        (("--patience", 2, "--validation", 0), "--patience needs validation images"),
        (("--ema", 1), "--ema 1 is no share"),
        (("--learning-rate", "nan"), "--learning-rate nan: it takes a number above 0"),
        (("--new-head",), "--new-head goes with --weights"),
        (("--validation", 0.0001), "--validation 0.0001 of 797 images is none"),
        (("--device", "cuda"), "sees no GPU here"),
    ],
)
def test_what_cannot_be_trained_is_refused(cli: Cli, tmp_path: Path, flags: tuple[object, ...], sentence: str) -> None:
    assert sentence in refused(cli, *flags, "-o", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_file_holds_the_flags(cli: Cli, tmp_path: Path) -> None:
    saved = tmp_path / "train.toml"
    flags = ("--epochs", 1, "--batch", 256, "-o", tmp_path / "out")
    train(cli, *TINY, *flags, "--save-config", saved)
    assert "learning-rate = 0.1" in saved.read_text()
    train(cli, "--config", saved)
    saved.write_text("learning-ratee = 1")
    assert "did you mean learning-rate?" in refused(cli, "--config", saved)


@pytest.mark.parametrize("flags", [("--arithmetic", "bfloat16"), ("--arithmetic", "float16"), ("--compile",)])
def test_reduced_arithmetic_and_compiled_steps_learn_what_float32_does(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flags: tuple[str, ...]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "small.py").write_text(SMALL)
    common = (
        "--arch", "small:network", "--input-size", 16, "--epochs", 2, "--batch", 64, "--shift", 0,
        "--optimizer", "adamw", "--learning-rate", 0.01, "--no-curves",
    )  # fmt: skip
    train(cli, *common, "-o", tmp_path / "plain")
    train(cli, *common, *flags, "-o", tmp_path / "other")
    plain, other = losses(tmp_path / "plain"), losses(tmp_path / "other")
    assert plain[0] - plain[-2] > 0.03
    assert plain == pytest.approx(other, abs=0.01)
    assert plain != other


SMALL = """
from torch import nn

def network(classes, channels):
    return nn.Sequential(
        nn.Conv2d(channels, 16, 3, 2, 1), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 32, 3, 2, 1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, classes),
    )
"""
