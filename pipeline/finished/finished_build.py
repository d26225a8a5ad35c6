"""A finished build found again: its report as a typed record, its files, and the very images that judged it."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from pipeline import workspace
from pipeline.console.news import say
from pipeline.errors import BadRequest
from pipeline.finished import json_records, saved_answers
from pipeline.recipe import Recipe
from pipeline.report.ledger import SCHEMA
from pipeline.stage import Accuracy, Drift, Drop, StageRow, Tolerance

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pipeline.data.images import Images
    from pipeline.finished.saved_answers import SavedAnswers
    from pipeline.stage import Role

REPORT = "report.json"
Verdict = Literal["pass", "fail", "undecided"]


class NotWhole(BadRequest):
    """A report lacks what it should hold; ``reason`` says what."""

    def __init__(self, path: Path, error: Exception) -> None:
        self.reason = repr(error)
        super().__init__(f"{path} is not whole ({self.reason}); build again")


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


@dataclass(frozen=True)
class FinishedBuild:
    """The build in ``directory``, key by key as docs/report.md has them; ``report`` is report.json as plain values.

    ``knobs`` are the fields of its recipe. The last three came with later versions: None in a report before them.
    """

    directory: Path
    report: dict[str, Any]
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
    answers_digest: str | None = None  # SHA-256 of the file that keeps them
    conformance_digests: dict[str, str] | None = None  # of each file of the contract of preprocessing, by name

    @classmethod
    def open(cls, directory: Path) -> FinishedBuild:
        """The build in ``directory``; raises BadRequest where its report is not there or not whole."""
        report = workspace.read_note(directory / REPORT)
        if report.get("schema") != SCHEMA:
            raise BadRequest(
                f"{directory} holds no {REPORT} of schema {SCHEMA}; give the directory of a finished build"
            )
        return cls.of(directory, report)

    @classmethod
    def of(cls, directory: Path, report: dict[str, Any]) -> FinishedBuild:
        """The build in ``directory`` whose report.json holds ``report``; raises NotWhole where that lacks anything."""
        try:
            values = {
                **report,
                "directory": directory,
                "report": report,
                "knobs": _knobs(report["recipe"]),
                "stages": _rows(report),
                "answers_digest": report.get("answers"),
                "conformance_digests": report.get("conformance"),
            }
            return json_records.read(cls, values)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise NotWhole(directory / REPORT, error) from error

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
        return next((row for row in self.engines if row.accuracy is not None), None)

    @property
    def shipped(self) -> StageRow | None:
        """The stage whose answers count: the engine that was judged, else the last stage that was; None without any."""
        if self.judged_engine is not None:
            return self.judged_engine
        judged = [row for row in self.stages if row.accuracy is not None]
        return judged[-1] if judged else None

    def stage(self, name: str) -> StageRow:
        """The row of one stage; raises BadRequest where there is none of that name."""
        for row in self.stages:
            if row.name == name:
                return row
        raise BadRequest(f"{self.directory} has no stage {name}; take one of {', '.join(r.name for r in self.stages)}")

    def path(self, row: StageRow) -> Path:
        """The file that ``row`` made. Always in the directory of the build, whatever its report says."""
        return self.directory / Path(row.file or "").name

    def touched(self) -> list[str]:
        """Which files of the build are not what it wrote, each in a few words."""
        sentences = []
        for row in self.stages:
            why = self._touched(row) if row.file is not None else None
            if why is not None:
                sentences.append(why)
        return sentences

    def _touched(self, row: StageRow) -> str | None:
        return workspace.other(self.path(row), row.sha256)

    def intact(self, row: StageRow) -> Path:
        """The file that ``row`` made; raises BadRequest where it is gone or another."""
        why = self._touched(row)
        if why is not None:
            raise BadRequest(f"{self.directory}: {why}; build again")
        return self.path(row)

    def last_judged(self) -> Path:
        """The last file of the build that was judged; raises BadRequest without one."""
        judged = [row for row in self.stages if row.accuracy is not None]
        if not judged:
            raise BadRequest(f"{self.directory} has no judged file; build again")
        return self.intact(judged[-1])

    def engine_files(self) -> list[tuple[Path, dict[str, Any]]]:
        """Each engine of the precision asked for and the details of its stage.

        Raises BadRequest where there is none, or one is not what was built.
        """
        made = [row for row in self.engines if row.file is not None]
        if not made:
            raise BadRequest(
                f"{self.directory} has no engine, and its verdict is {self.verdict}; check {self.directory} says why"
            )
        return [(self.intact(row), row.details) for row in made]

    def stage_files(self, stage: str | None) -> tuple[Path, Path]:
        """The file that ``stage`` was made from, and the one it made.

        Without a name it is the first stage that failed, else the noisiest. Where a file is not what the build wrote,
        a line says so: it is looked into as it is now. Raises BadRequest where there is no such stage, or its files
        are gone.
        """
        rows = {row.name: row for row in self.stages if row.file is not None}
        comparable = {name: row for name, row in rows.items() if _comparable(row, rows.get(row.source or ""))}
        name = stage or _most_suspect(list(comparable.values()))
        if name is None or name not in comparable:
            names = ", ".join(comparable) or "no stage"
            raise BadRequest(f"--stage {stage}: {self.directory} has {names} to be looked into")

        row = comparable[name]
        source = rows[row.source or ""]
        for looked_into in (source, row):
            why = self._touched(looked_into)
            if why is None:
                continue
            if not self.path(looked_into).is_file():
                raise BadRequest(f"{self.directory}: {why}; build again")
            say(f"{why}: this looks at what it is now")
        return self.path(source), self.path(row)

    def bounds(self, stage: str, **asked: float | None) -> Tolerance:
        """The bounds of ``stage``, with those of ``asked`` that are not None in their place.

        Of the report only the name, role and precision are believed: bounds are this program's own.
        """
        from pipeline.building import plan

        row = self.stage(stage)
        try:
            tolerance = plan.bounds(row.name, row.role, row.precision, self.recipe)
        except KeyError as error:  # a stage or a precision that this version does not know
            raise self.damaged(error) from error
        given: dict[str, Any] = {name: value for name, value in asked.items() if value is not None}
        return replace(tolerance, **given)

    def test_images(self) -> Images:
        """The images that judged the build; raises BadRequest where they are not the same any more."""
        from pipeline.data import sampling, sets

        data = sets.load(self.recipe)
        images = sampling.test(self.recipe, data, data.preprocessing.adjusted(self.recipe))
        if images.digest != self.images.test:
            raise BadRequest(
                f"--data {self.recipe.data} no longer gives the {len(images)} images that judged {self.directory}; "
                "restore them or build again"
            )
        return images

    def read_answers(self) -> SavedAnswers:
        """The saved answers, whether or not they are those of this build; raises BadRequest where none can be read."""
        path = self.directory / saved_answers.FILE
        try:
            return saved_answers.read(path)
        except (OSError, ValueError) as error:
            raise BadRequest(f"{path} cannot be read ({error}); build again") from error

    def saved_answers(self) -> SavedAnswers:
        """The answers that this build saved; raises BadRequest where the file is gone or another."""
        if self.answers_digest is None:
            raise self.damaged(KeyError("answers"))
        if self.answers_touched():
            raise BadRequest(f"{self.directory / saved_answers.FILE} is not what this build wrote; build again")
        return self.read_answers()

    def answers_touched(self) -> bool:
        """Whether the file of the saved answers is there and not the one that this build wrote."""
        path = self.directory / saved_answers.FILE
        return path.is_file() and workspace.sha256(path) != self.answers_digest

    def under(self, **margins: float | None) -> FinishedBuild:
        """The same build as if it had been asked for with the ``margins`` that are not None, in its report as well."""
        given = {name: value for name, value in margins.items() if value is not None}
        return FinishedBuild.of(self.directory, {**self.report, "recipe": {**self.report["recipe"], **given}})

    def judged(self, stages: list[StageRow], verdict: Verdict) -> FinishedBuild:
        """The same build with other rows and another verdict, in its report as well."""
        rows = [asdict(row) for row in stages]
        return replace(self, stages=stages, verdict=verdict, report={**self.report, "verdict": verdict, "stages": rows})

    def damaged(self, error: Exception) -> NotWhole:
        """What is raised where the report lacks what only some commands need."""
        return NotWhole(self.directory / REPORT, error)


def _knobs(asked: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of the recipe that is kept as ``asked``."""
    for knob in fields(Recipe):
        if knob.metadata.get("required") and knob.name not in asked:
            raise KeyError(knob.name)
    knobs = {knob.name: knob.default for knob in fields(Recipe)}  # a knob newer than the build had its default then
    return knobs | json_records.arguments(Recipe, asked)


# The roles of rows that were written before 0.2, which had a name only.
ROLES: dict[str, Role] = {
    "freeze": "reference",
    "export": "graph",
    "simplify": "graph",
    "fold_batchnorm": "graph",
    "equalise": "recovery",
    "qat": "recovery",
    "int8": "quantised",
    "fp8": "quantised",
    "halve": "typing",
    "fp16": "typing",
    "float_weights": "typing",
    "uint8_input": "input",
}


def _with_role(row: Mapping[str, Any], asked_precision: str) -> dict[str, Any]:
    """A row that was written before 0.2, with the role and the precision that its name stood for."""
    name = str(row["name"])
    # What led to a float16 engine beside an 8-bit one had the same names behind this.
    bare_name = name.removeprefix("fp16_")
    role: Role = "engine" if bare_name.startswith("engine") else ROLES[bare_name]

    precision = asked_precision
    if role in {"reference", "graph"}:
        precision = "fp32"
    elif name.startswith("fp16"):
        precision = "fp16"
    return {"name": name, "role": role, "precision": precision, **row}


def _rows(report: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The rows of ``report`` as this version writes them, each of them whole."""
    rows = []
    for row in report["stages"]:
        complete = row if "role" in row else _with_role(row, report["recipe"]["precision"])
        _refuse(complete)
        rows.append(complete)
    return rows


def _refuse(row: Mapping[str, Any]) -> None:
    """Raise KeyError or ValueError where ``row`` lacks what its other keys promise."""
    # A row is written with every key, and a default would hide that one was taken away.
    for field in fields(StageRow):
        if field.name not in row:
            raise KeyError(field.name)

    wanted = ["tolerance"]
    if row["file"] is not None:
        wanted += ["sha256", "bytes", "seconds", "work"]
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


def _comparable(row: StageRow, source: StageRow | None) -> bool:
    """Whether the file of ``row`` can be looked into next to the one that it was made from, piece by piece."""
    if source is None or not str(row.file).endswith(".onnx") or not str(source.file).endswith(".onnx"):
        return False
    # Where channels were rescaled or weights retrained the same name means other values.
    certificate = row.certificate or {}
    return not certificate.get("rescaled") and not certificate.get("retrained")


def _most_suspect(rows: list[StageRow]) -> str | None:
    """The first that failed, else the one that made the most noise."""
    for row in rows:
        if row.verdict == "fail":
            return row.name
    return max(rows, key=_noise).name if rows else None


def _noise(row: StageRow) -> float:
    """That of the step from the file before, so that the largest value is the noisiest; in dB with the sign turned."""
    if row.step is None:
        return 0.0
    # The same bits: less noise than any that can be measured.
    return -1e3 if row.step.sqnr_db is None else -row.step.sqnr_db
