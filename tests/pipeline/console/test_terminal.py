"""What a person sees: how much is said, in what colour, and how soon."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from conftest import ROOT

from pipeline.commands import COMMANDS
from pipeline.console import news, progress

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import Cli

# Where a terminal is asked for, there is one: rich's own name for it.
COLOURED = {"FORCE_COLOR": "1"}
GREEN = "\x1b[1;32m"


def test_how_much_is_said_is_the_users(cli: Cli, weights: Path, tmp_path: Path) -> None:
    flags = ("--arch", "resnext_tiny", "--weights", weights, "--engine", "onnxruntime", "-o", tmp_path / "out")
    silent = cli(*flags, "--quiet")
    assert (silent.returncode, silent.stderr) == (0, "")
    assert "verdict: PASS, in " in silent.stdout
    told = cli(*flags, "-v", "--seed", 1).stderr
    assert "01-freeze.safetensors: is there, of the same content and makers" in told
    assert "made again, since its" not in told
    (tmp_path / "out" / "03-simplify.json").unlink()
    told = cli(*flags, "--log-level", "debug").stderr
    assert "03-simplify.onnx: made, since no note tells of it" in told
    assert "no note" not in cli(*flags).stderr


def test_colours_are_for_terminals_and_for_who_wants_them(cli: Cli, weights: Path, tmp_path: Path) -> None:
    flags = ("--arch", "resnext_tiny", "--weights", weights, "--engine", "onnxruntime", "-o", tmp_path / "out")
    assert "\x1b" not in cli(*flags).stdout
    cli.environment |= COLOURED
    try:
        assert f"verdict: {GREEN}PASS" in cli(*flags).stdout
        cli.environment["NO_COLOR"] = "1"
        assert GREEN not in cli(*flags).stdout
    finally:
        for name in (*COLOURED, "NO_COLOR"):
            cli.environment.pop(name, None)


def test_a_log_gets_lines_in_place_of_bars(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "PAUSE", 0.0)
    with progress.bar("calibrating", 3) as advance:
        advance()
        advance()
    first, second = capsys.readouterr().err.splitlines()
    assert first.startswith("calibrating: 1 of 3")
    assert second.startswith("calibrating: 2 of 3, ")
    assert second.endswith(" s left")
    monkeypatch.setattr(news, "level", "error")
    with progress.bar("calibrating", 3) as advance:
        advance()
    assert not capsys.readouterr().err


@pytest.mark.parametrize("json", [[], ["--json"]])
def test_a_reader_who_leaves_changes_no_verdict(cli: Cli, built: Path, json: list[str]) -> None:
    line = [sys.executable, "-m", "pipeline", "check", built, "--max-drop", "1e-9", *json]
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        list(map(str, line)), env=cli.environment, stdout=writer, stderr=subprocess.PIPE, text=True, check=False
    )
    os.close(writer)
    assert (done.returncode, done.stderr) == (4, "")


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_help_imports_nothing_that_takes_long(command: str) -> None:
    heavy = {"torch", "onnx", "PIL", "rich", "numpy"}
    code = f"""
import sys
from pipeline.__main__ import main
try:
    main({[*command.split(), "--help"]!r})
finally:
    assert not {heavy!r} & sys.modules.keys(), {heavy!r} & sys.modules.keys()
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "usage:" in done.stdout
