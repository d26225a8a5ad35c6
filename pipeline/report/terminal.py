"""The report for a person at a terminal: news on the error stream, one table on standard output."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.console.tables import COLOURS, table, wide_console
from pipeline.errors import EXITS, Exit
from pipeline.report import hidden, subsets
from pipeline.stage import Drift

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from rich.table import Table

    from pipeline.finished.finished_build import FinishedBuild

# The headings of the table, and whether a column holds numbers, which go to the right.
COLUMNS = {
    "stage": False,
    "work": False,
    "SQNR dB": True,
    "step dB": True,
    "agree %": True,
    "top-1 %": True,
    "top-5 %": True,
    "drop, {confidence:g} %": True,
    "verdict": False,
}
# Of a build of version 0.1.
NO_CLASSES = "worst class: not in this report, which an earlier version wrote; check judges it"
# What stands in the table where a stage was not judged.
NO_FIGURES = ["–"] * 6


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
    """The table, what it does not show, what was not proven, and the verdict."""
    from rich.text import Text

    from pipeline.finished.finished_build import FinishedBuild

    build = FinishedBuild.of(Path(report["recipe"]["output"]), dict(report))
    console = wide_console()
    console.print(_stage_table(report))
    for sentence in _sentences(build):
        console.print(printable(sentence))
    if report.get("speed"):
        console.print(speed(report["speed"]))

    # A build that failed before its engine, or whose engine is for another machine, has a verdict on graphs alone.
    verdict = report["verdict"].upper()
    if build.judged_engine is None:
        verdict += ", no engine judged"
    console.print("verdict:", Text(f"{verdict},", COLOURS[report["verdict"]]), where)


def _sentences(build: FinishedBuild) -> Iterator[str]:
    """Of what is shipped first; then what stands beside it, what is not proven, and why the verdict is none better."""
    report = build.report
    for warning in report.get("warnings") or ():
        yield f"warning: {warning}"
    if build.shipped is not None:
        if build.subsets is None and not build.shipped.subsets:
            yield NO_CLASSES
        yield from subsets.sentences(build.shipped.subsets)
        yield from hidden.sentences(build.shipped)
    yield from hidden.beside(build.stages, build.precision)
    counted = look(report.get("looks"))
    if counted is not None:
        yield counted
    yield from _evidence(report)
    for row in build.stages:
        if not row.stands_beside(build.precision):
            yield from (f"{row.name}: {reason}" for reason in row.reasons)
    yield from _against_baseline(report.get("findings", ()))


def printable(text: str) -> str:
    """``text`` as a terminal may have it: what is none in a name would move its cursor or change its colours."""
    return "".join(character if character.isprintable() else "\ufffd" for character in text)


def _stage_table(report: Mapping[str, Any]) -> Table:
    """One row a stage."""
    confidence = 100 * report["recipe"]["confidence"]
    columns = {heading.format(confidence=confidence): is_right for heading, is_right in COLUMNS.items()}
    return table(columns, [_cells(row) for row in report["stages"]])


def _evidence(report: Mapping[str, Any]) -> Iterator[str]:
    """What is proven, what is shown by a stand-in, and what is not proven."""
    for title in ("proven", "proxy", "not_proven"):
        for sentence in report.get(title, ()):
            yield f"{title.replace('_', ' ')}: {sentence}"


def _against_baseline(findings: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """How many checks against the baseline pass, and each that does not."""
    passed = 0
    others = []
    for finding in findings:
        if not finding["check"].startswith("baseline"):
            continue
        if finding["verdict"] == "pass":
            passed += 1
        else:
            others.append(finding)
    if passed:
        yield f"against the baseline: {passed} of {passed + len(others)} checks pass"
    for finding in others:
        beside = "beside, not shipped: " if finding["beside"] else ""
        yield f"{beside}{finding['stage']}: {finding['check']}: {finding['verdict']}: {finding['message']}"


def look(looks: Mapping[str, Any] | None) -> str | None:
    """The sentence for a look that is not the first at its network; None where nothing counted them, or it is."""
    if looks is None or looks["look"] == 1:
        return None
    sentence = f"look {looks['look']} at this network"
    # The oldest of a memory may be lost.
    if looks["earlier"]:
        last = looks["earlier"][-1]
        sentence += f", the last one of {last['n']:,} images on {last['day']} was {last['verdict']}"
    sentence += (
        f": with {100 * looks['share']:.2g} % of the error its drop is < {100 * looks['upper']:.2f} points, where a "
        f"first look would say < {100 * looks['upper_at_first_look']:.2f}"
    )
    alike = looks["at_these_images"]
    if alike > 1:
        sentence += f"; {alike} looks were at these images, and the bounds hold for the best of them"
    return sentence


def speed(comparison: Mapping[str, Any]) -> str:
    """The sentence for the time of an 8-bit engine next to its float neighbour."""
    # A bound on either side of 1 tells them apart; an interval that holds 1 does not.
    if comparison["lower"] > 1:
        verdict = "slower: do not ship it for its speed"
    elif comparison["upper"] < 1:
        verdict = "faster"
    else:
        verdict = "not told apart"
    ratio = f"{comparison['value']:.2f} ({comparison['lower']:.2f} … {comparison['upper']:.2f})"
    return (
        f"speed: {comparison['engine']} takes {ratio} of the time of {comparison['next_to']}, "
        f"one image a run on this machine: {verdict}"
    )


def _cells(row: Mapping[str, Any]) -> list[str]:
    stage = (row["file"] or row["name"]).split(".")[0]
    work = row["work"] or "–"
    return [stage, work, *_figures(row), _verdict(row)]


def _verdict(row: Mapping[str, Any]) -> str:
    if row["verdict"] != "not_run":
        return str(row["verdict"])
    return "built, not run" if row["file"] else "not reached"


def _figures(row: Mapping[str, Any]) -> list[str]:
    drift = row["drift"]
    accuracy = row["accuracy"]
    if drift is None or accuracy is None:
        return NO_FIGURES
    return [
        _decibels(Drift(**drift).shown_db),
        _decibels(Drift(**row["step"]).shown_db),
        f"{100 * drift['top1_agreement']:.2f}",
        f"{100 * accuracy['top1']:.2f}",
        f"{100 * accuracy['top5']:.2f}",
        f"< {100 * row['drop']['upper']:.2f}",
    ]


def _decibels(sqnr_db: float | None) -> str:
    """None is no difference at all."""
    return "same" if sqnr_db is None else f"{sqnr_db:.1f}"
