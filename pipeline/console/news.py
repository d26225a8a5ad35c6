"""What is said beside the result: news on the error stream, and a standard output whose reader may leave."""

from __future__ import annotations

import os
import sys
from typing import Any

# What is said on the error stream: all of it, the news and progress bars, or nothing but errors.
LEVELS = ("debug", "info", "error")
# What the user asked for; __main__ sets it.
level = "info"


class Output:
    """Standard output whose reader may leave, as head does: what comes after goes nowhere, and the verdict stays."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        """Whatever else a file has."""
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """As of any file."""
        try:
            return int(self._stream.write(text))
        except BrokenPipeError:
            self._discard_the_rest()
            return len(text)

    def flush(self) -> None:
        """As of any file."""
        try:
            self._stream.flush()
        except BrokenPipeError:
            self._discard_the_rest()

    def _discard_the_rest(self) -> None:
        # Python flushes standard output at exit, and must not complain either: so the file behind it is another one.
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self._stream.fileno())


def heard(line_level: str) -> bool:
    """Whether a line of ``line_level`` is wanted."""
    return LEVELS.index(line_level) >= LEVELS.index(level)


def say(text: str, line_level: str = "info") -> None:
    """One line of news, or of detail at level ``debug``."""
    if heard(line_level):
        sys.stderr.write(text + "\n")
        sys.stderr.flush()
