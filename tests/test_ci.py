"""The GitHub action, the GitLab job and the pytest plugin, installed as a user installs them and run step by step."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

import pytest
import safetensors.numpy
import yaml
from conftest import ROOT
from junitparser import Failure, JUnitXml

SCRIPTS = Path(sysconfig.get_path("scripts"))
SHIPPED = ("pipeline", "exporters", "calibration", "pyproject.toml", "README.md", "LICENSE", "action.yml")
ACTION: dict[str, Any] = yaml.safe_load((ROOT / "action.yml").read_text())
GITLAB: dict[str, Any] = yaml.safe_load((ROOT / "ci" / "gitlab.yml").read_text())
PAGE = (ROOT / "docs" / "ci.md").read_text()
WORKFLOW, JOB, TEST = (
    next(block for block in re.findall(r"```\w+\n(.*?)```", PAGE, re.DOTALL) if first in block)
    for first in ("runs-on:", "include:", "def test_")
)


def shell(script: str, folder: Path, variables: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """As GitHub's runner calls bash; GitLab's is as strict."""
    command = ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", script]
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("GITHUB_", "PYTHON"))}
    # What the steps install is found first, and nothing comes from a network.
    own = {"PATH": f"{folder / 'site' / 'bin'}:{Path(sys.executable).parent}:{os.environ['PATH']}"}
    own |= {"PYTHONPATH": str(folder / "site"), "PIP_TARGET": str(folder / "site"), "PIP_NO_DEPS": "1"}
    own |= {"PIP_NO_INDEX": "1", "PIP_NO_BUILD_ISOLATION": "0"}
    return subprocess.run(
        command, cwd=folder, env={**environment, **own, **variables}, capture_output=True, text=True, check=False
    )


def step(number: int, folder: Path, **inputs: str) -> subprocess.CompletedProcess[str]:
    """A step of the action with its ``env`` as GitHub fills it in."""
    asked = ACTION["runs"]["steps"][number]
    given = {name: str(each.get("default", "")) for name, each in ACTION["inputs"].items()} | inputs
    filled = {key: re.sub(r"\$\{\{ inputs\.([\w-]+) \}\}", lambda m: given[m[1]], v) for key, v in asked["env"].items()}
    assert "${{" not in asked["run"] + "".join(filled.values())
    github = {"GITHUB_ACTIONS": "true", "GITHUB_ACTION_PATH": str(folder / "action")}
    github |= {"GITHUB_OUTPUT": str(folder / "output"), "GITHUB_STEP_SUMMARY": str(folder / "summary.md")}
    return shell(asked["run"], folder, github | filled)


@pytest.fixture(scope="session")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the action checked out and its first step done, and nothing else of this project."""
    folder = tmp_path_factory.mktemp("workplace")
    for name in SHIPPED:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        (folder / "action").mkdir(exist_ok=True)
        copy(ROOT / name, folder / "action" / name)
    done = step(0, folder)
    assert done.returncode == 0, done.stderr
    assert (folder / "site" / "bin" / "edge-resnet").is_file()
    return folder


def clear(workplace: Path) -> None:
    for name in ("output", "summary.md", "edge-resnet.xml", "edge-resnet.sarif"):
        (workplace / name).unlink(missing_ok=True)


def failures(path: Path) -> list[str]:
    (suite,) = JUnitXml.fromfile(str(path))
    return [f"{case.classname} {case.name}" for case in suite if any(isinstance(each, Failure) for each in case.result)]


def test_the_action_fails_where_the_build_got_worse_and_keeps_every_file(
    workplace: Path, built: Path, worse: Path
) -> None:
    clear(workplace)
    done = step(1, workplace, build=str(worse), baseline=str(built), **{"max-drift": "1"})
    assert done.returncode == 1, done.stderr
    assert "::error title=B003 baseline-drift" in done.stderr
    assert (workplace / "output").read_text() == "exit-code=1\n"
    assert "B003" in (workplace / "summary.md").read_text()
    assert failures(workplace / "edge-resnet.xml") == ["int8.int8 baseline-drift"]
    assert "B003" in (workplace / "edge-resnet.sarif").read_text()


def test_every_input_of_the_action_arrives(workplace: Path, built: Path, worse: Path) -> None:
    clear(workplace)
    allowed = {"max-drop": "0.02", "max-drift": "9", "max-growth": "0", "junit": "a b.xml", "rerun": "true"}
    done = step(1, workplace, build=str(worse), baseline=str(built), **allowed)
    assert done.returncode == 0, done.stderr + done.stdout
    assert "No file ran in this check" not in done.stdout
    assert failures(workplace / "a b.xml") == []
    assert (workplace / "output").read_text() == "exit-code=0\n"
    refused = step(1, workplace, build=str(worse), **{"max-slowdown": "1"})
    assert refused.returncode == 2
    assert "--max-slowdown 1 goes with --baseline" in refused.stderr
    hostile = step(1, workplace, build="$(touch pwned); --json", baseline="`touch pwned`")
    assert hostile.returncode == 2
    assert not (workplace / "pwned").exists()


def gitlab(workplace: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    job = GITLAB[".edge-resnet-check"]
    return shell("\n".join(job["script"]), workplace, {**job["variables"], **variables})


def test_the_gitlab_job_installs_checks_and_fails(workplace: Path, built: Path, worse: Path) -> None:
    job = GITLAB[".edge-resnet-check"]
    clear(workplace)
    installed = shell("\n".join(job["before_script"]), workplace, {"EDGE_RESNET": "./action[cpu]"})
    assert installed.returncode == 0, installed.stderr
    asked = {"EDGE_RESNET_BASELINE": str(built), "EDGE_RESNET_FLAGS": "--max-drift 1"}
    done = gitlab(workplace, EDGE_RESNET_BUILD=str(worse), **asked)
    assert done.returncode == 1, done.stderr
    assert failures(workplace / job["artifacts"]["reports"]["junit"]) == ["int8.int8 baseline-drift"]
    clear(workplace)
    assert gitlab(workplace, EDGE_RESNET_BUILD=str(built), EDGE_RESNET_FLAGS="--max-drop 0.02").returncode == 0
    assert all((workplace / name).is_file() for name in job["artifacts"]["paths"])


@pytest.mark.parametrize(("schema", "file"), [("github-actions", "action.yml"), ("gitlab-ci", "ci/gitlab.yml")])
def test_both_files_are_valid_by_the_schema_of_their_makers(schema: str, file: str) -> None:
    command = [SCRIPTS / "check-jsonschema", "--builtin-schema", f"vendor.{schema}", ROOT / file]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_the_example_of_a_gitlab_job_is_valid_and_its_variables_are_those_of_the_template(tmp_path: Path) -> None:
    path = tmp_path / ".gitlab-ci.yml"
    path.write_text(JOB)
    command = [SCRIPTS / "check-jsonschema", "--builtin-schema", "vendor.gitlab-ci", path]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    parity = yaml.safe_load(JOB)["parity"]
    assert parity["extends"] in GITLAB
    assert parity["variables"].keys() <= GITLAB[parity["extends"]]["variables"].keys()


@pytest.mark.parametrize(("old", "new", "code"), [("", "", 0), ("max-drift:", "max-drif:", 1)])
def test_actionlint_takes_the_example_and_knows_every_input(tmp_path: Path, old: str, new: str, code: int) -> None:
    folder = tmp_path / ".github" / "workflows"
    folder.mkdir(parents=True)
    (tmp_path / "edge-resnet").mkdir()
    shutil.copy(ROOT / "action.yml", tmp_path / "edge-resnet")
    (folder / "parity.yml").write_text(WORKFLOW.replace("your-org/edge-resnet@v1", "./edge-resnet").replace(old, new))
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    command = [SCRIPTS / "actionlint", "-oneline", "-pyflakes=", "-shellcheck="]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stdout
    assert (code == 0) == (done.stdout == "")


def pytest_in(folder: Path, workplace: Path, *flags: object) -> subprocess.CompletedProcess[str]:
    command = " ".join(
        ["cd", str(folder), ";", sys.executable, "-m", "pytest", "-p no:cacheprovider", *map(str, flags)]
    )
    return shell(command, workplace, {})


def test_three_lines_of_pytest_judge_an_engine(workplace: Path, built: Path, worse: Path, tmp_path: Path) -> None:
    (tmp_path / "test_parity.py").write_text(
        TEST + "\n\ndef test_it_is_judged_anew(build):\n    assert not build.passed\n"
    )
    against = ("--pipeline-baseline", built, "--pipeline-max-drift", 1)
    done = pytest_in(tmp_path, workplace, "--pipeline-build", worse, *against, "-rA")
    assert done.returncode == 1, done.stdout + done.stderr
    assert "PASSED test_parity.py::test_the_engine_answers_as_pytorch_does" in done.stdout
    assert "PASSED test_parity.py::test_it_is_judged_anew" in done.stdout
    assert len(re.findall("^FAILED", done.stdout, re.MULTILINE)) == 1
    assert "B003 fail: SQNR fell, in the median over the images, by" in done.stdout
    assert "Traceback" not in done.stdout


def test_undecided_fails_and_checks_can_be_chosen(workplace: Path, built: Path, tmp_path: Path) -> None:
    done = pytest_in(tmp_path, workplace, "--pipeline-build", built, "-k", "'int8 and accuracy'")
    assert done.returncode == 0, done.stdout
    assert "1 passed" in done.stdout


def test_fixtures_hand_out_what_was_judged_and_nothing_else(workplace: Path, built: Path, tmp_path: Path) -> None:
    (tmp_path / "test_a.py").write_text(
        "def test_engine(engine):\n    pass\n\n\ndef test_logits(reference_logits):\n    pass\n"
    )
    shutil.copytree(built, tmp_path / "copy")
    with (tmp_path / "copy" / "06-engine.ort.onnx").open("ab") as file:
        file.write(b" ")
    kept = safetensors.numpy.load_file(built / "answers.safetensors")
    safetensors.numpy.save_file({**kept, "reference": -kept["reference"]}, tmp_path / "copy" / "answers.safetensors")
    done = pytest_in(tmp_path, workplace, "--pipeline-build", tmp_path / "copy", "-k", "'test_engine or test_logits'")
    assert "06-engine.ort.onnx was changed after the build wrote it" in done.stdout
    assert "answers.safetensors is not what this build wrote" in done.stdout
    margin = ("--pipeline-build", built, "--pipeline-max-drift", 1)
    assert "--max-drift 1 goes with --baseline" in pytest_in(tmp_path, workplace, *margin).stderr


def test_the_plugin_costs_nothing_until_it_is_asked(workplace: Path, tmp_path: Path) -> None:
    (tmp_path / "test_cost.py").write_text(
        "import sys\n\ndef test_cost():\n    assert 'pipeline.pytest_plugin' in sys.modules\n"
        "    assert not {'numpy', 'onnx', 'torch', 'pipeline.gate'} & set(sys.modules)\n"
    )
    done = pytest_in(tmp_path, workplace)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["--pipeline-build", "nothing"], "nothing holds no report.json of schema 1"),
        (["--pipeline-baseline", "nothing"], "--pipeline-baseline and --pipeline-max-drift go with --pipeline-build"),
        (["--pipeline-max-drift", "1"], "--pipeline-max-drift go with --pipeline-build"),
        ([], "this test wants a build: give --pipeline-build DIR"),
    ],
)
def test_what_the_plugin_cannot_do_is_a_sentence(
    workplace: Path, tmp_path: Path, flags: list[str], sentence: str
) -> None:
    (tmp_path / "test_a.py").write_text(TEST)
    done = pytest_in(tmp_path, workplace, *flags)
    assert done.returncode in {1, 4}
    assert sentence in done.stdout + done.stderr
