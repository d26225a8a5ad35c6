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

# How many halvings of the largest magnitude are counted by themselves.
OCTAVES = 16


@dataclass(frozen=True)
class Fit:
    """How the range ``amax`` of one activation ``tensor``, made by ``module``, fits what was seen there.

    ``seen`` is the largest magnitude and ``clipped`` the share of all values that lies beyond the range. ``sqnr_db``
    compares the values with what they are rounded to. ``octaves`` are the shares of the values in [2^-k, 2^(1-k)] of
    ``seen``, for k from 16 down to 1.
    """

    tensor: str
    module: str
    amax: float
    seen: float
    clipped: float
    sqnr_db: float | None
    octaves: tuple[float, ...]


def fits(quantised: Path, histograms: Mapping[str, Histogram]) -> list[Fit]:
    """The fit of every activation pair of ``quantised`` whose tensor is in ``histograms``, in graph order."""
    fit_of: dict[str, Fit] = {}
    for node in onnx_file.read(quantised).graph:
        activation = node.inputs[0] if node.op_type == "QuantizeLinear" else None
        if activation is None or str(activation.name) not in histograms:
            continue
        scales = onnx_file.initializer_array(node.inputs[1])
        number_format = pairs.number_format_of(node)
        if scales is None or number_format is None or scales.size != 1:
            continue

        tensor = str(activation.name)
        producer = activation.producer()
        module = onnx_file.module_of(producer) if producer is not None else ""
        amax = float(scales.item()) * number_format.largest_level
        fit_of[tensor] = _fit(tensor, module or tensor, amax, number_format, histograms[tensor])
    return list(fit_of.values())


def _fit(tensor: str, module: str, amax: float, number_format: NumberFormat, histogram: Histogram) -> Fit:
    edges = histogram.edges
    # Values are taken as the middle of their bin.
    middles = (edges[1:] + edges[:-1]) / 2
    value_count = max(histogram.total, 1)

    signal_power = float(np.sum(histogram.counts * middles**2))
    noise_power = squared_error(histogram, amax / number_format.largest_level, number_format)
    sqnr_db = None
    if signal_power > 0 and noise_power > 0:
        sqnr_db = float(10 * np.log10(signal_power / noise_power))

    octave_edges = histogram.amax * 2.0 ** np.arange(-OCTAVES, 1)
    counts_below = np.interp(octave_edges, edges, np.append(0, np.cumsum(histogram.counts)))
    octave_shares = np.diff(counts_below) / value_count

    return Fit(
        tensor=tensor,
        module=module,
        amax=amax,
        seen=histogram.amax,
        clipped=histogram.beyond(amax) / value_count,
        sqnr_db=sqnr_db,
        octaves=tuple(float(share) for share in octave_shares),
    )
