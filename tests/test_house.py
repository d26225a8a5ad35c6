"""The house itself: who may import whom, what a bare machine can import, which flags there are."""

from __future__ import annotations

import argparse
import ast
import importlib
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from conftest import HEAVY, ROOT

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import Golden

PACKAGES = ("pipeline", "exporters", "calibration")
MAY_IMPORT = {
    "pipeline": {"pipeline", "exporters", "calibration"},
    "exporters": {"exporters"},
    "calibration": {"calibration", "exporters"},
}
SOURCES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
# Defines torch modules, so it is torch; everything else imports on a machine that has only numpy, onnx and Pillow.
NEEDS_TORCH = {"pipeline.models.resnet", "pipeline.models.same_padding"}
# Of the building of the package itself.
NEEDS_SETUPTOOLS = {"pipeline.packaging"}


def module(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


@pytest.mark.parametrize("path", SOURCES, ids=module)
def test_imports_point_one_way(path: Path) -> None:
    own = path.relative_to(ROOT).parts[0]
    for node in ast.walk(ast.parse(path.read_text())):
        names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        for name in names:
            top = name.split(".")[0]
            assert top not in PACKAGES or top in MAY_IMPORT[own], f"{module(path)} imports {name}"


def test_every_module_imports_on_a_bare_machine() -> None:
    left_out = NEEDS_TORCH | NEEDS_SETUPTOOLS
    modules = [module(path) for path in SOURCES if module(path) not in left_out and path.name != "__main__.py"]
    code = f"""
import importlib, sys
for name in {HEAVY!r}:
    sys.modules[name] = None
for name in {modules!r}:
    importlib.import_module(name)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_list_of_flags(golden: Golden) -> None:
    build = argparse.ArgumentParser(add_help=False)
    importlib.import_module("pipeline.commands.build").add_flags(build)
    flags = sorted(option for action in build._actions for option in action.option_strings)
    golden("flags", flags)


@pytest.mark.parametrize("path", SOURCES, ids=module)
def test_no_room_is_a_drawer_for_odds_and_ends(path: Path) -> None:
    assert not {"utils", "helpers", "common", "base", "manager"} & set(path.relative_to(ROOT).with_suffix("").parts)
