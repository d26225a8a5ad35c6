"""Where the report of a build tells one thing, and its files or its recipe another."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Mismatch:
    """What the ``check`` of a stage found, in a ``sentence``; ``stage`` is None where it is the whole build's."""

    stage: str | None
    check: str
    sentence: str
