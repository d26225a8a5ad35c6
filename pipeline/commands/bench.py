"""``python -m pipeline bench DIR``: the engine's speed next to what else could answer, as ratios of one run."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.errors import Exit
from pipeline.recipe import whole

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

HELP = "time the engine next to PyTorch, ONNX Runtime, other stages or builds, in turns"


def add_flags(parser: argparse.ArgumentParser) -> None:
    """The flags of this command."""
    parser.add_argument("directory", type=Path, help="what -o named when it was built")
    parser.add_argument(
        "--vs",
        default="torch,onnxruntime",
        help="with commas: torch, compile (torch.compile), onnxruntime (the exported graph), a stage, or the directory "
        "of another build (default: torch,onnxruntime)",
    )
    parser.add_argument("--batch", type=whole(1, 10**4), nargs="+", default=[1], help="images per run (default: 1)")
    parser.add_argument("--seconds", type=whole(1, 10**5), default=60, help="to time at most (default: 60)")
    parser.add_argument("--chart", type=Path, metavar="FILE", help="draw the latencies into an .svg, .pdf or .png")
    parser.add_argument("--json", action="store_true", help="print bench.json instead of the table")


def run(arguments: argparse.Namespace) -> int:
    """Exit 0: this command shows, it does not judge. The figures are kept in DIR/bench.json."""
    from pipeline import workspace
    from pipeline.finished.benchmark import bench
    from pipeline.report import chart

    if arguments.chart is not None:
        chart.refuse(arguments.chart)

    versus = [name for name in arguments.vs.split(",") if name]
    result = bench(arguments.directory, versus, arguments.batch, arguments.seconds)
    with workspace.directory(arguments.directory) as unfinished:
        workspace.write_json(arguments.directory / "bench.json", result, unfinished)
    if arguments.chart is not None:
        chart.latencies(result, arguments.chart)
    if arguments.json:
        json.dump(result, sys.stdout, indent=1, allow_nan=False)
        sys.stdout.write("\n")
    else:
        _show(result)
    return Exit.PASS


def _show(result: dict[str, Any]) -> None:
    from pipeline.console import tables

    heads = ("name", "runs by", "batch", "p50 ms", "p90 ms", "p99 ms", "images/s", "× engine's time", "MB in memory")
    console = tables.wide_console()
    console.print(tables.table({head: head not in heads[:2] for head in heads}, map(_cells, result["rows"])))
    for line in _lines(result):
        console.print(line)


def _cells(row: dict[str, Any]) -> Iterator[str]:
    yield row["name"]
    yield row["provider"]
    yield str(row["batch"])
    for milliseconds in row["milliseconds"].values():
        yield f"{milliseconds:.3g}"
    yield f"{row['images_per_second']:.4g}"
    ratio = row["ratio"]
    bounds = f"{ratio['value']:.3g} ({ratio['lower']:.3g} … {ratio['upper']:.3g})"
    yield "1" if row["name"] == "engine" else bounds
    yield f"{row['resident_bytes'] / 1e6:.0f}"


def _lines(result: dict[str, Any]) -> Iterator[str]:
    """What the table does not say: where, and how far the figures can be trusted."""
    environment = result["environment"]
    machine = environment["gpu"] or environment["cpu"]
    yield f"{machine}, {environment['cores']} cores; bounds of {100 * result['confidence']:g} %"
    for row in result["rows"]:
        if row["ratio"]["upper"] < 1:
            yield f"the engine is slower than {row['name']} at batch {row['batch']}"
    slow_to_load = sorted({row["name"] for row in result["rows"] if row["one_copy"]})
    if slow_to_load:
        names = ", ".join(slow_to_load)
        yield f"loaded once, as loading takes long: {names}; another copy may differ by 3 % (docs/bench.md)"
    if not result["settled"]:
        yield "not settled: the bounds are wider than 2 %; give it more --seconds, or a machine with less to do"
