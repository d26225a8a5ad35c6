"""What a build shows, in three lists: proven here, shown by a stand-in, and not proven."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from exporters.engines import device
from pipeline.building.plan import FLOAT16_ON_CPU

if TYPE_CHECKING:
    from collections.abc import Iterator

# Sentences of a report that tell of something else that ran in place of the real thing.
STAND_INS = {FLOAT16_ON_CPU, device.NOT_PROVEN}
SAVED = "No file ran in this check: its answers are those that were saved when it was built (--rerun runs every file)."


def evidence(report: dict[str, Any], *, rerun: bool) -> dict[str, list[str]]:
    """``proven``, ``proxy`` and ``not_proven``: sentences about the build of ``report``."""
    said = report["not_proven"]
    return {
        "proven": list(_proven(report["stages"])),
        "proxy": [*([] if rerun else [SAVED]), *_instead(report["stages"]), *(s for s in said if s in STAND_INS)],
        "not_proven": [*_undecided(report["stages"]), *(s for s in said if s not in STAND_INS)],
    }


def _proven(rows: list[dict[str, Any]]) -> Iterator[str]:
    passed = [row for row in rows if row["verdict"] == "pass"]
    for provider in dict.fromkeys(row["provider"] for row in passed):
        names = [row["name"] for row in passed if row["provider"] == provider]
        count = passed[0]["accuracy"]["n"]
        yield f"{', '.join(names)}: answers to {count} images, by {provider}, within their bounds."
    if certified := [row["name"] for row in passed if (row["certificate"] or {}).get("proven")]:
        yield f"{', '.join(certified)}: every weight, attribute and edge follows from the file before."


def _instead(rows: list[dict[str, Any]]) -> Iterator[str]:
    ran = {row["name"]: row["provider"] for row in rows if row["provider"]}
    for row in rows:
        if row["file"] and not row["provider"] and row["source"] in ran:
            yield f"{row['name']}: its graph, {row['source']}, was judged by {ran[row['source']]} in its place."


def _undecided(rows: list[dict[str, Any]]) -> Iterator[str]:
    for row in rows:
        if row["verdict"] in {"fail", "undecided"}:
            yield f"{row['name']} is {row['verdict']}: nothing is proven of it."
