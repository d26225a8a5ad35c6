"""Numbers to places in a chart: x in percent of its width, y in pixels from its top; the templates draw them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pipeline.stage import Subset

# Of a line chart: its height in pixels, and the percent at its left that the figures of the y axis take.
HEIGHT = 220
MARGIN = 9.0
# Of a histogram, in pixels.
HISTOGRAM = 60
# Of a picture of all subsets, in pixels.
BAND = 200
# A step of an axis is one of these times a power of ten.
ROUND_STEPS = (1, 2, 2.5, 5, 10)
# Fields of a drop that count images, and have no place on an axis of shares.
COUNTS = {"lost", "gained"}


@dataclass(frozen=True)
class Scale:
    """Values from ``low`` to ``high`` to places from ``start`` to ``end``; what lies outside goes to the edge."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        """The place of ``value``, to a hundredth."""
        width = (self.high - self.low) or 1  # a scale of one value puts it at its start
        inside = min(max(value, self.low), self.high)
        share = (inside - self.low) / width
        return round(self.start + share * (self.end - self.start), 2)


def ticks(low: float, high: float, count: int = 4) -> list[float]:
    """Round values around [``low``, ``high``], about ``count`` steps apart from each other."""
    width = (high - low) or abs(high) or 1.0
    step = _round_step(width, count)
    # A bound that is a multiple but for its last bits is one.
    first = math.floor(low / step + 1e-9)
    last = math.ceil(high / step - 1e-9)
    # At least one step, since an axis needs two ends.
    last = max(last, first + 1)
    return [round(number * step, 12) for number in range(first, last + 1)]


def _round_step(width: float, count: int) -> float:
    """The smallest round step of which ``count`` cover ``width``."""
    power = 10.0 ** math.floor(math.log10(width / count))
    # The largest factor always does, but for the last bits of a logarithm: hence a thousandth less.
    return next(factor * power for factor in ROUND_STEPS if factor * power * count >= width * 0.999)


def lines(series: Mapping[str, Sequence[float | None]]) -> dict[str, Any]:
    """A line for each of ``series`` over its index, broken where it is None."""
    drawn_values: list[float] = []
    longest = 0
    for values in series.values():
        drawn_values.extend(value for value in values if value is not None)
        longest = max(longest, len(values))

    marks = ticks(min(drawn_values, default=0.0), max(drawn_values, default=0.0))
    across = Scale(0, max(longest - 1, 1), MARGIN, 99)
    # The top of a picture is its y of 0: a larger value has a smaller one.
    up = Scale(marks[0], marks[-1], HEIGHT - 8, 14)
    return {
        "height": HEIGHT,
        "margin": MARGIN,
        "lines": [{"name": name, "path": _path(values, across, up)} for name, values in series.items()],
        "y": [{"at": up(mark), "text": f"{mark:g}"} for mark in marks],
        "across": across,
    }


def _path(values: Sequence[float | None], across: Scale, up: Scale) -> str:
    """An SVG path through ``values``: M moves to the first one of each piece, L draws on to the next."""
    commands = []
    is_drawing = False
    for index, value in enumerate(values):
        if value is None:
            is_drawing = False
            continue
        command = "L" if is_drawing else "M"
        commands.append(f"{command}{across(index):g} {up(value):g}")
        is_last = index + 1 == len(values) or values[index + 1] is None
        if is_last and not is_drawing:
            commands.append("h0")  # a value alone is a dot
        is_drawing = True
    return "".join(commands)


def histogram(account: Mapping[str, Any]) -> dict[str, Any]:
    """The counts of one tensor from 0 to the largest magnitude seen, on a logarithmic scale, and its range."""
    counts = account["histogram"]
    largest_seen = float(account["seen"])
    amax = float(account["amax"])

    # A range may end beyond the values seen, or before: the picture shows both ends.
    across = Scale(0, max(largest_seen, amax) or 1.0, 0, 100)
    up = Scale(0, math.log1p(max(counts, default=0)), HISTOGRAM, 2)
    edges = [across(largest_seen * number / max(len(counts), 1)) for number in range(len(counts) + 1)]

    # Of each bar: to its left edge, to its height, to its right edge.
    outline = ""
    for number, count in enumerate(counts):
        outline += f"H{edges[number]:g}V{up(math.log1p(count)):g}H{edges[number + 1]:g}"
    return {"height": HISTOGRAM, "path": f"M0 {HISTOGRAM}{outline}V{HISTOGRAM}Z", "range": across(amax)}


def reach(rows: Sequence[Mapping[str, Any]]) -> float:
    """The largest change in top-1 that a bound or an allowance of ``rows`` reaches, and a tenth of it."""
    changes = [0.0]
    for row in rows:
        if not row["drop"]:
            continue
        changes += [abs(row["drop"]["lower"]), abs(row["drop"]["upper"])]
        if row["tolerance"]["drop"] is not None:
            changes.append(row["tolerance"]["drop"])
    return 1.1 * max(changes)


def intervals(rows: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, float]]:
    """Each row's loss of top-1 with its bounds and what is allowed, from minus to plus :func:`reach`."""
    across = Scale(-reach(rows), reach(rows), 0, 100)
    places: dict[str, dict[str, float]] = {}
    for row in rows:
        if not row["drop"]:
            continue
        values = {**row["drop"], "allowed": row["tolerance"]["drop"]}
        places[row["name"]] = {
            name: across(value) for name, value in values.items() if name not in COUNTS and value is not None
        }
    return places


def shares(values: Mapping[str, float]) -> dict[str, float]:
    """Each value in percent of the largest."""
    largest = max(values.values(), default=0) or 1
    return {name: round(100 * value / largest, 2) for name, value in values.items()}


@dataclass(frozen=True)
class Mark:
    """A ``text`` at a place of an axis."""

    at: float
    text: str


def loss_scale(subsets: Sequence[Subset], allowed: float) -> Scale:
    """Losses across a picture, so that all bounds, no loss and what is ``allowed`` are in it."""
    low = min(0.0, *(subset.lower for subset in subsets))
    high = max(allowed, *(subset.upper for subset in subsets))
    # Room for half a dot at the left end, and half a number at the right one.
    return Scale(low, high, 2, 96)


def loss_marks(scale: Scale) -> list[Mark]:
    """Round losses within ``scale``, in points."""
    inside = [loss for loss in ticks(scale.low, scale.high, 3) if scale.low <= loss <= scale.high]
    return [Mark(scale(loss), _points(loss)) for loss in inside]


def band(subsets: Sequence[Subset], allowed: float) -> dict[str, Any]:
    """All ``subsets`` from left to right, in their order: a dot for each value, an area between their bounds."""
    reached = loss_scale(subsets, allowed)
    marks = ticks(reached.low, reached.high)
    across = Scale(0, len(subsets), MARGIN, 99)
    up = Scale(marks[0], marks[-1], BAND - 8, 14)

    # Each subset is as wide as all others: there along the upper bounds, and back along the lower ones.
    upper = lower = dots = ""
    for place, subset in enumerate(subsets):
        left, middle, right = across(place), across(place + 0.5), across(place + 1)
        upper += f"V{up(subset.upper):g}H{right:g}"
        lower = f"V{up(subset.lower):g}H{left:g}" + lower
        dots += f"M{middle:g} {up(subset.value):g}h0"
    return {
        "height": BAND,
        "area": f"M{across(0):g} {up(0):g}{upper}{lower}Z",
        "dots": dots,
        "y": [Mark(up(mark), _points(mark)) for mark in marks],
        "x": [Mark(across(0), "1"), Mark(across(len(subsets)), f"{len(subsets)}")],
        "zero": up(0),
        "allowed": up(allowed),
        "count": len(subsets),
    }


def _points(share: float) -> str:
    # A minus sign, not a hyphen.
    return f"{round(100 * share, 6):g}".replace("-", "−")
