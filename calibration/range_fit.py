"""How well the range of each Q/DQ pair fits what passes it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from calibration.ranges import squared_error
from exporters import onnx_file, pairs

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from calibration.histogram import Histogram
    from exporters.number_formats import NumberFormat

OCTAVES = 16


@dataclass(frozen=True)
class Fit:
    """One activation ``tensor``, made by ``module``: its range ``amax``, what was ``seen`` and what lies beyond.

    ``clipped`` is the share of all values, ``sqnr_db`` that of the values against their rounded images, ``octaves``
    the shares of the values in [2^-k, 2^(1-k)] of ``seen`` for k from 16 down to 1.
    """

    tensor: str
    module: str
    amax: float
    seen: float
    clipped: float
    sqnr_db: float | None
    octaves: tuple[float, ...]


def fits(quantised: Path, seen: Mapping[str, Histogram]) -> list[Fit]:
    """The fit of every activation pair of ``quantised`` that is in ``seen``, in graph order."""
    found: dict[str, Fit] = {}
    for node in onnx_file.read(quantised).graph:
        value = node.inputs[0] if node.op_type == "QuantizeLinear" else None
        if value is None or str(value.name) not in seen:
            continue
        scale = onnx_file.initializer_array(node.inputs[1])
        number_format = pairs.number_format_of(node)
        if scale is None or number_format is None or scale.size != 1:
            continue
        maker = value.producer()
        module = onnx_file.module_of(maker) if maker is not None else ""
        name = str(value.name)
        amax = float(scale.item()) * number_format.largest_level
        found[name] = _fit(name, module or name, amax, number_format, seen[name])
    return list(found.values())


def _fit(tensor: str, module: str, amax: float, number_format: NumberFormat, histogram: Histogram) -> Fit:
    edges, total = histogram.edges, max(histogram.total, 1)
    middles = (edges[1:] + edges[:-1]) / 2
    signal = float(np.sum(histogram.counts * middles**2))
    noise = squared_error(histogram, amax / number_format.largest_level, number_format)
    bounds = histogram.amax * 2.0 ** np.arange(-OCTAVES, 1)
    below = np.interp(bounds, edges, np.append(0, np.cumsum(histogram.counts)))
    return Fit(
        tensor,
        module,
        amax,
        histogram.amax,
        histogram.beyond(amax) / total,
        float(10 * np.log10(signal / noise)) if signal > 0 and noise > 0 else None,
        tuple(float(share) for share in np.diff(below) / total),
    )
