"""Networks with weights that somebody really trained, by every quantiser: ``python -m benchmarks.real``.

Fetches the packages by name, reads their weights and proves the reading, and judges what each quantiser makes of them
in the cells of ``benchmarks.peers``. Prints the tables of docs/results/real.md.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

import platformdirs

from benchmarks.peers import table
from benchmarks.peers import tasks as trained_here
from benchmarks.peers.cell import QUANTISERS, cell
from benchmarks.real import tasks
from benchmarks.real.networks import NETWORKS, ROWS

if TYPE_CHECKING:
    from benchmarks.peers.cell import Task

# Networks of benchmarks.peers beside them, in its plain case.
PEERS_NETWORKS = ("resnet18", "resnext50_32x4d")
# Where more of the energy of the logits than this is common to all classes, their raw SQNR says nothing of the answers.
MOST_OFFSET = 0.5


def agreement(row: dict[str, Any]) -> str:
    """The share of images whose answer is that of float."""
    value, lower, upper = (100 * row[key] for key in ("agreement", "agreement_lower", "agreement_upper"))
    return f"{value:.1f} ({lower:.1f} … {upper:.1f})"


def centred(row: dict[str, Any]) -> str:
    return _median(row, "centred")


def read(row: dict[str, Any]) -> str:
    return _median(row, "read")


def raw(row: dict[str, Any]) -> str:
    return "–" if row["offset"] > MOST_OFFSET else _median(row, "sqnr")


def _median(row: dict[str, Any], name: str) -> str:
    return f"{row[f'{name}_db']:.1f} ({row[f'{name}_lower']:.1f} … {row[f'{name}_upper']:.1f})"


MEASURED = (
    table.Column("agree, % (95 %)", agreement),
    table.Column("SQNR of centred logits, dB (95 %)", centred),
    table.Column("of what the last layer reads", read),
    table.Column("of raw logits", raw),
    table.SHARES,
    table.RTX,
)


def main() -> None:
    names = [*ROWS, *PEERS_NETWORKS]
    cache = Path(platformdirs.user_cache_dir("edge-resnet"))
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, default=cache, help="what is made stands in real/ and peers/ there")
    parser.add_argument("--networks", nargs="+", choices=names, default=names)
    parser.add_argument("--peers", nargs="+", choices=QUANTISERS, default=list(QUANTISERS))
    parser.add_argument("--test-images", type=int, default=1000)
    parser.add_argument("--again", action="store_true", help="our own builds are made anew")
    asked = parser.parse_args()
    for name in asked.networks:
        task = _task(asked.work, name, asked.test_images)
        rows = {peer: cell(task, peer, again=asked.again) for peer in asked.peers}
        print("\n".join(table.lines(_title(name, asked.test_images), _columns(name), rows)), flush=True)
    print(table.tools(asked.work / "peers", asked.peers))


def _task(work: Path, name: str, count: int) -> Task:
    if name in PEERS_NETWORKS:
        return trained_here.task(work / "peers", name, "plain", count)
    return tasks.task(work, name, count)


def _columns(name: str) -> tuple[table.Column, ...]:
    """With the drop where images have labels."""
    has_labels = name in PEERS_NETWORKS or ROWS[name].names_photographs
    return (table.DROP, *MEASURED) if has_labels else MEASURED


def _title(name: str, count: int) -> str:
    if name in PEERS_NETWORKS:
        return f"**{name}**, trained here ({count} test images of Fashion-MNIST)"
    row = ROWS[name]
    network = NETWORKS[row.network]
    said = f"**{name}**, {network.wheel} ({network.licence}), {count} crops"
    said += (
        ", labelled by their photograph" if row.names_photographs else ", labelled by the float network's own answers"
    )
    return f"{said}; **kept out of every choice**" if row.held_out else said


if __name__ == "__main__":
    main()
