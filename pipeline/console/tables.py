"""Tables on standard output, as wide as the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from rich.console import Console, JustifyMethod
    from rich.table import Table

# Of a cell that says nothing but a verdict.
COLOURS = {"pass": "bold green", "fail": "bold red", "undecided": "bold yellow", "not_run": ""}


def wide_console() -> Console:
    """Standard output, as wide as the terminal; a pipe has no width, and a log is read with long lines."""
    import shutil

    from rich.console import Console

    width = None
    if not Console().is_terminal:
        width = max(140, shutil.get_terminal_size().columns)
    # What is printed holds names and paths of the user's: nothing in them is markup.
    return Console(width=width, markup=False, emoji=False, highlight=False)


def table(columns: Mapping[str, bool], rows: Iterable[Iterable[str]]) -> Table:
    """A table of ``rows`` under the headings of ``columns``, those that are true to the right."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    drawn = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for heading, is_right in columns.items():
        justify: JustifyMethod = "right" if is_right else "left"
        # Folded rather than cut: a long name stays whole.
        drawn.add_column(heading, justify=justify, overflow="fold")
    for row in rows:
        drawn.add_row(*(Text(cell, COLOURS.get(cell, "")) for cell in row))
    return drawn
