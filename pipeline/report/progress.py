"""Progress bars on the terminal's error stream; standard output belongs to the result."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rich.progress import Progress

# A terminal has one live display: a bar inside another one joins it.
_shown: list[Progress] = []


@contextmanager
def bar(label: str, total: int | None) -> Iterator[Callable[[], None]]:
    """A bar of ``total`` steps, or one that only shows life; call what it yields once per step."""
    if _shown:
        task = _shown[-1].add_task(label, total=total)
        try:
            yield lambda: _shown[-1].advance(task)
        finally:
            _shown[-1].remove_task(task)
        return
    with _display() as progress:
        _shown.append(progress)
        try:
            task = progress.add_task(label, total=total)
            yield lambda: progress.advance(task)
        finally:
            _shown.pop()


def _display() -> Progress:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description:<28}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    console = Console(stderr=True)
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
