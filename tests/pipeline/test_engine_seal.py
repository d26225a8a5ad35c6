"""An engine is opened only where this user built it, for the GPU and TensorRT that are here."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
from conftest import ROOT

from exporters.engines import tensorrt
from exporters.portable import cuda
from pipeline import engine_seal
from pipeline.errors import BadRequest
from pipeline.parity import answers

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

HERE = {"GPU": "NVIDIA Test", "TensorRT": "10.16.1"}


@pytest.fixture
def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An engine that this user built here; its key is in a folder of the test's own."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    path = tmp_path / "07-engine.engine"
    path.write_bytes(b"plan")
    noted(path, engine_seal.seal(path, HERE))
    return path


def noted(path: Path, held: Any) -> None:
    path.with_name("07-engine.json").write_text(json.dumps({"details": {"seal": held}}))


def key(tmp_path: Path) -> Path:
    return tmp_path / "data" / "edge-resnet" / "engine.key"


def test_what_this_user_built_is_opened_and_the_key_is_theirs_alone(engine: Path, tmp_path: Path) -> None:
    engine_seal.refuse(engine, HERE)
    assert key(tmp_path).stat().st_mode & 0o777 == 0o600
    assert [path.name for path in key(tmp_path).parent.iterdir()] == ["engine.key"]


def other_engine(path: Path) -> None:
    path.write_bytes(b"PLAN")


def other_key(path: Path) -> None:
    key(path.parent).write_bytes(bytes(32))


def no_note(path: Path) -> None:
    path.with_name("07-engine.json").unlink()


def no_seal(path: Path) -> None:
    noted(path, None)


def own_hash(path: Path) -> None:
    """What anyone can do who can write there: another engine, and a note that says so."""
    path.write_bytes(b"PLAN")
    noted(path, {**HERE, "hmac": "0" * 64})


def open_key(path: Path) -> None:
    key(path.parent).chmod(0o644)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (other_engine, "it is not what this user built, or its note was changed; delete it and build again"),
        (other_key, "it is not what this user built"),
        (own_hash, "it is not what this user built"),
        (no_note, "nothing proves who built it, and to open an engine is to run it"),
        (no_seal, "nothing proves who built it"),
        (open_key, "is not a key that only you can read: delete it"),
    ],
)
def test_anything_else_is_never_opened(
    engine: Path, monkeypatch: pytest.MonkeyPatch, change: Callable[[Path], None], sentence: str
) -> None:
    opened: list[Path] = []
    monkeypatch.setattr(tensorrt.BACKEND, "made_for", lambda: HERE)
    monkeypatch.setattr(tensorrt, "load", opened.append)
    assert answers.of_file(engine).provider == "TensorRT"
    change(engine)
    with pytest.raises(BadRequest, match=sentence):
        answers.of_file(engine)
    assert opened == [engine]


def test_an_engine_of_another_gpu_says_what_it_was_built_for(engine: Path) -> None:
    there = {"GPU": "Orin", "TensorRT": "10.3.0"}
    sentence = "built for GPU NVIDIA Test, TensorRT 10.16.1, here: GPU Orin, TensorRT 10.3.0; rebuild it here with"
    with pytest.raises(BadRequest, match=sentence):
        engine_seal.refuse(engine, there)


def test_what_an_engine_was_built_for_is_the_gpu_and_the_version(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda, "name", lambda: "Orin")
    monkeypatch.setattr("importlib.metadata.version", {"tensorrt": "10.3.0"}.__getitem__)
    assert tensorrt.BACKEND.made_for() == {"GPU": "Orin", "TensorRT": "10.3.0"}


def test_builds_that_start_together_share_one_key(tmp_path: Path) -> None:
    code = "from pipeline import engine_seal; print(engine_seal.owner())"
    environment = {"XDG_DATA_HOME": str(tmp_path), "PYTHONPATH": str(ROOT)}
    line = [sys.executable, "-c", code]
    running = [subprocess.Popen(line, env=environment, stdout=subprocess.PIPE, text=True) for _ in range(6)]
    (owner,) = {process.communicate()[0] for process in running}
    assert re.fullmatch(r"[0-9a-f]{16}\n", owner)


def test_a_key_that_cannot_be_kept_is_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "file"))
    with pytest.raises(BadRequest, match=r"cannot be kept in .*point XDG_DATA_HOME elsewhere"):
        engine_seal.owner()
