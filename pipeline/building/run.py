"""Makes or reuses one file after the other, notes what it was made from, loads it afresh, and judges it."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from pipeline import provenance, workspace
from pipeline.console import news
from pipeline.console.progress import bar
from pipeline.errors import PipelineError, StageFailed
from pipeline.finished.looks import Looks, Question
from pipeline.finished.saved_answers import SavedAnswers
from pipeline.parity.examine import examine
from pipeline.rows import file_name
from pipeline.stage import Made, StageRow

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from pipeline.data.images import Images
    from pipeline.parity.figures import TestSet
    from pipeline.parity.per_image import PerImage
    from pipeline.stage import Stage

# The keys of a whole note.
NOTE = {"file", "key", "sha256", "seconds", "work", "int8_share", "details"}


@dataclass
class Build:
    """One build under way.

    ``images`` are those that judge, as ``test_set`` has them. Files are made in ``unfinished`` and moved to ``output``
    when they are whole. ``looks`` are those before this one. ``files`` has the path of each stage's file, and
    ``network`` is the SHA-256 of the frozen one, empty before there is any. Stages of the precision ``asked`` for
    decide; what stands beside does not.
    """

    images: Images
    test_set: TestSet
    asked: str
    output: Path
    unfinished: Path
    looks: Looks = field(default_factory=Looks)
    files: dict[str, Path] = field(default_factory=dict)
    network: str = ""
    # Logits only as long as a later file is compared with them; of the others what is kept of each image.
    logits: dict[str, NDArray[np.float32]] = field(default_factory=dict)
    kept: dict[str, PerImage] = field(default_factory=dict)

    def run(self, stages: list[Stage]) -> Iterator[StageRow]:
        """Each row as soon as it is judged; ends after one that fails, since what follows would stand on sand."""
        sources = _sources(stages)
        for number, (stage, source) in enumerate(zip(stages, sources, strict=True), start=1):
            path = self.output / file_name(number, stage.name, stage.suffix)
            try:
                row = self._row(stage, source, path)
            except StageFailed as error:
                row = _not_made(stage, error)
                # What stands beside never decides: its engine is missing, and that is all.
                if not row.stands_beside(self.asked):
                    raise
            if row.file is not None:
                self.files[stage.name] = path
            # Only the logits that a stage to come is compared with are kept.
            self.logits = {name: self.logits[name] for name in sources[number:] if name in self.logits}
            yield row
            if row.verdict == "fail":
                return

    def answers(self) -> SavedAnswers:
        """What is saved of the answers."""
        return SavedAnswers.of(self.test_set, self.kept)

    def _row(self, stage: Stage, source: str, path: Path) -> StageRow:
        """The row of ``stage``; where it fails and may be passed over, that of a stage that changes nothing."""
        try:
            row = self._judged(stage, source, path)
        except StageFailed as error:
            if not stage.may_fall_back:
                raise
            failure = str(error)
        else:
            if row.verdict != "fail" or not stage.may_fall_back:
                return row
            failure = "; ".join(row.reasons)
        # With the reason in its key, the next build tries the real stage again.
        parameters = {**stage.parameters, "fallback": failure}
        unchanged = replace(stage, make=_unchanged, parameters=parameters)
        row = self._judged(unchanged, source, path)
        row.fallback = failure
        return row

    def _judged(self, stage: Stage, source: str, path: Path) -> StageRow:
        """The row of ``stage`` with its file in place, and its verdict where the file can run here."""
        origin = self.files.get(source)
        row = _make_or_reuse(stage, origin, path, self.unfinished)
        row.source = source or None
        if stage.role == "reference":
            self.network = str(row.sha256)
        row.tolerance = replace(stage.tolerance, look=self.looks.next(Question(self.network)))
        if not stage.runs_here:
            return row

        before = self.logits.get(source)
        examined = examine(row, path, origin, self.images, self.test_set, before, self.kept.get(source))
        if examined is not None:
            self.logits[stage.name] = examined.logits
            self.kept[stage.name] = examined.kept
        return row


def _sources(stages: list[Stage]) -> list[str]:
    """The name of the stage whose file each one reads: the one before, where it names none; "" of the first."""
    sources = []
    before = ""
    for stage in stages:
        sources.append(stage.source or before)
        before = stage.name
    return sources


def _not_made(stage: Stage, error: StageFailed) -> StageRow:
    """The row of a stage that could not make its file."""
    row = StageRow(stage.name, stage.role, stage.precision, tolerance=stage.tolerance)
    row.verdict = "fail"
    row.reasons = [str(error)]
    return row


def _unchanged(src: Path, dst: Path) -> Made:
    """The stage that stands in for one that failed and may be passed over."""
    dst.write_bytes(src.read_bytes())
    return Made(f"nothing: {src.name} goes on as it was")


def _make_or_reuse(stage: Stage, source: Path | None, path: Path, unfinished: Path) -> StageRow:
    """The row of ``stage`` with its file in place, made now unless its note proves that it is there already."""
    key = _key(stage, source)
    note = workspace.read_note(workspace.note_of(path))
    is_whole = note.keys() >= NOTE
    reused = is_whole and note["key"] == key and path.is_file() and note["sha256"] == workspace.sha256(path)
    news.say(f"{path.name}: {_why(note, key, reused=reused)}", "debug")
    if not reused:
        note = _make(stage, source, path, unfinished, key)
    return StageRow(
        name=stage.name,
        role=stage.role,
        precision=stage.precision,
        file=path.name,
        sha256=note["sha256"],
        bytes=path.stat().st_size,
        seconds=note["seconds"],
        reused=reused,
        work=note["work"],
        int8_share=note["int8_share"],
        details=note["details"],
        tolerance=stage.tolerance,
    )


def _why(note: dict[str, Any], key: dict[str, Any], *, reused: bool) -> str:
    """Why a file is made, or that it is there."""
    if reused:
        return "is there, of the same content and makers"
    before = note.get("key")
    if not isinstance(before, dict):
        return "made, since no note tells of it"
    changed = [name for name in key if before.get(name) != key[name]]
    return f"made again, since its {' and '.join(changed) or 'content'} changed"


def _make(stage: Stage, source: Path | None, path: Path, unfinished: Path, key: dict[str, Any]) -> dict[str, Any]:
    """Make the file and put it into its place, then its note, which is returned."""
    fresh = unfinished / path.name
    started = time.perf_counter()
    try:
        with bar(f"making {path.name}", None):
            made: Made = stage.make(source or path, fresh)
        note = {
            "file": path.name,
            "key": key,
            "sha256": workspace.sha256(fresh),
            "seconds": round(time.perf_counter() - started, 3),
            "work": made.work,
            "int8_share": made.int8_share,
            "details": made.details,
        }
        workspace.place(fresh, path)
        workspace.write_json(workspace.note_of(path), note, unfinished)
    except (PipelineError, ModuleNotFoundError):
        raise
    except Exception as error:
        origin = f" from {source.name}" if source else ""
        raise StageFailed(
            f"stage {stage.name} could not make {path.name}{origin}: {workspace.explain(error)}"
        ) from error
    return note


def _key(stage: Stage, source: Path | None) -> dict[str, Any]:
    """Everything that the content of the file depends on."""
    key = {
        "stage": stage.name,
        "parameters": dict(stage.parameters),
        "source": workspace.sha256(source) if source else None,
        "code": provenance.source_hash(),
        "versions": provenance.versions(stage.tools),
    }
    # As it is read back from a note, so that the two can be compared: JSON knows no tuples.
    return dict(json.loads(json.dumps(key)))
