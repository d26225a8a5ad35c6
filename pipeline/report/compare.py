"""Two finished builds side by side, as one HTML file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pipeline.errors import BadRequest
from pipeline.report import figures, page
from pipeline.report.render import refusing, rendered

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pipeline.report.changes import Answers

FILE = "compare.html"


def html(one: Path, other: Path) -> str:
    """The page of both; raises BadRequest where one holds no finished build, or a damaged one."""
    if one.resolve() == other.resolve():
        raise BadRequest(f"--compare {one} {other}: they are the same build; give two")
    builds = []
    for directory in (one, other):
        with refusing(directory):
            builds.append(build := page.gathered(directory))
        if build["report"] is None or build["shipped"] is None:
            raise BadRequest(f"--compare: {directory} has no judged file; let its build end first")
    with refusing(one, other):
        return rendered("compare.html", builds=builds, **_between(*builds))


def _between(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    """What differs between two builds."""
    both = (one, other)
    reports = [build["report"] for build in both]
    rows = [{row["name"]: row for row in build["stages"]} for build in both]
    same = reports[0]["images"]["test"] == reports[1]["images"]["test"]
    alike = reports[0]["recipe"]["arch"] == reports[1]["recipe"]["arch"] and all("steps" in b["depth"] for b in both)
    return {
        "apart": _apart(*(build["saved"] for build in both)) if same else None,
        "flags": list(_differing(*(report["recipe"] for report in reports))),
        "versions": list(_differing(*(report["environment"]["versions"] for report in reports))),
        "names": dict.fromkeys(name for found in rows for name in found),
        "rows": rows,
        "depth": _depth(one, other) if alike else None,
    }


def _differing(one: dict[str, Any], other: dict[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    """Name and both values of what is not the same; where the results went does not count."""
    for name in dict.fromkeys([*one, *other]):
        if name != "output" and one.get(name) != other.get(name):
            yield name, one.get(name), other.get(name)


def _apart(one: Answers, other: Answers) -> dict[str, int]:
    """On how many of the same images the two answer differently, and how many only one of them has right."""
    labels = one["labels"]
    right = [each["after"] == labels for each in (one, other)]
    return {
        "of": len(labels),
        "moved": int((one["after"] != other["after"]).sum()),
        "only_one": int((right[0] & ~right[1]).sum()),
        "only_other": int((right[1] & ~right[0]).sum()),
    }


def _depth(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    """The drift of both along the same layers."""
    totals = [
        {(step["module"], step["operator"]): step["total"] for step in build["depth"]["steps"]}
        for build in (one, other)
    ]
    order = dict.fromkeys([*totals[0], *totals[1]])
    series = {letter: [found.get(key) for key in order] for letter, found in zip("AB", totals, strict=True)}
    return {**figures.lines(series), "x": [], "count": len(order)}
