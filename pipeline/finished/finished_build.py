"""A finished build found again: its report as a typed record, its files, and the very images that judged it."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline import bounds, workspace
from pipeline.console.news import say
from pipeline.errors import BadRequest
from pipeline.finished import json_records, report_json, saved_answers
from pipeline.finished.mismatch import Mismatch
from pipeline.finished.report_json import Report

if TYPE_CHECKING:
    from pipeline.data.images import Images
    from pipeline.finished.report_json import Verdict
    from pipeline.finished.saved_answers import SavedAnswers
    from pipeline.parity.figures import TestSet
    from pipeline.stage import StageRow, Tolerance


class NotWhole(BadRequest):
    """A report lacks what it should hold; ``reason`` says what."""

    def __init__(self, path: Path, error: Exception) -> None:
        self.reason = repr(error)
        super().__init__(f"{path} is not whole ({self.reason}); build again")


@dataclass(frozen=True, kw_only=True)
class FinishedBuild(Report):
    """The build in ``directory``: its report, and the files that it tells of.

    ``report`` is report.json as plain values, for whoever prints it, and ``mismatches`` what a check of it found.
    """

    directory: Path
    report: dict[str, Any]
    mismatches: list[Mismatch] = field(default_factory=list[Mismatch])

    @classmethod
    def open(cls, directory: Path) -> FinishedBuild:
        """The build in ``directory``; raises BadRequest where its report is not there or not whole."""
        report = workspace.read_note(directory / report_json.FILE)
        if report.get("schema") != report_json.SCHEMA:
            raise BadRequest(
                f"{directory} holds no {report_json.FILE} of schema {report_json.SCHEMA}; "
                "give the directory of a finished build"
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
                "knobs": report_json.knobs(report["recipe"]),
                "stages": report_json.rows(report),
                "answers_digest": report.get("answers"),
                "conformance_digests": report.get("conformance"),
                "evidence_digest": report.get("evidence"),
                "note_digests": report.get("notes"),
            }
            return json_records.read(cls, values)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise NotWhole(directory / report_json.FILE, error) from error

    def stage(self, name: str) -> StageRow:
        """The row of one stage; raises BadRequest where there is none of that name."""
        for row in self.stages:
            if row.name == name:
                return row
        raise BadRequest(f"{self.directory} has no stage {name}; take one of {', '.join(r.name for r in self.stages)}")

    def path(self, row: StageRow) -> Path:
        """The file that ``row`` made, always in the directory of the build."""
        # Whoever wrote the report can write any path there.
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

    def quantised_stage(self) -> str:
        """The name of the stage that wrote Q/DQ pairs; raises BadRequest where the build has none."""
        for row in self.stages:
            if row.role == "quantised":
                return row.name
        raise BadRequest(f"{self.directory} has no quantised stage; give the directory of an int8 or fp8 build")

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
        row = self.stage(stage)
        try:
            tolerance = bounds.bounds(row.name, row.role, row.precision, self.recipe)
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

    def test_set(self, answers: SavedAnswers) -> TestSet:
        """What ``answers`` are judged on; raises BadRequest where the report does not name their groups."""
        groups = self.groups or {}
        for column, codes in answers.groups.items():
            if len(codes) and not 0 <= codes.min() <= codes.max() < len(groups.get(column, [])):
                raise self.damaged(KeyError(f"groups {column}"))
        if len(answers.labels) and not 0 <= answers.labels.min() <= answers.labels.max() < len(self.classes):
            raise self.damaged(ValueError(f"labels up to {answers.labels.max()} of {len(self.classes)} classes"))
        names = {noisy.image: noisy.name for row in self.stages if row.spread for noisy in row.spread.noisiest}
        return answers.test_set(self.classes, groups, names)

    def answers_touched(self) -> bool:
        """Whether the file of the saved answers is there and not the one that this build wrote."""
        path = self.directory / saved_answers.FILE
        return path.is_file() and workspace.sha256(path) != self.answers_digest

    def under(self, **margins: float | None) -> FinishedBuild:
        """The same build as if it had been asked for with the ``margins`` that are not None, in its report as well."""
        given = {name: value for name, value in margins.items() if value is not None}
        return FinishedBuild.of(self.directory, {**self.report, "recipe": {**self.report["recipe"], **given}})

    def judged(self, stages: list[StageRow], verdict: Verdict, mismatches: list[Mismatch]) -> FinishedBuild:
        """The same build with other rows and another verdict, in its report as well, and what a check of it found."""
        rows = [asdict(row) for row in stages]
        report = {**self.report, "verdict": verdict, "stages": rows}
        return replace(self, stages=stages, verdict=verdict, report=report, mismatches=mismatches)

    def damaged(self, error: Exception) -> NotWhole:
        """What is raised where the report lacks what only some commands need."""
        return NotWhole(self.directory / report_json.FILE, error)


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
