"""report.json as it is written: the records that it is made of, and the rows of versions before this one."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, fields
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from pipeline.finished import json_records
from pipeline.recipe import Recipe
from pipeline.rows import ROLES, SHARED_ROLES
from pipeline.stage import StageRow, Subset

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pipeline.stage import Accuracy, Drift, Drop, Role, Tolerance

FILE = "report.json"
# What stands beside it for people: what the page shows beyond the report, and the page.
EVIDENCE = "evidence.json"
PAGE = "report.html"
# Of what is written; a report of another one is refused.
SCHEMA = 1
Verdict = Literal["pass", "fail", "undecided"]


@dataclass(frozen=True)
class Sources:
    """The sentences that say which data and which weights were used."""

    data: str
    weights: str


@dataclass(frozen=True)
class ImageDigests:
    """SHA-256 over the pixels and labels of the images that calibrated and of those that judged."""

    calibration: str
    test: str


@dataclass(frozen=True)
class Environment:
    """The machine and the tools; ``versions`` are None where a tool was not installed."""

    pipeline: str
    python: str
    platform: str
    cpu: str
    cores: int
    gpu: str | None
    commit: str | None
    versions: dict[str, str | None]


@dataclass(frozen=True)
class Speed:
    """The time of ``engine`` over that of ``next_to`` at ``batch`` images a run, with the bounds of that ratio."""

    engine: str
    next_to: str
    batch: int
    value: float
    lower: float
    upper: float


class Measured(NamedTuple):
    """What running a file gave, and the bounds that it was held to: all there, or none."""

    drift: Drift
    step: Drift
    accuracy: Accuracy
    drop: Drop
    tolerance: Tolerance


def measured(row: StageRow) -> Measured | None:
    """What running the file of ``row`` gave; None where it did not run, or its answers were no numbers."""
    if row.drift is None or row.step is None or row.accuracy is None or row.drop is None or row.tolerance is None:
        return None
    return Measured(row.drift, row.step, row.accuracy, row.drop, row.tolerance)


@dataclass(frozen=True, kw_only=True)
class Report:
    """report.json, key by key as docs/report.md has them; ``knobs`` are the fields of its recipe.

    Those with a default came with later versions: None in a report before them.
    """

    knobs: dict[str, Any]
    stages: list[StageRow]
    verdict: Verdict
    error: str | None
    sources: Sources
    images: ImageDigests
    preprocessing: dict[str, Any]
    classes: list[str]
    environment: Environment
    not_proven: list[str]
    speed: Speed | None = None
    groups: dict[str, list[str]] | None = None  # by column of --groups, in the order of the codes that are kept
    subsets: dict[str, list[Subset]] | None = None  # of what is shipped, every class and group, the worst first
    answers_digest: str | None = None  # SHA-256 of the file that keeps them
    conformance_digests: dict[str, str] | None = None  # of each file of the contract of preprocessing, by name
    warnings: list[str] | None = None
    evidence_digest: str | None = None  # of evidence.json
    note_digests: dict[str, str] | None = None  # of the note beside each stage's file, by name
    content: str | None = None  # SHA-256 of all the rest of the report

    @cached_property
    def recipe(self) -> Recipe:
        """What was asked for.

        Made when it is asked for, since a recipe refuses what cannot be built here and now, such as a calibration
        cache that became a folder; a report can be shown and compared all the same.
        """
        return Recipe(**self.knobs)

    @property
    def arch(self) -> str:
        """The full name of the architecture."""
        return str(self.knobs["arch"])

    @property
    def precision(self) -> str:
        """The precision that was asked for; an engine of another one stands beside those asked for."""
        return str(self.knobs["precision"])

    @property
    def data(self) -> str:
        """The data set, or its folder."""
        return str(self.knobs["data"])

    @property
    def max_drop(self) -> float:
        """The loss of top-1 that is allowed, as a share."""
        return float(self.knobs["max_drop"])

    @property
    def confidence(self) -> float:
        """That of each bound of the change in top-1."""
        return float(self.knobs["confidence"])

    @property
    def engines(self) -> list[StageRow]:
        """The engines in the precision that was asked for, the one that runs here first."""
        return [row for row in self.stages if row.role == "engine" and row.precision == self.precision]

    @property
    def judged_engine(self) -> StageRow | None:
        """The engine that was judged, of the precision asked for; None where none was."""
        return _judged_engine(self.stages, self.precision)

    @property
    def shipped(self) -> StageRow | None:
        """The stage whose answers count: the engine that was judged, else the last stage that was; None without any."""
        return shipped(self.stages, self.precision)


def shipped(rows: Sequence[StageRow], precision: str) -> StageRow | None:
    """The stage of a build in ``precision`` whose answers count, as ``Report.shipped`` says it."""
    judged = [row for row in rows if row.accuracy is not None and not row.stands_beside(precision)]
    last = judged[-1] if judged else None
    return _judged_engine(rows, precision) or last


def _judged_engine(rows: Sequence[StageRow], precision: str) -> StageRow | None:
    for row in rows:
        if row.role == "engine" and row.precision == precision and row.accuracy is not None:
            return row
    return None


def content(report: Mapping[str, Any]) -> str:
    """SHA-256 of what ``report`` holds beside its key ``content``, as JSON with sorted keys and no white space.

    Raises ValueError where it holds NaN or infinity, which are no JSON.
    """
    # As it is read back from a file: JSON knows no tuples, and all its keys are text.
    told = json.loads(json.dumps({key: value for key, value in report.items() if key != "content"}, allow_nan=False))
    text = json.dumps(told, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def knobs(kept: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of the recipe that the report holds as ``kept``."""
    for knob in fields(Recipe):
        if knob.metadata.get("required") and knob.name not in kept:
            raise KeyError(knob.name)
    # A knob that is newer than the build had its default then.
    values = {knob.name: knob.default for knob in fields(Recipe)}
    return values | json_records.arguments(Recipe, kept)


def _with_role(row: Mapping[str, Any], asked_precision: str) -> dict[str, Any]:
    """A row that was written before 0.2, with the role and the precision that its name stood for."""
    name = str(row["name"])
    # What led to a float16 engine beside an 8-bit one had the same names behind this.
    bare_name = name.removeprefix("fp16_")
    role: Role = "engine" if bare_name.startswith("engine") else ROLES[bare_name]

    precision = asked_precision
    if role in SHARED_ROLES:
        precision = "fp32"
    elif name.startswith("fp16"):
        precision = "fp16"
    return {"name": name, "role": role, "precision": precision, **row}


def rows(report: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The rows of ``report`` as this version writes them, each of them whole."""
    complete_rows = []
    # Of a row that is written now every key is asked for.
    newer: dict[str, Any] = {} if "subsets" in report else {"spread": None, "subsets": {}}
    if not any("agreement" in row for row in report["stages"]):
        newer |= {"before": None, "agreement": None}
    for written in report["stages"]:
        row = {**newer, **written}
        complete = row if "role" in row else _with_role(row, report["recipe"]["precision"])
        _refuse(complete)
        complete_rows.append(complete)
    return complete_rows


def _refuse(row: Mapping[str, Any]) -> None:
    """Raise KeyError or ValueError where ``row`` lacks what its other keys promise."""
    # A row is written with every key, and a default would hide that one was taken away.
    for field in fields(StageRow):
        if field.name not in row:
            raise KeyError(field.name)

    wanted = ["tolerance"]
    if row["file"] is not None:
        wanted += ["sha256", "bytes", "seconds", "work"]
    # All four come of one run of the file.
    figures = ("drift", "step", "accuracy", "drop")
    if any(row[figure] is not None for figure in figures):
        wanted += figures
    for key in wanted:
        if row[key] is None:
            raise ValueError(f"{row['name']} has no {key}")

    # Sizes and counts that others are divided by.
    if row["file"] is not None and not row["bytes"] > 0:
        raise ValueError(f"{row['name']} has {row['bytes']} bytes")
    if row["accuracy"] is not None and not row["accuracy"]["n"] > 0:
        raise ValueError(f"{row['name']} was judged on {row['accuracy']['n']} images")
