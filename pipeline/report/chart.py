"""Pictures of figures, by matplotlib."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING, Any

from pipeline.errors import BadRequest, cure

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

KINDS = (".svg", ".pdf", ".png")


def refuse(path: Path, flag: str = "--chart") -> None:
    """Raise BadRequest where no picture can be drawn into ``path``."""
    if path.suffix not in KINDS or not path.parent.is_dir():
        raise BadRequest(f"{flag} {path}: give a file in {', '.join(KINDS)}, in a folder that is there")
    if importlib.util.find_spec("matplotlib") is None:
        raise BadRequest(f"{flag} needs matplotlib, which is not installed; run: {cure('matplotlib')}")


def latencies(result: Mapping[str, Any], path: Path) -> None:
    """Draw p50 to p99 of every row of a bench: milliseconds per image, one line a row, from zero."""
    from matplotlib.figure import Figure

    # Bars are numbered from below, and the first row belongs on top.
    rows = result["rows"][::-1]
    figure = Figure(figsize=(8, 1.2 + 0.4 * len(rows)), layout="constrained")
    axes = figure.subplots()
    for place, row in enumerate(rows):
        # Of a whole batch, from the median to the highest percentile.
        percentiles = list(row["milliseconds"].values())
        median = percentiles[0] / row["batch"]
        highest = percentiles[-1] / row["batch"]
        color = "tab:blue" if row["name"] == "engine" else "tab:gray"
        axes.barh(place, median, color=color)
        axes.plot([median, highest], [place, place], color="black", marker="|")
    axes.set_yticks(range(len(rows)), [f"{row['name']}, batch {row['batch']}" for row in rows])
    axes.set_xlabel("milliseconds per image: median, and to the 99th percentile")
    machine = result["environment"]["gpu"] or result["environment"]["cpu"]
    axes.set_title(f"{result['directory']} on {machine}")
    figure.savefig(path)
