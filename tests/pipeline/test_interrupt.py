"""SIGTERM and SIGINT end a build cleanly, wherever they come."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest
from conftest import ROOT

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import Cli


def test_an_interrupt_ends_cleanly(cli: Cli, tmp_path: Path) -> None:
    flags = ("--arch", "resnet_tiny", "--epochs", 60, "-o", tmp_path)
    process = subprocess.Popen(cli.command(*flags), env=cli.environment, stderr=subprocess.PIPE, text=True)
    while not list(tmp_path.glob(".unfinished-*")):
        assert process.poll() is None
    time.sleep(1)
    process.terminate()
    _, stderr = process.communicate()
    assert process.returncode == 130
    assert stderr.splitlines()[-1].startswith("interrupted")
    assert not list(tmp_path.iterdir())


# Where the tests run in the background of a shell, SIGINT is ignored, and would be here as well.
INTERRUPTED_IN_EXEC = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
from pipeline.__main__ import main
from pipeline.commands import build
build.run = lambda _: exec("import os, signal; os.kill(os.getpid(), signal.SIG{name}); [None for _ in range(9**7)]")
sys.exit(main(["build", "--arch", "any"]))
"""


@pytest.mark.parametrize("name", ["TERM", "INT"])
def test_an_interrupt_in_generated_code_is_no_other(tmp_path: Path, name: str) -> None:
    (tmp_path / "interrupted.py").write_text(INTERRUPTED_IN_EXEC.replace("{name}", name))
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}:{ROOT}"}
    command = [sys.executable, "-m", "interrupted"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 130, done.stderr
    assert done.stderr.startswith("interrupted")
