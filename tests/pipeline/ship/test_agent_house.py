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
PORTABLE = ROOT / "exporters/portable"
SOURCES = sorted(AGENT.glob("*.py"))
SHARED = sorted(PORTABLE.glob("*.py"))
MAY = {"numpy", "tensorrt", "onnxruntime", "__future__"} | sys.stdlib_module_names


@pytest.mark.parametrize("path", [*SOURCES, *SHARED], ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_it_imports_itself_numpy_and_the_standard_library(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text(), feature_version=(3, 8))):
        if isinstance(node, ast.ImportFrom) and node.level == 0:
            names = [node.module or ""]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 1
            continue
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        for name in names:
            # What the agent shares with this machine; those files know nothing but each other.
            shared = path in SOURCES and (name == "exporters.portable" or name.startswith("exporters.portable."))
            assert shared or name.split(".")[0] in MAY, name


@pytest.mark.parametrize("folder", [AGENT, PORTABLE], ids=lambda folder: folder.name)
def test_python_3_8_has_all_that_it_uses(folder: Path) -> None:
    """By vermin, which knows the first Python of every function and syntax; annotations are never evaluated."""
    line = [
        sys.executable,
        "-c",
        "from vermin import main; main()",
        "--target=3.8-",
        "--violations",
        "--no-tips",
        folder,
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
            "exporters/__init__.py",
            *(f"exporters/portable/{path.name}" for path in SHARED),
        }
        # The very same files, not copies that could grow apart.
        for path in SHARED:
            assert archive.read(f"exporters/portable/{path.name}") == path.read_bytes()
    done = shipped.run("--help")
    assert done.returncode == 0
    for verb in ("preflight", "build", "verify", "activate", "rollback", "status", "bench", "gc", "update"):
        assert verb in done.stdout.split()
