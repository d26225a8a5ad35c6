"""The questions about a device, its JetPack and its TensorRT that the data of devices answers.

The data are pipeline/targets/devices.toml as it was read, here or from the JSON in a bundle: a cell is a list of its
value and its source, and a cell that is not there is not known. What an answer is called, and its sentence, is the
matter of whoever asks.
"""

from __future__ import annotations

import re
from typing import Any, Dict, Optional, Tuple

Version = Tuple[int, ...]
Row = Dict[str, Any]


def version(text: str) -> Version:
    """The numbers at the head of a version, as in 10.3.0 or 10.3.0.post1."""
    numbers = re.match(r"\d+(\.\d+)*", text)
    if numbers is None:
        return (0,)
    return tuple(int(part) for part in numbers.group().split("."))


def is_build_of(build: Version, release: Version) -> bool:
    """Whether ``build`` begins with ``release``: 11.4.0.5 is a build of 11.4.0."""
    return build[: len(release)] == release


def cell(row: Row, name: str) -> Any:
    """The value of a cell, None where it is not known."""
    return row[name][0] if name in row else None


def tensorrt_row(data: Row, tensorrt: Version) -> Optional[Row]:
    """What is known of this TensorRT: the last row that begins at or before it; None before the first."""
    last = None
    # They stand in order, and each ends where the next begins.
    for row in data["tensorrt"]:
        if version(row["since"]) <= tensorrt:
            last = row
    return last


def keeps_types(tensorrt: Row, typing: str) -> bool:
    """Whether a TensorRT keeps the types of a graph that needs ``typing``: any, weak or strong."""
    offered = cell(tensorrt, "typing")
    return typing == "any" or offered in (typing, "both")


def reads_opset(tensorrt: Row, opset: int) -> bool:
    """Whether the parser of a TensorRT reads a graph of this opset."""
    return opset <= int(cell(tensorrt, "opset"))


def computes_in(module: Row, kind: str) -> Optional[bool]:
    """Whether a Jetson module has units for this type; None where nobody knows."""
    kinds = cell(module, "precisions")
    return None if kinds is None else kind in kinds


def combination(data: Row, module: Optional[str], jetpack: Version, tensorrt: Version) -> Optional[Row]:
    """What is known of a TensorRT that a JetPack does not bring, on ``module``, by its name; None is nothing."""
    for row in data["combination"]:
        if module not in row.get("modules", [module]):
            continue
        first, last = (version(text) for text in row["tensorrt"])
        # A build of the last one is still the last one.
        within = first <= tensorrt and tensorrt[: len(last)] <= last
        oldest, newest = (version(text) for text in row["jetpack"])
        if within and oldest <= jetpack <= newest:
            return dict(row)
    return None
