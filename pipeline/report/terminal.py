"""The report for a person at a terminal: news on the error stream, one table on standard output."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

from pipeline.errors import EXITS, Exit

if TYPE_CHECKING:
    from collections.abc import Mapping

COLUMNS = ("stage", "work", "SQNR dB", "step dB", "agree %", "top-1 %", "top-5 %", "drop", "verdict")


def say(text: str) -> None:
    """One line of news."""
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


def deliver(report: Mapping[str, Any], *, as_json: bool) -> Exit:
    """Print the report to standard output, for a machine or a person, and answer with its exit code."""
    if as_json:
        json.dump(report, sys.stdout, indent=1, allow_nan=False)
        sys.stdout.write("\n")
    else:
        show(report)
    return EXITS[report["verdict"]]


def show(report: Mapping[str, Any]) -> None:
    """The table, what was not proven, and the verdict."""
    import shutil

    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    # A pipe has no width; a log is read with long lines.
    width = None if Console().is_terminal else max(140, shutil.get_terminal_size().columns)
    console = Console(width=width, markup=False, emoji=False, highlight=False)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in COLUMNS:
        heading = f"drop, {100 * report['recipe']['confidence']:g} %" if column == "drop" else column
        table.add_column(heading, justify="right" if column[-1] in "Bp%" else "left", overflow="fold")
    for row in report["stages"]:
        table.add_row(*(Text(cell) for cell in _cells(row)))
    console.print(table)
    for sentence in report["not_proven"]:
        console.print(f"not proven: {sentence}")
    for row in report["stages"]:
        for reason in row["reasons"]:
            console.print(f"{row['name']}: {reason}")
    judged = any(row["name"].startswith("engine") and row["accuracy"] for row in report["stages"])
    verdict = report["verdict"].upper() + ("" if judged else ", no engine judged")
    console.print(f"verdict: {verdict}, in {report['recipe']['output']}/report.json")


def _cells(row: Mapping[str, Any]) -> list[str]:
    drift, step, accuracy = row["drift"], row["step"], row["accuracy"]
    made = "built, not run" if row["file"] else "not reached"
    verdict = made if row["verdict"] == "not_run" else row["verdict"]
    figures = ["–"] * 6
    if drift is not None and accuracy is not None:
        figures = [
            _decibels(drift["sqnr_db"]),
            _decibels(step["sqnr_db"]),
            f"{100 * drift['top1_agreement']:.2f}",
            f"{100 * accuracy['top1']:.2f}",
            f"{100 * accuracy['top5']:.2f}",
            f"< {100 * row['drop']['upper']:.2f}",
        ]
    return [(row["file"] or row["name"]).split(".")[0], row["work"] or "–", *figures, verdict]


def _decibels(value: float | None) -> str:
    return "same" if value is None else f"{value:.1f}"
