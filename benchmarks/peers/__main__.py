"""Ours against the other quantisers: ``python -m benchmarks.peers [--quick] [--networks …] [--cases …] [--peers …]``.

Every cell (network, case, quantiser) is a JSON file in the work folder, made once: an interrupted run goes on. Prints
the tables of docs/results/peers.md.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import platformdirs

from benchmarks.peers import networks, table, tasks
from benchmarks.peers.cases import CASES
from benchmarks.peers.cell import QUANTISERS, cell
from benchmarks.peers.foreign import PEERS

# Where nothing needs more than the defaults, a build with all in INT8 is the same file.
ASKED = ("edge-resnet", "edge-resnet for ONNX Runtime", *PEERS)
QUICK = 1000


def sqnr(row: dict[str, Any]) -> str:
    """Of the logits, in dB."""
    return f"{row['sqnr_db']:.1f}"


def agreement(row: dict[str, Any]) -> str:
    """The share of images whose answer is that of float."""
    return f"{100 * row['agreement']:.2f}"


COLUMNS = (
    table.DROP, table.Column("agree %", agreement), table.Column("SQNR dB", sqnr), table.SHARES, table.RTX,
)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, default=Path(platformdirs.user_cache_dir("edge-resnet"), "peers"))
    parser.add_argument("--networks", nargs="+", choices=networks.NETWORKS, default=list(networks.NETWORKS))
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--peers", nargs="+", choices=QUANTISERS, default=list(ASKED))
    parser.add_argument("--test-images", type=int, default=10_000)
    parser.add_argument("--quick", action="store_true", help=f"{QUICK} test images")
    parser.add_argument("--again", action="store_true", help="our own builds are made anew")
    asked = parser.parse_args()
    count = QUICK if asked.quick else asked.test_images
    for arch in asked.networks:
        for case in asked.cases:
            task = tasks.task(asked.work, arch, case, count)
            rows = {peer: cell(task, peer, again=asked.again) for peer in asked.peers}
            title = f"**{arch}, {case}** ({count} test images)"
            print("\n".join(table.lines(title, COLUMNS, rows)), flush=True)
    print(table.tools(asked.work, asked.peers))


if __name__ == "__main__":
    main()
