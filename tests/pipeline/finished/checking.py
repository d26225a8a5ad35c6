"""The command `check`, and the formats that it writes as their readers read them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
from conftest import ROOT
from junitparser import JUnitXml

from pipeline.__main__ import parser
from pipeline.errors import BadRequest

if TYPE_CHECKING:
    from pathlib import Path


# As published by the OASIS committee; from the npm package @microsoft/jest-sarif 1.0.0-beta.0 (MIT).
SCHEMA = ROOT / "tests" / "data" / "sarif-2.1.0-rtm.5.json"


def check(*arguments: object, **variables: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pipeline", "check", *map(str, arguments)]
    environment = {key: value for key, value in os.environ.items() if not key.startswith("GITHUB_")}
    return subprocess.run(
        command, cwd=ROOT, env={**environment, **variables}, capture_output=True, text=True, check=False
    )


def refused(*arguments: object) -> str:
    """The sentence of a check that is refused."""
    asked = parser()[0].parse_args(["check", *map(str, arguments)])
    with pytest.raises(BadRequest) as raised:
        asked.run(asked)
    return str(raised.value)


def cases(path: Path, kind: type) -> dict[str, str]:
    """Stage and check of every test case with such a result, and its message, as junitparser reads the file."""
    (suite,) = JUnitXml.fromfile(str(path))
    found = {}
    for case in suite:
        stage = str(case.classname).rpartition(".")[2]
        found.update({f"{stage} {case.name}": str(each.message) for each in case.result if isinstance(each, kind)})
    return found


def alone(directory: Path, tmp_path: Path, **keys: Any) -> Path:
    """The report of a build without its answers, with some keys replaced."""
    path = tmp_path / "alone" / "report.json"
    path.parent.mkdir()
    path.write_text(json.dumps({**json.loads((directory / "report.json").read_text()), **keys}))
    return path
