"""Every flag in a TOML file, in a shell's completion, and in Python: the same names and the same checks."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import zipfile
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import jsonschema
import numpy as np
import pytest
from conftest import ROOT

from pipeline import Recipe, Result, build, config
from pipeline.__main__ import parser
from pipeline.errors import BadRequest
from pipeline.provenance import PACKAGES
from pipeline.recipe import from_arguments

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import Cli

FILE = """
arch = "resnext_tiny"
precision = "int8"
max-drop = 0.02
rtx_sm = ["86", "89"]
workspace = "1G"
dla-core = 0
no-gpu-fallback = false
dry-run = true
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "pipeline.toml"
    path.write_text(FILE)
    return path


def test_flags_of_a_file_are_read_like_flags_and_the_command_line_overrides_them(file: Path) -> None:
    command = parser()[1]["build"]
    argv = ["--config", str(file), "--max-drop", "0.03"]
    arguments = command.parse_args(config.expanded(command, argv))
    assert (arguments.arch, arguments.precision, arguments.max_drop) == ("resnext_tiny", "int8", 0.03)
    assert (arguments.rtx_sm, arguments.workspace, arguments.dla_core) == (["86", "89"], 2**30, 0)
    assert (arguments.no_gpu_fallback, arguments.dry_run) == (False, True)


def test_a_mean_may_be_a_fraction_and_a_deviation_above_one(tmp_path: Path) -> None:
    path = tmp_path / "a.toml"
    path.write_text('arch = "resnet18"\nmean = [0, "117/255", 0.5]\nstd = ["256/255"]\n')
    command = parser()[1]["build"]
    arguments = command.parse_args(config.expanded(command, ["--config", str(path)]))
    recipe = from_arguments(arguments)
    assert (recipe.mean, recipe.std) == ([0.0, 117 / 255, 0.5], [256 / 255])
    assert command.parse_args(["--arch", "resnet18", "--std", "1/255"]).std == [1 / 255]

    config.save(tmp_path / "b.toml", asdict(recipe))
    again = command.parse_args(config.expanded(command, ["--config", str(tmp_path / "b.toml")]))
    assert from_arguments(again) == recipe
    items = config.schema(command)["properties"]["mean"]["items"]
    assert items == {"type": ["number", "string"]}


@pytest.mark.parametrize("given", [0.5, [0.5], (0.5,), np.float32(0.5), [np.float32(0.5)]])
def test_python_may_give_one_number_or_some(given: Any) -> None:
    recipe = Recipe(arch="resnet18", mean=given, std=given)
    assert (recipe.mean, recipe.std) == ([0.5], [0.5])
    assert json.dumps(recipe.mean) == "[0.5]"


@pytest.mark.parametrize("given", ["0.5", ["1/255"], {"red": 0.5}, [None]])
def test_what_is_no_number_is_refused_in_python_too(given: Any) -> None:
    with pytest.raises(BadRequest, match="--mean takes one number or a list of them"):
        Recipe(arch="resnet18", mean=given)


def test_a_pyproject_has_a_table_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "pyproject.toml"
    path.write_text('[project]\nname = "x"\n[tool.pipeline]\narch = "resnet18"\n')
    assert config.expanded(parser()[1]["build"], ["--config", str(path)])[:2] == ["--arch", "resnet18"]
    for content in ('[project]\nname = "x"\n', "tool = 1\n"):
        path.write_text(content)
        with pytest.raises(BadRequest, match=r"has no table \[tool.pipeline\]"):
            config.expanded(parser()[1]["build"], ["--config", str(path)])


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("max_dropp = 1", "there is no max_dropp; did you mean max-drop?"),
        ('precision = "int4"', "precision = 'int4': take one of fp32, fp16, int8"),
        ('max-drop = "much"', "max-drop = 'much': could not convert string to float"),
        ("calib-samples = 0", "calib-samples = '0': 0 is no whole number from 1"),
        ("max-batch = 4", r"max-batch takes a list, as in \[1, 2\], not 4"),
        ("seed = [1]", r"seed takes one value, not \[1\]"),
        ("seed = true", "seed takes one value, not True"),
        ('no-gpu-fallback = "yes"', "no-gpu-fallback is true or false, not 'yes'"),
        ('mean = ["1/0"]', "mean = '1/0': 1/0 is no number; give one as in 0.485 or 123/255"),
        ('std = ["a/255"]', "std = 'a/255': a/255 is no number"),
        ('config = "a.toml"', "there is no config"),
        ("a = ", "cannot be read as TOML"),
        (
            'rtx-sm = ["86", "--trust=a:b"]',
            "rtx-sm = '--trust=a:b': a value that starts with - would be read as a flag",
        ),
        ('arch = "-x"', "arch = '-x': a value that starts with -"),
    ],
)
def test_what_is_wrong_in_a_file_is_named_with_the_file(tmp_path: Path, text: str, sentence: str) -> None:
    path = tmp_path / "a.toml"
    path.write_text(text)
    with pytest.raises(BadRequest, match=sentence) as raised:
        config.expanded(parser()[1]["build"], ["--config", str(path)])
    assert str(path) in str(raised.value)


def test_what_was_asked_for_is_saved_and_asks_for_the_same(cli: Cli, tmp_path: Path, weights: Path) -> None:
    saved, flags = tmp_path / "a.toml", ("--arch", "resnext_tiny", "--weights", weights, "--max-batch", 1, 4)
    first = cli(*flags, "--save-config", saved, "--dry-run")
    assert first.returncode == 0, first.stderr
    again = cli("--config", saved, "--dry-run")
    assert again.stdout == first.stdout
    assert "max-batch" in saved.read_text()
    assert "seed = 0" in saved.read_text()
    assert "name a file in a folder" in cli(*flags, "--save-config", tmp_path / "no" / "a.toml", "--dry-run").stderr
    assert "cannot be read as TOML" in cli("--config", tmp_path / "none.toml", "--dry-run").stderr


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of a copy of this project, as it was checked out."""
    folder = tmp_path_factory.mktemp("wheel")
    for package in PACKAGES:
        shutil.copytree(ROOT / package, folder / package, ignore=shutil.ignore_patterns("recipe.schema.json"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder)
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-index", "--no-build-isolation", "--wheel-dir"]
    done = subprocess.run([*command, folder, folder], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return next(folder.glob("*.whl"))


def test_a_wheel_has_the_schema_of_the_command_line_for_editors(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as file:
        shipped = json.loads(file.read("pipeline/recipe.schema.json"))
    assert shipped == json.loads(json.dumps(config.schema(parser()[1]["build"])))
    jsonschema.Draft202012Validator.check_schema(shipped)
    validator = jsonschema.Draft202012Validator(shipped)
    assert validator.is_valid({"arch": "resnext_tiny", "max-drop": 0.02, "rtx-sm": ["86", "89"], "workspace": "1G"})
    for wrong in ({"max-dropp": 1}, {"precision": "int4"}, {"max-batch": 4}, {"max-drop": "much"}, {"config": "a"}):
        assert not validator.is_valid(wrong), wrong
    assert shipped["properties"]["rtx-sm"]["items"] == {"type": "string"}
    assert shipped["properties"]["workspace"]["type"] == ["integer", "string"]
    assert shipped["properties"]["no-gpu-fallback"]["type"] == "boolean"


@pytest.mark.parametrize("shell", ["bash", "zsh", "tcsh"])
def test_shells_complete_the_flags(shell: str) -> None:
    line = [sys.executable, "-m", "pipeline", "completion", shell]
    script = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert ("--max-drop" if shell != "tcsh" else "bench") in script  # it knows commands only
    if shell == "bash":
        asked = ["bash", "-c", f"{script}\ncomplete -p edge-resnet"]
        done = subprocess.run(asked, capture_output=True, text=True, check=False)
        assert "edge-resnet" in done.stdout, done.stderr


def test_a_build_from_python_answers_like_the_command(weights: Path, tmp_path: Path) -> None:
    result = build(Recipe(arch="resnext_tiny", weights=weights, engine="onnxruntime", output=tmp_path / "out"))
    assert isinstance(result, Result)
    assert (result.passed, result.output) == (True, tmp_path / "out")
    assert result.engine is not None
    assert result.engine.is_file()
    assert result.stage("simplify")["verdict"] == "pass"
    with pytest.raises(BadRequest, match="no such architecture"):
        build(Recipe(arch="resnet"))
    with pytest.raises(KeyError):
        result.stage("nothing")
