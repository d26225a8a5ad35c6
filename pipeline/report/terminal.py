"""The report for a person at a terminal: news on the error stream, one table on standard output."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

from pipeline.console.tables import COLOURS, table, wide_console
from pipeline.errors import EXITS, Exit

if TYPE_CHECKING:
    from collections.abc import Mapping

COLUMNS = ("stage", "work", "SQNR dB", "step dB", "agree %", "top-1 %", "top-5 %", "drop", "verdict")


def deliver(report: Mapping[str, Any], where: str, *, as_json: bool) -> Exit:
    """Print the report to standard output, for a machine or a person, and answer with its exit code.

    ``where`` follows the verdict for a person: the file that holds it, or what came to it.
    """
    if as_json:
        # Made whole first: half a document is none.
        sys.stdout.write(json.dumps(report, indent=1, allow_nan=False) + "\n")
    else:
        show(report, where)
    return EXITS[report["verdict"]]


def show(report: Mapping[str, Any], where: str) -> None:
    """The table, what was not proven, and the verdict."""
    from rich.text import Text

    console = wide_console()
    heads = {"drop": f"drop, {100 * report['recipe']['confidence']:g} %"}
    columns = {heads.get(column, column): column[-1] in "Bp%" for column in COLUMNS}
    console.print(table(columns, map(_cells, report["stages"])))
    for title in ("proven", "proxy", "not_proven"):
        for sentence in report.get(title, ()):
            console.print(f"{title.replace('_', ' ')}: {sentence}")
    for row in report["stages"]:
        for reason in row["reasons"]:
            console.print(f"{row['name']}: {reason}")
    against = [each for each in report.get("findings", ()) if each["check"].startswith("baseline")]
    if passed := sum(each["verdict"] == "pass" for each in against):
        console.print(f"against the baseline: {passed} of {len(against)} checks pass")
    for each in against:
        if each["verdict"] != "pass":
            console.print(f"{each['stage']}: {each['check']}: {each['verdict']}: {each['message']}")
    if report.get("speed"):
        console.print(speed(report["speed"]))
    judged = any(row["name"].startswith("engine") and row["accuracy"] for row in report["stages"])
    verdict = report["verdict"].upper() + ("" if judged else ", no engine judged")
    colour = COLOURS[report["verdict"]]
    console.print("verdict:", Text(verdict + ",", colour), where)


def speed(found: Mapping[str, Any]) -> str:
    """The sentence for the time of an 8-bit engine next to its float neighbour."""
    bounds = f"{found['value']:.2f} ({found['lower']:.2f} … {found['upper']:.2f}) of the time of {found['next_to']}"
    faster = "slower: do not ship it for its speed" if found["lower"] > 1 else "faster"
    verdict = faster if found["lower"] > 1 or found["upper"] < 1 else "not told apart"
    return f"speed: {found['engine']} takes {bounds}, one image a run on this machine: {verdict}"


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
