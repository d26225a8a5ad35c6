"""The list of backends: each is what its row says, and a file is opened by one of them at most."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from conftest import ROOT

from exporters import engines
from pipeline.errors import EXTRAS

ALL = (*engines.BACKENDS, *engines.RECIPES)


def test_every_extra_that_is_named_can_be_installed() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    sources = [path.read_text() for path in (ROOT / "exporters").rglob("*.py")]
    asked_for = {extra for source in sources for extra in re.findall(r"\(extra: (\w+)\)", source)}
    assert asked_for >= {"cpu", "gpu", "rtx"}
    assert asked_for | set(EXTRAS.values()) <= set(extras)


@pytest.mark.parametrize("name", ALL)
def test_a_backend_has_its_line_in_the_docs(name: str) -> None:
    assert name in (ROOT / "docs" / "engines.md").read_text()


@pytest.mark.parametrize("name", ALL)
def test_a_backend_is_found_by_its_name(name: str) -> None:
    assert engines.named(name).name == name


def test_the_suffix_tells_which_backend_runs_a_file() -> None:
    suffixes = [engines.named(name).suffix for name in ALL if engines.named(name).runs_here]
    for suffix in suffixes:
        assert [other for other in suffixes if f"x{suffix}".endswith(other)] == [suffix]


@pytest.mark.parametrize("name", [name for name in ALL if not engines.named(name).runs_here])
def test_what_does_not_run_here_says_why(name: str) -> None:
    backend = engines.named(name)
    with pytest.raises(ValueError, match=rf"x\{backend.suffix}: "):
        backend.load(Path(f"x{backend.suffix}"))


def test_a_recipe_is_no_engine_to_describe() -> None:
    with pytest.raises(ValueError, match=r"x\.sh: it is the recipe of an engine, which its device alone can describe"):
        engines.named("device").describe(Path("x.sh"), {})


def test_only_what_runs_code_when_it_is_opened_is_made_for_something(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.metadata.version", {"tensorrt": "10.3.0"}.__getitem__)
    assert [name for name in ALL if engines.named(name).made_for() is not None] == ["tensorrt"]
