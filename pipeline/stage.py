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

# The family of subsets that every classifier has; others have the names of the user's columns.
CLASSES = "classes"
# From so many dB between them on the SQNR of the logits is that of an offset which all classes share.
OFFSET_DB = 3.0
# A bound in dB that no two different float32 numbers reach: the same bits are asked for.
SAME_BITS = 300.0


@dataclass(frozen=True)
class Tolerance:
    """What a stage may change at most; a bound that is None is not asked for.

    ``sqnr_db`` bounds the median over images against the frozen network, ``step_sqnr_db`` against the file before;
    ``agreement`` is the least share of images with the same top-1 answer as the frozen network; ``drop`` the largest
    loss of top-1 accuracy against it, absolute (0.01 is one point), that its upper bound may reach; each bound holds
    with ``confidence``, over all looks where ``look`` is the number of this one (``pipeline.parity.looks``); None: they
    are not counted. ``retrained`` weights may be others: then answers alone judge them.

    Where a drop is asked for: ``subset_drop`` is the loss that one class or group may have, None where nobody asked;
    ``threshold`` a softmax that the user acts on, and ``crossed`` the largest share of images that may cross it.
    """

    sqnr_db: float
    step_sqnr_db: float
    agreement: float
    drop: float | None = None
    confidence: float = 0.95
    retrained: bool = False
    subset_drop: float | None = None
    threshold: float | None = None
    crossed: float | None = None
    look: int | None = None


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

    ``centred_db`` is the median SQNR of the logits minus their mean over the classes, to which softmax and argmax are
    blind (None where nothing else differs, or an earlier version wrote it).
    """  # noqa: D205

    max_abs: float
    max_rel: float
    cosine: float
    sqnr_db: float | None
    top1_agreement: float
    centred_db: float | None = None

    @property
    def shown_db(self) -> float | None:
        """The SQNR that people are shown, in dB: the centred one where an offset hides more than OFFSET_DB of it."""
        if self.sqnr_db is None or self.centred_db is None or self.sqnr_db - self.centred_db < OFFSET_DB:
            return self.sqnr_db
        return self.centred_db


@dataclass(frozen=True)
class OwnNoise:
    """What a file keeps of the frozen network: the medians of a Drift, in dB; None where no bit differs."""

    sqnr_db: float | None
    centred_db: float | None


@dataclass(frozen=True)
class Agreement:
    """Of ``n`` distinct images so many have the ``same`` top-1 answer as from the frozen network.

    ``lower`` and ``upper`` are one-sided bounds of that share.
    """

    same: int
    n: int
    lower: float
    upper: float


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


@dataclass(frozen=True)
class Subset:
    """The drop on the ``n`` test images of one class or group, by its ``name``.

    The lower bounds of all subsets of a family hold together with the confidence, and so do the upper ones.
    """

    name: str
    n: int
    lost: int
    gained: int
    value: float
    lower: float
    upper: float


@dataclass(frozen=True)
class Family:
    """All classes of the test images, or all groups of one column: ``count`` subsets of ``least`` to ``most`` images.

    None of them lost more than ``at_most``, with the confidence. One fails that is proven to have lost more than
    ``allowed``: what the user asked for (``asked``), or what nobody could want; ``failed`` are the first few. ``shows``
    is the loss of a subset of median size that would fail 4 times in 5, None where no loss would.
    """

    count: int
    least: int
    most: int
    allowed: float
    asked: bool
    at_most: float
    shows: float | None
    worst: Subset
    failed: list[Subset]
    verdict: str
    reasons: list[str]


@dataclass(frozen=True)
class Noisy:
    """A test image whose logits are among the noisiest: its place, what it is called, and its SQNR in dB."""

    image: int
    name: str
    sqnr_db: float


@dataclass(frozen=True)
class Crossing:
    """Images whose softmax crosses ``threshold``: ``lost`` fell below it, ``gained`` rose to it.

    ``share`` of all crossed it, either way, with one-sided bounds.
    """

    threshold: float
    lost: int
    gained: int
    share: float
    lower: float
    upper: float


@dataclass(frozen=True)
class Spread:
    """What the mean and the median hide, over the distinct test images.

    ``worst_db`` is the worst percentile of the SQNR (None where it is infinite), ``below`` the number of images under
    ``noisy_db``, ``below_upper`` the upper bound of their share. ``noisiest`` are the worst images, by name. ``lead``
    is the median lead of the first logit over the second, ``calibration_error`` the expected calibration error of the
    softmax (Guo et al. 2017, arXiv 1706.04599), each of the network and of this file.
    """

    worst_db: float | None
    noisy_db: float
    below: int
    below_upper: float
    noisiest: list[Noisy]
    lead: list[float]
    calibration_error: list[float]
    crossing: Crossing | None


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
    before: OwnNoise | None = None  # of the file that this one was made from
    agreement: Agreement | None = None
    accuracy: Accuracy | None = None
    drop: Drop | None = None
    spread: Spread | None = None
    subsets: dict[str, Family] = field(default_factory=dict)
    int8_share: float | None = None
    details: dict[str, Any] = field(default_factory=dict)
    certificate: dict[str, Any] | None = None
    refuted: list[str] = field(default_factory=list)
    fallback: str | None = None
    tolerance: Tolerance | None = None
    verdict: str = "not_run"
    reasons: list[str] = field(default_factory=list)

    def stands_beside(self, asked: str) -> bool:
        """Whether it leads to an engine of another precision than the one ``asked`` for, and so never decides."""
        return self.precision not in {"fp32", asked}
