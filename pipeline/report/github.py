"""Findings for GitHub Actions: annotations by workflow commands, and the summary of the step in Markdown."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.errors import BadRequest
from pipeline.finished.findings import failed

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pipeline.finished.check import Checked

LEVELS = {"fail": "error", "undecided": "warning"}
# GitHub drops a summary above 1 MiB whole.
LONGEST = 300


def on() -> bool:
    """Whether this runs in a job of GitHub Actions."""
    return os.environ.get("GITHUB_ACTIONS") == "true"


def tell(checked: Checked) -> None:
    """Annotations on the error stream, where the runner reads them too, and the summary into GITHUB_STEP_SUMMARY."""
    for each in failed(checked.findings):
        title = _escaped(f"{each.rule} {each.check}: {checked.name}, {each.stage}", ":,")
        sys.stderr.write(f"::{LEVELS[each.verdict]} title={title}::{_escaped(each.message)}\n")
    if summary := os.environ.get("GITHUB_STEP_SUMMARY"):
        try:
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
    for each in failed(checked.findings):
        yield f"- **{each.verdict}** {each.rule} `{each.check}` of {_plain(each.stage)}: {_plain(each.message)}"
    checks = list(dict.fromkeys(each.check for each in checked.findings))
    yield f"\n| stage | {' | '.join(checks)} |\n|{' --- |' * (len(checks) + 1)}"
    found = {(each.stage, each.check): each.verdict.replace("_", " ") for each in checked.findings}
    for stage in dict.fromkeys(each.stage for each in checked.findings):
        yield f"| {_plain(stage)} | {' | '.join(found.get((stage, check), '') for check in checks)} |"
    for title, sentences in checked.evidence.items():
        yield f"\n**{title}**\n"
        yield from (f"- {_plain(sentence)}" for sentence in sentences or ["nothing"])


def _escaped(text: str, also: str = "") -> str:
    return "".join(f"%{ord(each):02X}" if each in "%\r\n" + also else each for each in text)


def _plain(text: str) -> str:
    """Text without a meaning in Markdown or HTML, on one line."""
    short = " ".join(text.split())
    short = short if len(short) <= LONGEST else short[:LONGEST] + " …"
    return "".join(f"&#{ord(each)};" if each in "<>&|*_`[]\\" else each for each in short)
