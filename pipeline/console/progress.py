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
        ProgressColumn,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )
    from rich.text import Text

    from pipeline.console import news

    class Lines(Progress):
        """No bar but a line now and then, for a log."""

        spoke = time.monotonic()

        def advance(self, task_id: TaskID, advance: float = 1) -> None:
            super().advance(task_id, advance)
            if (now := time.monotonic()) - self.spoke >= PAUSE:
                self.spoke = now
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
    return Lines(console=console, disable=True)


def _line(task: Task) -> str:
    """``calibrating: 512 of 2000, 14.2 a second, 105 s left``."""
    of = "" if task.total is None else f" of {task.total:.0f}"
    rate = f", {_rate(task)}" if task.speed else ""
    left = "" if task.time_remaining is None else f", {task.time_remaining:.0f} s left"
    return f"{task.description}: {task.completed:.0f}{of}{rate}{left}"


def _rate(task: Task) -> str:
    return f"{task.speed:.1f} a second" if task.speed else ""
