"""Tables on standard output, as wide as the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from rich.console import Console
    from rich.table import Table

COLOURS = {"pass": "bold green", "fail": "bold red", "undecided": "bold yellow", "not_run": ""}


def wide_console() -> Console:
    """Standard output, as wide as the terminal; a pipe has no width, and a log is read with long lines."""
    import shutil

    from rich.console import Console

    width = None if Console().is_terminal else max(140, shutil.get_terminal_size().columns)
    return Console(width=width, markup=False, emoji=False, highlight=False)


def table(columns: Mapping[str, bool], rows: Iterable[Iterable[str]]) -> Table:
    """A table of ``rows`` under ``columns``, those that are true to the right."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    made = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for heading, right in columns.items():
        made.add_column(heading, justify="right" if right else "left", overflow="fold")
    for row in rows:
        made.add_row(*(Text(cell, COLOURS.get(cell, "")) for cell in row))
    return made
