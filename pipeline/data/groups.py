"""What divides the test images: their classes, and groups that a CSV file names, such as camera, light or site."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import PurePath
from typing import TYPE_CHECKING

import numpy as np

from pipeline import workspace
from pipeline.console import news
from pipeline.errors import BadRequest
from pipeline.stage import CLASSES

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from pipeline.data.part import Part

IMAGE = "image"
EXAMPLE = "it has a first line such as image,camera and then lines such as val/cat/1.jpg,north"


@dataclass(frozen=True)
class Grouping:
    """The ``names`` of subsets, and the place among them of each image, (N,)."""

    names: Sequence[str]
    codes: NDArray[np.integer]

    def of(self, chosen: NDArray[np.int64]) -> Grouping:
        """The same for these images."""
        return Grouping(self.names, self.codes[chosen])


def read(path: Path, part: Part) -> dict[str, Grouping]:
    """By column the groups of the images of ``part`` that the file ``path`` names.

    An image goes by its path, or as much of its end as tells it from all others; one of a data set by its number. How
    many lines are of other images is said. Raises BadRequest where the file cannot be read, an
    image has no line or two that differ, or a column has one group only.
    """
    header, rows = _rows(path)
    row_of = _row_of_each(path, part, rows)
    groupings = {}
    for number, column in enumerate(header, start=1):
        cells = [row[number] for row in row_of]
        names = sorted(set(cells))
        code = {name: place for place, name in enumerate(names)}
        if len(names) < 2:
            same = f"all images have the same {column}, {names[0]!r}"
            raise BadRequest(f"--groups {path}: {same}; drop the column, or name more groups")
        groupings[column] = Grouping(names, np.array([code[cell] for cell in cells], np.int32))
    return groupings


def _rows(path: Path) -> tuple[list[str], list[list[str]]]:
    """The names of the columns behind the first, and all lines."""
    try:
        # With the mark that spreadsheets write in front, or without.
        with path.open(encoding="utf-8-sig", newline="") as file:
            lines = [line for line in csv.reader(file, strict=True) if line]
    except (OSError, ValueError, csv.Error) as error:
        raise BadRequest(f"--groups {path} cannot be read ({workspace.explain(error)}); {EXAMPLE}") from error

    header = [name.strip() for name in lines[0]] if lines else []
    columns = header[1:]
    if len(header) < 2 or header[0] != IMAGE or not all(columns) or len({CLASSES, *columns}) <= len(columns):
        raise BadRequest(f"--groups {path} starts with {','.join(header)!r}; {EXAMPLE}, in columns of different names")
    for number, line in enumerate(lines[1:], start=2):
        if len(line) != len(header) or not all(cell.strip() for cell in line):
            raise BadRequest(f"--groups {path}: line {number} does not fill its {len(header)} columns; {EXAMPLE}")
    return columns, [[cell.strip() for cell in line] for line in lines[1:]]


def _row_of_each(path: Path, part: Part, rows: list[list[str]]) -> list[list[str]]:
    """The line of each image of ``part``."""
    row_by_key: dict[str, list[str]] = {}
    for row in rows:
        key = PurePath(row[0]).as_posix()
        if row_by_key.setdefault(key, row)[1:] != row[1:]:
            raise BadRequest(f"--groups {path} has two lines for {row[0]} that differ; keep one of them")

    found = []
    image_of_key: dict[str, str] = {}
    for index in range(len(part)):
        name = part.name(index)
        known = [key for key in _keys(name) if key in row_by_key]
        if not known:
            raise BadRequest(f"--groups {path} has no line for the test image {name}; give each image one, {EXAMPLE}")
        # The longest that there is a line for.
        key = known[0]
        other = image_of_key.setdefault(key, name)
        if other != name:
            raise BadRequest(f"--groups {path}: {key} is the end of {other} and of {name}; write more of their paths")
        found.append(row_by_key[key])
    unknown = [key for key in row_by_key if key not in image_of_key]
    if unknown:
        # Nothing is lost by them: every image that judges has its line.
        said = f"{len(unknown)} of the {len(row_by_key)} lines are of no image that judges here, such as {unknown[0]}"
        news.say(f"--groups {path}: {said}")
    return found


def _keys(name: str) -> Iterator[str]:
    """What a line may call an image: its path or the end of that, or its number in a data set."""
    parts = PurePath(name).parts
    for start in range(len(parts)):
        yield PurePath(*parts[start:]).as_posix()
    yield name.rpartition(" ")[2]
