"""Training by the real command: killed and resumed, by one process and by two, and what becomes of bad input."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from pipeline.data.cifar10 import RECORD, TRAIN
from pipeline.workspace import sha256

if TYPE_CHECKING:
    from conftest import Cli

TINY = ("--arch", "resnet_tiny", "--no-curves")


def command(*flags: object, processes: int = 1) -> list[str]:
    several = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    return [sys.executable, *(several if processes > 1 else []), "-m", "pipeline", "train", *map(str, flags)]


def train(cli: Cli, *flags: object, expect: int = 0, **options: Any) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        command(*flags, **options), env=cli.environment, capture_output=True, text=True, check=False
    )
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
    said = json.loads((tmp_path / "two" / "training.json").read_text())
    assert said["processes"] == 2
    assert said["test"]["top1"] == json.loads((tmp_path / "one" / "training.json").read_text())["test"]["top1"]
