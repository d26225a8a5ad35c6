"""The records that the recipe, the runner and the reports hand to each other. Imports nothing of ours."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path


# What a stage is for. One that has the role `engine` makes what is shipped, all others make graphs on the way to it.
Role = Literal[
    "reference",  # the frozen network, which all others are held against
    "graph",  # the same network, written otherwise
    "recovery",  # other weights that INT8 rounds better
    "quantised",  # Q/DQ pairs
    "typing",  # the types around the pairs, or of all of it
    "input",  # pixels as bytes
    "engine",
]

# A bound in dB that no two different float32 numbers reach: the same bits are asked for.
SAME_BITS = 300.0


@dataclass(frozen=True)
class Tolerance:
    """What a stage may change at most; a bound that is None is not asked for.

    ``sqnr_db`` bounds the median over images against the frozen network, ``step_sqnr_db`` against the file before;
    ``agreement`` is the least share of images with the same top-1 answer as the frozen network; ``drop`` the largest
    loss of top-1 accuracy against it, absolute (0.01 is one point), that its upper bound may reach; each bound holds
    with ``confidence``, and would with ``next_confidence`` at another look (``pipeline.parity.looks``); None: the same.
    ``retrained`` weights may be others: then answers alone judge them.
    """

    sqnr_db: float
    step_sqnr_db: float
    agreement: float
    drop: float | None = None
    confidence: float = 0.95
    retrained: bool = False
    next_confidence: float | None = None


@dataclass(frozen=True)
class Made:
    """What a stage says of its own work: a line for people, and figures for machines."""

    work: str
    int8_share: float | None = None
    details: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Stage:
    """One row of the plan: ``make(source, destination)`` turns a file into a file."""

    name: str
    role: Role
    precision: str  # of the engines that it leads to: a row of pipeline.precisions
    suffix: str
    make: Callable[[Path, Path], Made]
    tolerance: Tolerance
    parameters: Mapping[str, Any] = field(default_factory=dict)
    tools: tuple[str, ...] = ()
    source: str | None = None  # the stage whose file this one reads; None: the one before
    runs_here: bool = True
    may_fall_back: bool = False  # where it fails, its source goes on in its place, and the report says so
    not_proven: str | None = None  # a sentence: what its answers do not show


@dataclass(frozen=True)
class Drift:
    """How far answers moved: over all images the largest absolute and relative difference and the lowest cosine,
    the median SQNR in dB (None when identical), the share of images with the same top-1 answer.
    """  # noqa: D205

    max_abs: float
    max_rel: float
    cosine: float
    sqnr_db: float | None
    top1_agreement: float


@dataclass(frozen=True)
class Accuracy:
    """Shares of ``n`` test images answered rightly, first and among the first five."""

    top1: float
    top5: float
    n: int


@dataclass(frozen=True)
class Drop:
    """The loss of top-1 accuracy on the same images, as a share, with one-sided bounds.

    ``lost`` images are no longer answered rightly and ``gained`` ones newly are.
    """

    value: float
    lower: float
    upper: float
    lost: int
    gained: int


@dataclass
class StageRow:
    """One stage in the ledger, as report.json has it."""

    name: str
    role: Role
    precision: str
    source: str | None = None
    file: str | None = None
    sha256: str | None = None
    bytes: int | None = None
    seconds: float | None = None
    reused: bool = False
    provider: str | None = None
    work: str | None = None
    drift: Drift | None = None
    step: Drift | None = None
    accuracy: Accuracy | None = None
    drop: Drop | None = None
    int8_share: float | None = None
    details: dict[str, Any] = field(default_factory=dict)
    certificate: dict[str, Any] | None = None
    refuted: list[str] = field(default_factory=list)
    fallback: str | None = None
    tolerance: Tolerance | None = None
    verdict: str = "not_run"
    reasons: list[str] = field(default_factory=list)
