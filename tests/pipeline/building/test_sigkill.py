"""``kill -9`` at ten random moments, then a run that finishes: the same files as an undisturbed build."""

from __future__ import annotations

import json
import random
import subprocess
import time
from typing import TYPE_CHECKING

from conftest import Cli

from pipeline.workspace import sha256

if TYPE_CHECKING:
    from pathlib import Path

FLAGS = ("--arch", "resnet_tiny", "--precision", "int8", "--engine", "onnxruntime")


def test_ten_kills_change_nothing(tmp_path: Path) -> None:
    started = time.monotonic()
    Cli(tmp_path / "calm-cache").report(*FLAGS, "-o", tmp_path / "calm")
    whole = time.monotonic() - started
    seed = random.SystemRandom().randrange(2**32)
    moments = random.Random(seed)
    disturbed = Cli(tmp_path / "cache")
    output = tmp_path / "disturbed"
    for _ in range(10):
        process = subprocess.Popen(
            disturbed.command(*FLAGS, "-o", output), env=disturbed.environment, stderr=subprocess.DEVNULL
        )
        time.sleep(moments.uniform(0, whole))
        process.kill()
        process.wait()
        for note in output.glob("[0-9]*.json"):  # whoever looks in between finds whole files only
            said = json.loads(note.read_text())
            assert said["sha256"] == sha256(output / said["file"]), f"seed {seed}"
    disturbed.report(*FLAGS, "-o", output)
    calm, again = (
        {path.name: sha256(path) for kind in ("*.onnx", "conformance/*") for path in place.glob(kind)}
        for place in (tmp_path / "calm", output)
    )
    assert again == calm, f"seed {seed}"
    assert len(calm) == 6 + 10
    assert {path.name for path in output.iterdir()} == {path.name for path in (tmp_path / "calm").iterdir()}
