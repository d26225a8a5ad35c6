"""Makes, notes, reuses and judges: one file after the other, each loaded afresh."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline import provenance, workspace
from pipeline.errors import PipelineError, StageFailed
from pipeline.parity import answers
from pipeline.parity.consistency import contradictions, sample
from pipeline.parity.drift import accuracy, drift
from pipeline.parity.judge import judge
from pipeline.parity.paired import paired_drop
from pipeline.parity.proof import proof, reasons
from pipeline.report.progress import bar
from pipeline.stage import Row

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from pipeline.data.images import Images
    from pipeline.stage import Made, Stage


# Decibels at which two answers of one file to one image count as the same: its own step bound, within these.
CONSISTENT, REORDERED = 30.0, 90.0
NOTE = {"file", "key", "sha256", "seconds", "work", "int8_share", "details"}


@dataclass
class Build:
    """One build under way; ``reference`` holds the logits of the network in memory."""

    images: Images
    reference: NDArray[np.float32]
    output: Path
    unfinished: Path
    files: dict[str, Path] = field(default_factory=dict)
    # Logits only as long as a later file is compared with them; of the others the top-1 answers.
    logits: dict[str, NDArray[np.float32]] = field(default_factory=dict)
    top1: dict[str, NDArray[np.int32]] = field(default_factory=dict)

    def run(self, stages: list[Stage]) -> Iterator[Row]:
        """Each row as soon as it is judged; ends after one that fails, since what follows would stand on sand."""
        sources = [
            stage.source or before for stage, before in zip(stages, ["", *(s.name for s in stages)], strict=False)
        ]
        for number, (stage, source) in enumerate(zip(stages, sources, strict=True), start=1):
            path = self.output / file_name(number, stage)
            row = _make_or_reuse(stage, self.files.get(source), path, self.unfinished)
            row.source = source or None
            self.files[stage.name] = path
            if stage.runs_here:
                row.certificate = proof(self.files.get(source), path)
                self._judge(stage, row, path, self.logits.get(source, self.reference))
            self.logits = {name: self.logits[name] for name in sources[number:] if name in self.logits}
            yield row
            if row.verdict == "fail":
                return

    def _judge(self, stage: Stage, row: Row, path: Path, before: NDArray[np.float32]) -> None:
        try:
            runner = answers.of_file(path)
            logits = runner.answers(self.images, f"judging {path.name}")
            least = max(CONSISTENT, min(stage.tolerance.step_sqnr_db, REORDERED))
            row.contradictions = contradictions(runner.run, sample(self.images), least)
        except PipelineError:
            raise
        except Exception as error:
            raise StageFailed(
                f"stage {stage.name} made {path.name}, which cannot be run: {workspace.explain(error)}"
            ) from error
        row.provider = runner.provider
        try:
            row.drift, row.step = drift(self.reference, logits), drift(before, logits)
        except ValueError as error:
            row.verdict, row.reasons = "fail", [str(error)]
            return
        labels, tolerance = self.images.labels, stage.tolerance
        self.logits[row.name] = logits
        self.top1[row.name] = logits.argmax(1).astype(np.int32)
        row.accuracy = accuracy(logits, labels)
        row.drop = paired_drop(self.reference.argmax(1) == labels, self.top1[row.name] == labels, tolerance.confidence)
        refuted = reasons(row.certificate, row.contradictions)
        row.verdict, row.reasons = judge(tolerance, row.drift, row.step, row.drop, len(labels), refuted)


def file_name(number: int, stage: Stage) -> str:
    """``05-int8.onnx``."""
    return f"{number:02d}-{stage.name}{stage.suffix}"


def note_of(path: Path) -> Path:
    """The note beside a stage's file: ``05-int8.json``."""
    return path.with_name(path.name.split(".")[0] + ".json")


def _make_or_reuse(stage: Stage, source: Path | None, path: Path, unfinished: Path) -> Row:
    """The row of ``stage`` with its file in place, made now unless its note proves that it is there already."""
    key = _key(stage, source)
    note = workspace.read_note(note_of(path))
    whole = note.keys() >= NOTE and note["key"] == key
    reused = whole and path.is_file() and note["sha256"] == workspace.sha256(path)
    if not reused:
        note = _make(stage, source, path, unfinished, key)
    return Row(
        name=stage.name,
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


def _make(stage: Stage, source: Path | None, path: Path, unfinished: Path, key: dict[str, Any]) -> dict[str, Any]:
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
        workspace.write_json(note_of(path), note, unfinished)
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
    return dict(json.loads(json.dumps(key)))
