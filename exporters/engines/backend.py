"""What an engine backend is: its facts, what it can do, and the records that it answers with."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from exporters.engines.description import EngineDescription

# Told the name of a builder's phase, how many of its steps are done, and how many there are.
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class BuiltEngine:
    """What is known of an engine that was just built.

    ``eight_bit_convolutions`` are those of its ``convolutions`` that compute in 8 bits; None where nothing is quantised
    or where the builder does not tell. ``warnings`` are sentences for whoever answers for the engine. ``description``
    is EngineDescription.to_json() where it must be kept, since the file alone does not give it. ``work`` says what was
    done, where that is not just the building.
    """

    convolutions: int
    eight_bit_convolutions: int | None
    warnings: tuple[str, ...] = ()
    description: dict[str, Any] | None = None
    work: str | None = None


@dataclass(frozen=True)
class LoadedEngine:
    """An engine that answers, and what computes it, as report.json names it.

    ``run`` turns images (n, C, H, W) float32 0..255 into logits (n, classes) float32.
    """

    run: Callable[[NDArray[np.float32]], NDArray[np.float32]]
    provider: str


class Backend(Protocol):
    """One way to make an engine of an ONNX file.

    Each module of this package has a class of it, and the one object of that class as ``BACKEND``.
    """

    # As --engine, report.json and the names of stages have it.
    name: ClassVar[str]
    # Of the files that it writes. Of two backends that run here none has the other's: it tells how a file is opened.
    suffix: ClassVar[str]
    # Distributions of Python whose versions an engine depends on.
    packages: ClassVar[tuple[str, ...]]
    # Whether what it builds can be run on the machine that builds it, and so be judged.
    runs_here: ClassVar[bool]
    # The placements of Q/DQ pairs that it reads.
    placements: ClassVar[tuple[str, ...]]
    # What it takes of a recipe's knobs, and of a precision ``precision`` (its name), ``typing`` and ``weak_flags``.
    options: ClassVar[tuple[str, ...]] = ()
    # Whether FP16 is built beside 8 bits, since it may be the faster.
    beside: ClassVar[bool] = False
    # The GPUs that it builds for without having them, as --rtx-sm names them, and the types of their units.
    targets: ClassVar[Mapping[str, tuple[str, ...]]] = {}
    # A sentence: what the file that it writes does not show.
    not_proven: ClassVar[str | None] = None

    def available(self) -> str | None:
        """Why this backend cannot be used here, or None."""

    def machine(self) -> str | None:
        """What an engine depends on of this machine; None where it depends on nothing."""

    def made_for(self) -> dict[str, str | None] | None:
        """Where an engine that is built here loads, and nowhere else.

        None where to open the file is safe. Any other is opened only where a seal proves who built it: to open it is to
        run what it holds.
        """
        return None

    def build(
        self, src: Path, dst: Path, options: Mapping[str, Any] | None = None, progress: Progress | None = None
    ) -> BuiltEngine:
        """Make the engine ``dst`` of the ONNX file ``src``; raises an error in the builder's own words."""

    def load(self, path: Path) -> LoadedEngine:
        """The engine in ``path``, to be run; raises ValueError where this backend runs nothing here."""

    def describe(self, path: Path, details: Mapping[str, Any] | None = None) -> EngineDescription:
        """What the engine in ``path`` is made of; raises ValueError where that cannot be told.

        ``details`` are those of its stage in report.json, None where nothing but the file is given.
        """
