"""Cells as Markdown."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.peers import environments, foreign
from pipeline import provenance

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence


@dataclass(frozen=True)
class Column:
    """A title, and what stands below it of a cell's figures."""

    title: str
    text: Callable[[dict[str, Any]], str]


def drop(row: dict[str, Any]) -> str:
    """The loss of top-1 in points."""
    value, lower, upper = (100 * row[key] for key in ("drop", "lower", "upper"))
    return f"{value:.2f} ({lower:.2f} … {upper:.2f})"


def shares(row: dict[str, Any]) -> str:
    """What is computed in INT8."""
    return " · ".join(f"{100 * row[key]:.0f}" for key in ("convolutions", "macs", "adds"))


def rtx(row: dict[str, Any]) -> str:
    """Whether TensorRT-RTX takes the file."""
    return "built" if row["tensorrt_rtx"] == "yes" else "refused"


DROP = Column("drop, points (95 %)", drop)
SHARES = Column("convolutions · MACs · Adds in INT8, %", shares)
RTX = Column("TensorRT-RTX", rtx)


def lines(title: str, columns: Sequence[Column], rows: dict[str, dict[str, Any]]) -> Iterator[str]:
    """The table of one network in one case, a row for each quantiser."""
    yield f"\n{title}\n"
    yield f"| quantiser | {' | '.join(column.title for column in columns)} |"
    yield "|---" * (1 + len(columns)) + "|"
    for quantiser, row in rows.items():
        yield f"| {quantiser} | {' | '.join(_cells(columns, row))} |"


def _cells(columns: Sequence[Column], row: dict[str, Any]) -> Iterator[str]:
    if "failed" not in row:
        return (column.text(row) for column in columns)
    said = f"failed: {row['failed'].replace('|', '/')}"
    return iter([said, *("" for _ in columns[1:])])


def tools(work: Path, quantisers: Iterable[str]) -> str:
    """The date, the machine and the versions behind the tables."""
    names = {foreign.PEERS[quantiser][0] for quantiser in quantisers if quantiser in foreign.PEERS}
    model = next(line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name"))
    found = [environments.versions(name, work) for name in sorted(names)]
    own = [f"{name} {value}" for name, value in provenance.versions(("torch", "onnx", "onnxruntime")).items()]
    return (
        f"\n{time.strftime('%Y-%m-%d')}; {len(os.sched_getaffinity(0))} processors, {model.split(':')[1].strip()}, "
        f"judged with {', '.join(own)}; peers: {'; '.join(found)}"
    )
