"""The data of devices.toml as records: modules, JetPack releases, TensorRT versions."""

from __future__ import annotations

import difflib
import re
import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from exporters.portable import device_rules
from pipeline.errors import BadRequest

if TYPE_CHECKING:
    from collections.abc import Iterable

Version = tuple[int, ...]


@dataclass(frozen=True)
class TableRow:
    """One row: its ``name``, and its cells as (value, source); a cell that is not there is not known."""

    name: str
    cells: dict[str, Any]

    def __getitem__(self, cell: str) -> Any:
        """The value of ``cell``, None where it is not known."""
        return self.cells[cell][0] if cell in self.cells else None

    def source(self, cell: str) -> str:
        """Where the value of ``cell`` was read, and when."""
        return cited(self.cells[cell][1])


@dataclass(frozen=True)
class Target:
    """A ``module`` and, where it was named or the module has one only, its JetPack ``release``."""

    module: TableRow
    release: Version | None = None


@cache
def data() -> dict[str, Any]:
    """The file, read."""
    return tomllib.loads(Path(__file__).with_name("devices.toml").read_text())


def cited(source: str) -> str:
    """A source as a reader can follow it: what it is and when it was read."""
    row = data()["source"][source]
    return f"{row['what']}, read {row['read']}"


def version(text: str) -> Version:
    """``10.13.3`` as (10, 13, 3); raises BadRequest where it is none."""
    if not re.fullmatch(r"\d+(\.\d+)*", text):
        raise BadRequest(f"{text} is no version; give numbers and dots, as in 10.13.3")
    return tuple(int(part) for part in text.split("."))


def target(text: str, others: Iterable[str] = ()) -> Target:
    """``jetson-orin-nx`` or ``jetson-orin-nx@jp6.2``; raises BadRequest where there is none of that name.

    ``others`` are names that would do as well.
    """
    name, _, release = text.partition("@")
    modules = data()["module"]
    if name not in modules:
        known = [*others, *modules]
        near = difflib.get_close_matches(name, known, n=3, cutoff=0.4) or known
        raise BadRequest(f"--target {text}: no such device; did you mean {', '.join(near)}?")

    row = TableRow(name, modules[name])
    if not release:
        return Target(row)
    if not release.startswith("jp"):
        raise BadRequest(f"--target {text}: what follows @ is a JetPack, as in {name}@jp6.2")
    return Target(row, version(release.removeprefix("jp")))


def jetpacks(module: TableRow) -> list[TableRow]:
    """The releases that run on ``module``, oldest first: as they stand in the file."""
    rows = []
    for name, cells in data()["jetpack"].items():
        row = TableRow(name, cells)
        if module.name in row["modules"]:
            rows.append(row)
    return rows


def jetpack(release: Version) -> TableRow | None:
    """The row that ``release`` belongs to."""
    for name, cells in data()["jetpack"].items():
        # One row may stand for several releases that bring the same.
        last = cells.get("through", name)
        if version(name) <= release <= version(last):
            return TableRow(name, cells)
    return None


def tensorrt(release: Version) -> TableRow | None:
    """What is known of this version of TensorRT: the last row that begins at or before it."""
    cells = device_rules.tensorrt_row(data(), release)
    if cells is None:
        return None
    return TableRow(".".join(map(str, release)), cells)
