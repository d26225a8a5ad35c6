"""``python -m pipeline sensitivity DIR``: how every range fits, and what each layer costs when only it is quantised."""

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

HELP = "show how the range of every tensor fits, and the loss when only one layer is quantised"
BARS = " ▁▂▃▄▅▆▇█"


def add_flags(parser: argparse.ArgumentParser) -> None:
    """The flags of this command."""
    parser.add_argument("directory", type=Path, help="what -o named when it was built")
    parser.add_argument("--stage", help="the quantised stage (default: that of the build)")
    parser.add_argument("--samples", type=whole(2, 10**6), default=64, help="images to look at (default: 64)")
    parser.add_argument("--top", type=whole(1, 10**6), help="rows of each table (default: all)")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")


def run(arguments: argparse.Namespace) -> int:
    """Exit 0: this command shows, it does not judge."""
    from pipeline.data import sampling
    from pipeline.finished.finished_build import FinishedBuild
    from pipeline.finished.sensitivity import sensitivity

    build = FinishedBuild.open(arguments.directory)
    good, bad = build.stage_files(arguments.stage or build.quantised_stage())
    images = sampling.some(build.test_images(), arguments.samples)
    result = sensitivity(good, bad, images)
    if arguments.json:
        json.dump(result, sys.stdout, indent=1, allow_nan=False)
        sys.stdout.write("\n")
    else:
        sys.stdout.write("\n".join(lines(result, arguments.top)) + "\n")
    return Exit.PASS


def lines(result: dict[str, Any], top: int | None = None) -> Iterator[str]:
    """Two tables, the worst first."""
    tensors = sorted(result["tensors"], key=_same_bits_last)
    yield f"{result['bad']} next to {result['good']} on {result['images']} images"
    yield f"\n{'made by':<28} {'range':>10} {'seen':>10} {'clipped %':>9} {'SQNR dB':>8}  values by octave"
    for row in tensors[:top]:
        yield (
            f"{row['module']:<28} {row['amax']:>10.4g} {row['seen']:>10.4g} {100 * row['clipped']:>9.4f} "
            f"{_db(row['sqnr_db'])}  {_bars(row['octaves'])}"
        )
    yield f"\n{'only this layer quantised':<28} {'SQNR dB':>8} {'agree %':>8}"
    for row in result["layers"][:top]:
        yield f"{row['layer']:<28} {_db(row['sqnr_db'])} {100 * row['top1_agreement']:>8.2f}"


def _same_bits_last(row: dict[str, Any]) -> float:
    return 1e9 if row["sqnr_db"] is None else float(row["sqnr_db"])


def _bars(shares: list[float]) -> str:
    """A bar for each share, the largest of them as high as there is."""
    most = max(shares) or 1
    heights = [round((len(BARS) - 1) * share / most) for share in shares]
    return "".join(BARS[height] for height in heights)


def _db(value: float | None) -> str:
    return f"{'same':>8}" if value is None else f"{value:8.1f}"
