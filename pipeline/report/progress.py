"""Progress bars on the terminal's error stream; standard output belongs to the result."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rich.progress import Progress, TaskID

# A terminal has one live display: a bar inside another one joins it.
_shown: list[Progress] = []


@contextmanager
def bar(label: str, total: int | None) -> Iterator[Callable[[], None]]:
    """A bar of ``total`` steps, or one that only shows life; call what it yields once per step."""
    with _task(label, total) as (progress, task):
        yield lambda: progress.advance(task)


@contextmanager
def phases(label: str) -> Iterator[Callable[[str, int, int], None]]:
    """A bar for work of many phases; call what it yields with the phase, its step and its steps."""
    with _task(label, None) as (progress, task):
        yield lambda phase, step, steps: progress.update(task, description=phase, completed=step, total=steps)


@contextmanager
def _task(label: str, total: int | None) -> Iterator[tuple[Progress, TaskID]]:
    if _shown:
        task = _shown[-1].add_task(label, total=total)
        try:
            yield _shown[-1], task
        finally:
            _shown[-1].remove_task(task)
        return
    with _display() as progress:
        _shown.append(progress)
        try:
            yield progress, progress.add_task(label, total=total)
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
    from pipeline.report import terminal

    console = Console(stderr=True)
    return Progress(*columns, console=console, transient=True, disable=terminal.quiet or not console.is_terminal)
