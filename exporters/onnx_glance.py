"""What an ONNX file says of itself, told without reading its weights."""

from __future__ import annotations

import mmap
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from exporters.portable import wire

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

# Numbers of fields, as onnx.proto3 has them.
GRAPH = 7
METADATA = 14
NODE = 1
OPERATOR = 4
KEY = 1
VALUE = 2


@dataclass(frozen=True)
class Glance:
    """``metadata`` as its writer kept it, and how many nodes of the graph have each of the ``operators``."""

    metadata: dict[str, str]
    operators: Counter[str]


def glance(path: Path) -> Glance:
    """The ONNX file ``path``; raises ValueError where it is none, OSError where it cannot be read."""
    try:
        with path.open("rb") as file:
            # Not read, and given back with the last view of it.
            content = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
        return _glance(content)
    except (IndexError, ValueError) as error:
        raise ValueError(f"{path.name} is no ONNX file ({error})") from error


def _glance(content: memoryview) -> Glance:
    metadata: dict[str, str] = {}
    operators: Counter[str] = Counter()
    for number, message in _messages(content):
        if number == METADATA:
            entry = _texts(message)
            metadata[entry[KEY]] = entry[VALUE]
        elif number == GRAPH:
            operators.update(_operators(message))
    return Glance(metadata, operators)


def _operators(graph: memoryview) -> Iterator[str]:
    for number, message in _messages(graph):
        if number == NODE:
            yield _texts(message)[OPERATOR]


def _texts(message: memoryview) -> dict[int, str]:
    """The texts of ``message`` that are asked for; an empty one may be left out of a file."""
    texts = dict.fromkeys((KEY, VALUE, OPERATOR), "")
    for number, value in _messages(message):
        if number in texts:
            texts[number] = bytes(value).decode()
    return texts


def _messages(content: memoryview) -> Iterator[tuple[int, memoryview]]:
    """The fields that are no numbers."""
    for number, value in wire.fields(content):
        if isinstance(value, memoryview):
            yield number, value
