"""Findings for GitHub Actions: annotations by workflow commands, and the summary of the step in Markdown."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.errors import BadRequest
from pipeline.finished.findings import failed
from pipeline.report import markdown, subsets

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pipeline.finished.check import Checked

# Findings that pass or were not run get no annotation.
LEVELS = {"fail": "error", "undecided": "warning"}
# Characters of a text in the summary: GitHub drops a summary above 1 MiB whole.
LONGEST = 300


def on() -> bool:
    """Whether this runs in a job of GitHub Actions."""
    return os.environ.get("GITHUB_ACTIONS") == "true"


def tell(checked: Checked) -> None:
    """Annotations on the error stream, where the runner reads them too, and the summary into GITHUB_STEP_SUMMARY."""
    for finding in failed(checked.findings):
        # The title is a property of the command: there a colon or a comma would end it.
        title = _escaped(f"{finding.rule} {finding.check}: {checked.name}, {finding.stage}", "%\r\n:,")
        message = _escaped(finding.told, "%\r\n")
        # What stands beside is told, and asks for nothing.
        level = "notice" if finding.beside else LEVELS[finding.verdict]
        sys.stderr.write(f"::{level} title={title}::{message}\n")

    summary = os.environ.get("GITHUB_STEP_SUMMARY")
    if not summary:
        return
    try:
        # Other commands of the same step may have written there before.
        with Path(summary).open("a", encoding="utf-8") as file:
            file.write(render(checked))
    except OSError as error:
        raise BadRequest(
            f"GITHUB_STEP_SUMMARY names {summary}, which cannot be written ({error.strerror}); "
            "give --no-github or mend the variable"
        ) from error


def render(checked: Checked) -> str:
    """The summary: what is no pass, a table of stages and checks, and the three lists of evidence."""
    return "\n".join(_lines(checked)) + "\n"


def _lines(checked: Checked) -> Iterator[str]:
    yield f"### edge-resnet: {_plain(checked.name)}: {checked.report['verdict'].upper()}\n"
    for finding in failed(checked.findings):
        subject = f"{finding.rule} `{finding.check}` of {_plain(finding.stage)}"
        yield f"- **{finding.verdict}** {subject}: {_plain(finding.told)}"
    families = {} if checked.shipped is None else checked.shipped.subsets
    for sentence in subsets.sentences(families):
        yield f"- {_plain(sentence)}"
    yield from _table_lines(checked)
    for title, sentences in checked.evidence.items():
        yield f"\n**{title}**\n"
        for sentence in sentences or ["nothing"]:
            yield f"- {_plain(sentence)}"


def _table_lines(checked: Checked) -> Iterator[str]:
    """One row a stage and one column a check, both in the order of the findings."""
    stages: list[str] = []
    checks: list[str] = []
    verdicts: dict[tuple[str, str], str] = {}
    for finding in checked.findings:
        if finding.stage not in stages:
            stages.append(finding.stage)
        if finding.check not in checks:
            checks.append(finding.check)
        verdicts[finding.stage, finding.check] = finding.verdict.replace("_", " ")

    yield f"\n| stage | {' | '.join(checks)} |\n|{' --- |' * (len(checks) + 1)}"
    for stage in stages:
        # Not every stage has every check: the cell stays empty.
        cells = [verdicts.get((stage, check), "") for check in checks]
        yield f"| {_plain(stage)} | {' | '.join(cells)} |"


def _escaped(text: str, special: str) -> str:
    """``text`` with each of the ``special`` characters as GitHub's runner reads it: a percent sign and its code."""
    return "".join(f"%{ord(character):02X}" if character in special else character for character in text)


def _plain(text: str) -> str:
    """Text without a meaning in Markdown or HTML, on one line."""
    line = " ".join(text.split())
    if len(line) > LONGEST:
        line = line[:LONGEST] + " …"
    return markdown.plain(line)
