"""Cells as Markdown."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.peers import environments
from pipeline import provenance

if TYPE_CHECKING:
    from collections.abc import Iterator

HEAD = (
    "| quantiser | drop, points (95 %) | agree % | SQNR dB | convolutions · MACs · Adds in INT8, % | TensorRT-RTX |",
    "|---|---|---|---|---|---|",
)


def lines(arch: str, case: str, count: int, rows: dict[str, dict[str, Any]]) -> Iterator[str]:
    """The table of one network in one case."""
    yield f"\n**{arch}, {case}** ({count} test images)\n"
    yield from HEAD
    for peer, row in rows.items():
        yield f"| {peer} | {_cells(row)} |"


def _cells(row: dict[str, Any]) -> str:
    if "failed" in row:
        return f"failed: {row['failed'].replace('|', '/')} | | | |"
    points = [100 * row[key] for key in ("drop", "lower", "upper")]
    shares = " · ".join(f"{100 * row[key]:.0f}" for key in ("convolutions", "macs", "adds"))
    built = "built" if row["tensorrt_rtx"] == "yes" else "refused"
    return (
        f"{points[0]:.2f} ({points[1]:.2f} … {points[2]:.2f}) | {100 * row['agreement']:.2f} | "
        f"{row['sqnr_db']:.1f} | {shares} | {built}"
    )


def tools(work: Path, names: set[str]) -> str:
    """The date, the machine and the versions behind the tables."""
    model = next(line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name"))
    found = [environments.versions(name, work) for name in sorted(names)]
    own = [f"{name} {value}" for name, value in provenance.versions(("torch", "onnx", "onnxruntime")).items()]
    return (
        f"\n{time.strftime('%Y-%m-%d')}; {len(os.sched_getaffinity(0))} processors, {model.split(':')[1].strip()}, "
        f"judged with {', '.join(own)}; peers: {'; '.join(found)}"
    )
