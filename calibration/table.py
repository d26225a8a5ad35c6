"""TensorRT's calibration table: the text that its implicit INT8 reads, on JetPack 4 and 5 and for DLA.

``TRT-8502-EntropyCalibration2``, then a line ``tensor: scale`` for each tensor, the scale (amax / 127) as the eight
hexadecimal digits of its float32 bits, the highest first. TensorRT refuses the table of another version: change the
number in the first line to your own.
"""

from __future__ import annotations

import math
import re
import struct
from typing import TYPE_CHECKING

from exporters.number_formats import INT8

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

SUFFIXES = {".cache", ".table"}
HEADER = "TRT-8502-EntropyCalibration2"  # JetPack 5.1
FIRST_LINE = re.compile(r"TRT-\w+-\w+")
LINE = re.compile(r"(.+): ([0-9a-fA-F]{8})")
MOST_BYTES = 2**24
# Implicit INT8 knows one scale per tensor, symmetric: whatever the Q/DQ pairs round to.
LEVELS = INT8.largest_level


def to_text(amax: Mapping[str, float]) -> str:
    """The table of these magnitudes; a tensor that is always 0 has the scale that its Q/DQ pair has, 1.0."""
    lines = [HEADER]
    for name, magnitude in amax.items():
        scale = (magnitude or LEVELS) / LEVELS
        lines.append(f"{name}: {struct.pack('>f', scale).hex()}")
    return "\n".join(lines) + "\n"


def read(path: Path, tensors: Iterable[str]) -> dict[str, float]:
    """The amax of each of ``tensors`` from the table at ``path``.

    Raises ValueError where it is no such table, or has no line for one of them.
    """
    size = path.stat().st_size
    if size > MOST_BYTES:
        raise ValueError(f"{path} has {size} bytes, which is no calibration table")
    try:
        text = path.read_text()
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is no calibration table: it is no text") from error

    first, *lines = text.splitlines() or [""]
    if not FIRST_LINE.fullmatch(first):
        raise ValueError(f"{path} is no calibration table: it begins with {first[:40]!r}, not with {HEADER}")

    scales = dict(_scale(path, line) for line in lines if line)
    amax = {}
    for name in tensors:
        if name not in scales:
            raise ValueError(f"{path} is the table of another network: it has no scale for {name}")
        amax[name] = scales[name] * LEVELS
    return amax


def _scale(path: Path, line: str) -> tuple[str, float]:
    """The tensor and the scale of one line."""
    parts = LINE.fullmatch(line)
    scale = math.nan
    if parts is not None:
        (scale,) = struct.unpack(">f", bytes.fromhex(parts[2]))
    if parts is None or not 0 < scale < math.inf:
        raise ValueError(f"{path} is no calibration table: the line {line[:60]!r} has no scale above 0")
    return parts[1], scale
