"""What is said beside the result: news on the error stream, and a standard output whose reader may leave."""

from __future__ import annotations

import os
import sys
from typing import Any

# What is said on the error stream: all of it, the news and progress bars, or nothing but errors.
LEVELS = ("debug", "info", "error")
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
            self._left()
            return len(text)

    def flush(self) -> None:
        """As of any file."""
        try:
            self._stream.flush()
        except BrokenPipeError:
            self._left()

    def _left(self) -> None:
        # Python must not complain about it at exit either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), self._stream.fileno())


def heard(said: str) -> bool:
    """Whether what is said at level ``said`` is wanted."""
    return LEVELS.index(said) >= LEVELS.index(level)


def say(text: str, said: str = "info") -> None:
    """One line of news, or of detail at level ``debug``."""
    if heard(said):
        sys.stderr.write(text + "\n")
        sys.stderr.flush()
