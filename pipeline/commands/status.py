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
# The headings of the table, and whether a column holds numbers, which go to the right.
COLUMNS = {"device": False, "group": False, "in use": False, "versions": True, "what is wrong": False}


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

    chosen_devices = devices(arguments)
    rows = asyncio.run(statuses(chosen_devices, access_of(arguments), arguments.parallel))
    if arguments.json:
        json.dump(rows, sys.stdout, indent=1, allow_nan=False)
        sys.stdout.write("\n")
    else:
        well = sum(row["code"] == Exit.PASS for row in rows)
        console = tables.wide_console()
        console.print(tables.table(COLUMNS, map(_cells, rows)))
        console.print(f"{well} of {len(rows)} devices are well")
    return worst(row["code"] for row in rows)


def _cells(row: dict[str, Any]) -> Iterator[str]:
    yield row["device"]
    yield row["group"]
    yield row["active"] or "–"
    yield str(len(row["versions"]))
    yield row["why"]
