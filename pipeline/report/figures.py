"""Numbers to places in a chart: x in percent of its width, y in pixels from its top; the templates draw them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

# Of a line chart: its height in pixels, and the percent at its left that the figures of the y axis take.
HEIGHT, MARGIN = 220, 9.0
HISTOGRAM = 60


@dataclass(frozen=True)
class Scale:
    """Values from ``low`` to ``high`` to places from ``start`` to ``end``; what lies outside goes to the edge."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        """The place of ``value``, to a hundredth."""
        share = (min(max(value, self.low), self.high) - self.low) / ((self.high - self.low) or 1)
        return round(self.start + share * (self.end - self.start), 2)


def ticks(low: float, high: float, count: int = 4) -> list[float]:
    """Round values around [``low``, ``high``], about ``count`` steps apart from each other."""
    width = (high - low) or abs(high) or 1.0
    power = 10.0 ** math.floor(math.log10(width / count))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power * count >= width * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(number * step, 12) for number in range(first, max(last, first + 1) + 1)]


def lines(series: Mapping[str, Sequence[float | None]]) -> dict[str, Any]:
    """A line for each of ``series`` over its index, broken where it is None."""
    seen = [value for values in series.values() for value in values if value is not None]
    marks = ticks(min(seen, default=0.0), max(seen, default=0.0))
    longest = max((len(values) for values in series.values()), default=0)
    across, up = Scale(0, max(longest - 1, 1), MARGIN, 99), Scale(marks[0], marks[-1], HEIGHT - 8, 14)
    return {
        "height": HEIGHT,
        "margin": MARGIN,
        "lines": [{"name": name, "path": _path(values, across, up)} for name, values in series.items()],
        "y": [{"at": up(mark), "text": f"{mark:g}"} for mark in marks],
        "across": across,
    }


def _path(values: Sequence[float | None], across: Scale, up: Scale) -> str:
    drawn, open_ = [], False
    for index, value in enumerate(values):
        if value is not None:
            drawn.append(f"{'L' if open_ else 'M'}{across(index):g} {up(value):g}")
            if not open_ and (index + 1 == len(values) or values[index + 1] is None):
                drawn.append("h0")  # a value alone is a dot
        open_ = value is not None
    return "".join(drawn)


def histogram(account: Mapping[str, Any]) -> dict[str, Any]:
    """The counts of one tensor from 0 to the largest magnitude seen, on a logarithmic scale, and its range."""
    counts, seen, amax = account["histogram"], float(account["seen"]), float(account["amax"])
    widest = max(seen, amax) or 1.0
    across, up = Scale(0, widest, 0, 100), Scale(0, math.log1p(max(counts, default=0)), HISTOGRAM, 2)
    places = [across(seen * number / max(len(counts), 1)) for number in range(len(counts) + 1)]
    steps = "".join(
        f"H{left:g}V{up(math.log1p(count)):g}H{right:g}"
        for count, left, right in zip(counts, places, places[1:], strict=False)
    )
    return {"height": HISTOGRAM, "path": f"M0 {HISTOGRAM}{steps}V{HISTOGRAM}Z", "range": across(amax)}


def reach(rows: Sequence[Mapping[str, Any]]) -> float:
    """The largest change in top-1 that a bound or an allowance of ``rows`` reaches, and a tenth of it."""
    bounds = [abs(row["drop"][key]) for row in rows if row["drop"] for key in ("lower", "upper")]
    allowed = [row["tolerance"]["drop"] for row in rows if row["drop"] and row["tolerance"]["drop"] is not None]
    return 1.1 * max(bounds + allowed, default=0)


def intervals(rows: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, float]]:
    """Each row's loss of top-1 with its bounds and what is allowed, from minus to plus :func:`reach`."""
    across = Scale(-reach(rows), reach(rows), 0, 100)
    return {
        row["name"]: {
            name: across(value)
            for name, value in {**row["drop"], "allowed": row["tolerance"]["drop"]}.items()
            if name not in {"lost", "gained"} and value is not None
        }
        for row in rows
        if row["drop"]
    }


def shares(values: Mapping[str, float]) -> dict[str, float]:
    """Each value in percent of the largest."""
    most = max(values.values(), default=0) or 1
    return {name: round(100 * value / most, 2) for name, value in values.items()}
