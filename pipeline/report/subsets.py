"""The loss by class and by group: sentences for whoever reads the verdict, and what the page draws."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pipeline.report import figures
from pipeline.stage import CLASSES

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from pipeline.report.figures import Mark
    from pipeline.stage import Family, StageRow, Subset

# Subsets that have a line and a picture of their own; the others are listed by their counts.
FIRST = 30


def sentences(families: Mapping[str, Family]) -> Iterator[str]:
    """The worst subset of each family, and what its images cannot show."""
    for column, family in families.items():
        yield worst(column, family)
        yield unseen(column, family)


def worst(column: str, family: Family) -> str:
    """The one that lost most for certain, and what none lost more than."""
    kind = singular(column)
    subset = family.worst
    at_most = f"no {kind} lost more than {100 * family.at_most:.2f} points"
    if subset.value <= 0:
        return f"worst {kind}: none of {family.count} lost more images than it gained; {at_most}"
    proven = "none of them proven"
    if subset.lower > 0:
        proven = f"at least {100 * subset.lower:.2f} of them proven"
    counts = f"{subset.lost} lost, {subset.gained} gained of {subset.n} images"
    return f"worst {kind}: {subset.name} lost {100 * subset.value:.2f} points, {proven} ({counts}); {at_most}"


def unseen(column: str, family: Family) -> str:
    """What loss of one subset the images can show at all."""
    images = f"{family.least}" if family.least == family.most else f"{family.least} to {family.most}"
    noun = "image" if family.most == 1 else "images"
    shows = "no loss would show"
    if family.shows is not None:
        shows = f"only losses above {100 * family.shows:.1f} points would show"
    allowed = f"{100 * family.allowed:g} are allowed"
    # Said once: what holds for classes holds for groups.
    if not family.asked and column == CLASSES:
        allowed += " unless --max-class-drop says less"
    return f"{images} {noun} a {singular(column)}: {shows} ({allowed})"


def singular(column: str) -> str:
    """What one subset of a family is called."""
    return "class" if column == CLASSES else column


@dataclass(frozen=True)
class SubsetBar:
    """One subset with the places of its value and bounds, in percent; ``failed``: it lost more than it may."""

    subset: Subset
    at: dict[str, float]
    failed: bool


@dataclass(frozen=True)
class SameCounts:
    """The ``names`` of all subsets that have the counts of ``subset``, and so its bounds."""

    subset: Subset
    names: list[str]


@dataclass(frozen=True)
class FamilyChart:
    """A family on the page: the worst subsets with a picture each, the others by their counts.

    ``zero`` and ``allowed`` are places as those of the bars, ``marks`` those of round losses. ``whole`` draws all
    subsets that are listed where they are many; ``unlisted`` are too many for the report.
    """

    kind: str
    family: Family
    sentences: list[str]
    bars: list[SubsetBar]
    zero: float
    allowed: float
    marks: list[Mark]
    rest: list[SameCounts]
    whole: dict[str, Any] | None
    unlisted: int


def charts(shipped: StageRow, listed: Mapping[str, Sequence[Subset]]) -> list[FamilyChart]:
    """A chart for each family of ``shipped``, whose subsets are ``listed`` by column, the worst first."""
    found = []
    for column, family in shipped.subsets.items():
        found.append(_chart(column, family, listed.get(column) or [family.worst]))
    return found


def _chart(column: str, family: Family, listed: Sequence[Subset]) -> FamilyChart:
    first = listed[:FIRST]
    across = figures.loss_scale(first, family.allowed)
    failed = {subset.name for subset in family.failed}
    bars = []
    for subset in first:
        at = {"lower": across(subset.lower), "value": across(subset.value), "upper": across(subset.upper)}
        bars.append(SubsetBar(subset, at, subset.name in failed or subset.lower > family.allowed))
    return FamilyChart(
        kind=singular(column),
        family=family,
        sentences=[worst(column, family), unseen(column, family)],
        bars=bars,
        zero=across(0),
        allowed=across(family.allowed),
        marks=figures.loss_marks(across),
        rest=_by_counts(listed[FIRST:]),
        whole=figures.band(listed, family.allowed) if len(listed) > FIRST else None,
        unlisted=family.count - len(listed),
    )


def _by_counts(subsets: Sequence[Subset]) -> list[SameCounts]:
    """In the order of the worst: those that come first in it stay first."""
    by_counts: dict[tuple[int, int, int], SameCounts] = {}
    for subset in subsets:
        counts = (subset.n, subset.lost, subset.gained)
        same = by_counts.setdefault(counts, SameCounts(subset, []))
        same.names.append(subset.name)
    return list(by_counts.values())
