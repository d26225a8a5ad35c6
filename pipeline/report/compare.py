"""Two finished builds side by side, as one HTML file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pipeline.errors import BadRequest
from pipeline.report import figures, page
from pipeline.report.render import refusing, rendered

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from pipeline.report.changes import BeforeAndAfter
    from pipeline.report.evidence import DepthStep
    from pipeline.report.page import BuildPage
    from pipeline.stage import StageRow

    Difference = tuple[str, Any, Any]

FILE = "compare.html"


@dataclass(frozen=True)
class AnswersApart:
    """On how many of the same images two builds answer differently, and how many only one of them has right."""

    of: int
    moved: int
    only_one: int
    only_other: int


@dataclass(frozen=True)
class Differences:
    """What differs between two builds; ``rows`` are those of each by name, ``names`` the stages that either has.

    ``apart`` is None where other images judged them, ``depth`` where the two are different networks.
    """

    apart: AnswersApart | None
    flags: list[Difference]
    versions: list[Difference]
    names: list[str]
    rows: list[dict[str, StageRow]]
    depth: dict[str, Any] | None


def html(one: Path, other: Path) -> str:
    """The page of both; raises BadRequest where one holds no finished build, or a damaged one."""
    if one.resolve() == other.resolve():
        raise BadRequest(f"--compare {one} {other}: they are the same build; give two")
    pages = [_judged(directory) for directory in (one, other)]
    with refusing(one, other):
        return rendered("compare.html", builds=pages, differences=_differences(*pages))


def _judged(directory: Path) -> BuildPage:
    """What is shown of the build in ``directory``; raises BadRequest where nothing of it was judged."""
    with refusing(directory):
        shown = page.gathered(directory)
    if not isinstance(shown, page.BuildPage) or shown.shipped is None:
        raise BadRequest(f"--compare: {directory} has no judged file; let its build end first")
    return shown


def _differences(one: BuildPage, other: BuildPage) -> Differences:
    # Image by image only of the same images.
    apart = None
    if one.finished.images.test == other.finished.images.test and one.answers and other.answers:
        apart = _apart(one.answers, other.answers)

    # Other networks have other layers.
    depth = None
    if one.finished.arch == other.finished.arch and one.depth is not None and other.depth is not None:
        depth = _depth(one.depth.steps, other.depth.steps)

    rows = [{row.name: row for row in build.finished.stages} for build in (one, other)]
    return Differences(
        apart=apart,
        flags=list(_differing(one.finished.report["recipe"], other.finished.report["recipe"])),
        versions=list(_differing(one.finished.environment.versions, other.finished.environment.versions)),
        names=list(dict.fromkeys([*rows[0], *rows[1]])),
        rows=rows,
        depth=depth,
    )


def _differing(one: Mapping[str, Any], other: Mapping[str, Any]) -> Iterator[Difference]:
    """Name and both values of what is not the same; where the results went does not count."""
    for name in dict.fromkeys([*one, *other]):
        if name != "output" and one.get(name) != other.get(name):
            yield name, one.get(name), other.get(name)


def _apart(one: BeforeAndAfter, other: BeforeAndAfter) -> AnswersApart:
    one_is_right = one.after == one.labels
    other_is_right = other.after == one.labels
    return AnswersApart(
        of=len(one.labels),
        moved=int((one.after != other.after).sum()),
        only_one=int((one_is_right & ~other_is_right).sum()),
        only_other=int((other_is_right & ~one_is_right).sum()),
    )


def _depth(one: list[DepthStep], other: list[DepthStep]) -> dict[str, Any]:
    """The drift of both along the same layers; a line is broken where its build has no such layer."""
    totals = [{(step.module, step.operator): step.total for step in steps} for steps in (one, other)]
    layers = list(dict.fromkeys([*totals[0], *totals[1]]))
    series = {
        "A": [totals[0].get(layer) for layer in layers],
        "B": [totals[1].get(layer) for layer in layers],
    }
    return {**figures.lines(series), "x": [], "count": len(layers)}
