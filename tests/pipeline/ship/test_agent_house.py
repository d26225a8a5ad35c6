"""The agent's own house: the oldest Python it meets, nothing but numpy and the standard library, alone."""

from __future__ import annotations

import ast
import subprocess
import sys
import zipfile
from typing import TYPE_CHECKING

import pytest
from shipping import ROOT, Shipped

if TYPE_CHECKING:
    from pathlib import Path

AGENT = ROOT / "pipeline/ship/agent"
SOURCES = sorted(AGENT.glob("*.py"))
MAY = {"numpy", "tensorrt", "onnxruntime", "__future__"}


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)
def test_it_imports_itself_numpy_and_the_standard_library(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text(), feature_version=(3, 8))):
        if isinstance(node, ast.ImportFrom) and node.level == 0:
            assert (node.module or "").split(".")[0] in MAY | sys.stdlib_module_names
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 1
        elif isinstance(node, ast.Import):
            assert all(name.name.split(".")[0] in MAY | sys.stdlib_module_names for name in node.names)


def test_python_3_8_has_all_that_it_uses() -> None:
    """By vermin, which knows the first Python of every function and syntax; annotations are never evaluated."""
    line = [
        sys.executable,
        "-c",
        "from vermin import main; main()",
        "--target=3.8-",
        "--violations",
        "--no-tips",
        AGENT,
    ]
    done = subprocess.run(list(map(str, line)), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert "Minimum required versions:" in done.stdout


def test_vermin_would_tell(tmp_path: Path) -> None:
    (tmp_path / "new.py").write_text("import tomllib\n'a'.removeprefix('b')\n")
    line = [sys.executable, "-c", "from vermin import main; main()", "--target=3.8-", "--violations", str(tmp_path)]
    assert subprocess.run(line, capture_output=True, text=True, check=False).returncode != 0


def test_it_is_one_file_that_holds_nothing_else(shipped: Shipped) -> None:
    with zipfile.ZipFile(shipped.agent) as archive:
        assert set(archive.namelist()) == {
            "__main__.py",
            "edge_agent/trusted.json",
            *(f"edge_agent/{path.name}" for path in SOURCES),
        }
    done = shipped.run("--help")
    assert done.returncode == 0
    for verb in ("preflight", "build", "verify", "activate", "rollback", "status", "bench", "gc", "update"):
        assert verb in done.stdout.split()
