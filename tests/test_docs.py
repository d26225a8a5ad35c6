"""Pages of the docs are made without a warning, their links lead somewhere, their commands and examples run."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from conftest import ROOT

from pipeline.__main__ import parser

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import Cli

PAGES = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
FENCED = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
COMMANDS = [
    (page.name, line)
    for page in PAGES
    for _, block in FENCED.findall(page.read_text())
    for line in block.replace("\\\n", " ").splitlines()
    if line.startswith("python -m pipeline ")
]


def test_the_pages_are_made_without_a_warning(tmp_path: Path) -> None:
    line = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "docs", tmp_path]
    done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "--calib-method" in (tmp_path / "command-line.html").read_text()
    assert "What was asked for cannot be done as asked" in (tmp_path / "python.html").read_text()


@pytest.mark.parametrize("page", [page for page in PAGES if page.parent == ROOT], ids=lambda page: page.name)
def test_links_of_the_repositorys_own_pages_lead_to_files(page: Path) -> None:
    for link in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text()):
        assert (ROOT / link).exists(), link


def test_the_places_that_contributing_names_are_there() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text()
    paths = re.findall(r"`((?:pipeline|exporters|calibration|tests|docs|findings)/[^`*\s]*|\.ci/\w+)`", text)
    assert len(paths) > 60
    assert [path for path in paths if not (ROOT / path).exists()] == []
    for names, path in re.findall(r"`([A-Z]{4,})`(?:,| or `[A-Z]+`,) `([\w/]+\.py)`", text):
        assert re.search(rf"^{names}\b", (ROOT / path).read_text(), re.MULTILINE), (names, path)


@pytest.mark.parametrize(("page", "line"), COMMANDS)
def test_commands_of_the_docs_have_flags_that_there_are(page: str, line: str) -> None:
    # What stands in brackets may be left out, and behind a gap it is said what the line does.
    line = re.sub(r"\[(.*?)\]", r"\1", re.split(r" {3,}", line.removeprefix("python -m pipeline "))[0])
    words = shlex.split(line.replace(" DIALECT", " flax").replace(" N", " 8"), comments=True)
    if "--config" in words:
        words += ["--arch", "of the file"]
    assert parser()[0].parse_args(words).command == words[0], page


def test_examples_in_python_run(cli: Cli, tmp_path: Path) -> None:
    # The examples of a page go on from each other, and their engine is the one that runs everywhere.
    code = "\n".join(text for kind, text in FENCED.findall((ROOT / "docs/python.md").read_text()) if kind == "python")
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=cli.environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("pass build/resnet_tiny-int8/07-engine.ort.onnx")
    assert "jetson-nano" in done.stdout
    assert (tmp_path / "folded.onnx").is_file()
