"""Progress bars on the terminal's error stream; standard output belongs to the result."""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rich.progress import Progress, Task, TaskID

# Seconds between the lines that a log gets in place of a bar.
PAUSE = 30.0

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

        def show(phase: str, step: int, steps: int) -> None:
            progress.update(task, description=phase, completed=step, total=steps)

        yield show


@contextmanager
def _task(label: str, total: int | None) -> Iterator[tuple[Progress, TaskID]]:
    """A task of the display that is shown, or of a new one where there is none."""
    if _shown:
        progress = _shown[-1]
        task = progress.add_task(label, total=total)
        try:
            yield progress, task
        finally:
            progress.remove_task(task)
        return

    with _display() as progress:
        _shown.append(progress)
        try:
            yield progress, progress.add_task(label, total=total)
        finally:
            _shown.pop()


def _display() -> Progress:
    """Bars where the error stream is a terminal, lines now and then where it is a log."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        ProgressColumn,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )
    from rich.text import Text

    from pipeline.console import news

    class Lines(Progress):
        """No bar but a line now and then, for a log."""

        last_line = time.monotonic()

        def advance(self, task_id: TaskID, advance: float = 1) -> None:
            super().advance(task_id, advance)
            now = time.monotonic()
            if now - self.last_line >= PAUSE:
                self.last_line = now
                news.say(_line(self._tasks[task_id]))

    class Rate(ProgressColumn):
        def render(self, task: Task) -> Text:
            return Text(_rate(task))

    columns = (
        TextColumn("{task.description:<28}"),
        BarColumn(),
        MofNCompleteColumn(),
        Rate(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    console = Console(stderr=True)
    if console.is_terminal:
        return Progress(*columns, console=console, transient=True, disable=not news.heard("info"))
    # Rich counts and times the steps, but draws nothing.
    return Lines(console=console, disable=True)


def _line(task: Task) -> str:
    """``calibrating: 512 of 2000, 14.2 a second, 105 s left``."""
    line = f"{task.description}: {task.completed:.0f}"
    if task.total is not None:
        line += f" of {task.total:.0f}"
    # Rich knows none before the second step.
    if task.speed:
        line += f", {_rate(task)}"
    if task.time_remaining is not None:
        line += f", {task.time_remaining:.0f} s left"
    return line


def _rate(task: Task) -> str:
    if not task.speed:
        return ""
    return f"{task.speed:.1f} a second"
