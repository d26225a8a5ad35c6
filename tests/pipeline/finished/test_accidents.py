"""Every accident that may happen to the directory of a build is named by check; what happens to honest ones is not."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from accidents import ACCIDENTS, ALSO_RUN_AGAIN, Accident, reseal

from pipeline.finished import check

if TYPE_CHECKING:
    from pathlib import Path

    from pipeline.finished.check import Checked


def named(checked: Checked, accident: Accident) -> bool:
    """Whether the finding is there, and the reasons of a stage tell it too."""
    reasons = [reason for stage in checked.report["stages"] for reason in stage["reasons"]]
    found = [
        finding.message
        for finding in checked.findings
        if (finding.stage, finding.rule, finding.verdict) == (accident.stage, accident.rule, "fail")
    ]
    return any(accident.words in message for message in found) and any(accident.words in reason for reason in reasons)


def happened(accident: Accident, directory: Path, other: Path) -> Path:
    accident.happens(directory, other)
    if accident.sealed:
        reseal(directory)
    return directory


@pytest.mark.parametrize("accident", ACCIDENTS.values(), ids=ACCIDENTS)
def test_an_accident_is_named(copy: Path, worse: Path, accident: Accident) -> None:
    checked = check.check(happened(accident, copy, worse))
    assert checked.report["verdict"] == "fail"
    assert named(checked, accident), [finding for finding in checked.findings if finding.verdict == "fail"]


@pytest.mark.parametrize("accident", ALSO_RUN_AGAIN.values(), ids=ALSO_RUN_AGAIN)
def test_an_accident_is_named_where_every_file_runs_again(copy: Path, worse: Path, accident: Accident) -> None:
    checked = check.check(happened(accident, copy, worse), rerun=True)
    assert checked.report["verdict"] == "fail"
    assert named(checked, accident), [finding for finding in checked.findings if finding.verdict == "fail"]
