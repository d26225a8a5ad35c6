"""``python -m pipeline status``: what every device runs, in one table."""

from __future__ import annotations

import asyncio
import json
import sys
from typing import TYPE_CHECKING, Any

from pipeline.errors import Exit

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

HELP = "what the devices of an inventory run, and whether they may"


def add_flags(parser: argparse.ArgumentParser) -> None:
    """The flags of this command."""
    from pipeline.commands.ship import add_access

    add_access(parser)
    parser.add_argument("--json", action="store_true", help="print the table as JSON")


def run(arguments: argparse.Namespace) -> int:
    """Exit 0 where each has a verified version in use, 1 where one has not, 3 where one could not be asked."""
    from pipeline.commands.ship import access_of, devices
    from pipeline.console import tables
    from pipeline.ship.fleet import statuses, worst

    rows = asyncio.run(statuses(devices(arguments), access_of(arguments), arguments.parallel))
    if arguments.json:
        json.dump(rows, sys.stdout, indent=1, allow_nan=False)
        sys.stdout.write("\n")
    else:
        console = tables.wide_console()
        heads = ("device", "group", "in use", "versions", "what is wrong")
        console.print(tables.table({head: head == "versions" for head in heads}, map(_cells, rows)))
        console.print(f"{sum(row['code'] == Exit.PASS for row in rows)} of {len(rows)} devices are well")
    return worst(row["code"] for row in rows)


def _cells(row: dict[str, Any]) -> Iterator[str]:
    yield from (row["device"], row["group"], row["active"] or "–", str(len(row["versions"])), row["why"])
