"""Whether all that lies in the directory of a finished build is of that very build: report, notes, evidence, page.

It tells of accidents: half a copy, two builds in one directory, a file edited by hand. Whoever means to deceive can
write every hash anew.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from pipeline import workspace
from pipeline.finished import report_json, saved_answers, vectors
from pipeline.finished.mismatch import Mismatch

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pipeline.finished.finished_build import FinishedBuild
    from pipeline.stage import StageRow

CHECK = "same-build"
# What the note of a stage and its row in the report both tell.
BOTH_TELL = ("file", "sha256", "seconds", "work", "int8_share", "details")
# Where the page names the content of its report, in the first bytes of its head.
NAMED_ON_THE_PAGE = re.compile(rb'<meta name="report-content" content="([0-9a-f]{64})">')
HEAD = 4096


def mismatches(build: FinishedBuild) -> Iterator[Mismatch]:
    """What in the directory of ``build``, which is as its report.json has it, is not of this build.

    Raises NotWhole where the report holds what no JSON can.
    """
    for sentence in _of_no_stage(build):
        yield Mismatch(None, CHECK, sentence)
    by_name = {row.name: row for row in build.stages}
    for row in build.stages:
        if row.file is None:
            continue
        for sentence in _of_the_note(build, row, by_name.get(row.source or "")):
            yield Mismatch(row.name, CHECK, sentence)


def _of_no_stage(build: FinishedBuild) -> Iterator[str]:
    try:
        content = report_json.content(build.report)
    except ValueError as error:  # NaN is no JSON, and no figure
        raise build.damaged(error) from error
    if build.content not in (None, content):
        yield f"{report_json.FILE} is not what this build wrote: its content has another hash"
    if build.content is None and (build.evidence_digest is not None or build.note_digests is not None):
        yield f"{report_json.FILE} lacks the hash of its content"
    if build.answers_touched():
        yield f"{saved_answers.FILE} is not what this build wrote"
    for name in vectors.touched(build.directory, build.conformance_digests or {}):
        yield f"{name} is gone or not what this build wrote"
    yield from _of_the_evidence(build)
    yield from _of_the_page(build)
    yield from _strays(build)


def _of_the_evidence(build: FinishedBuild) -> Iterator[str]:
    path = build.directory / report_json.EVIDENCE
    if build.evidence_digest is not None:
        if workspace.other(path, build.evidence_digest) is not None:
            yield f"{path.name} is gone or not what this build wrote"
    # Before there was a hash it named the answers that it belongs to.
    elif path.is_file() and workspace.read_note(path).get("answers") != build.answers_digest:
        yield f"{path.name} is that of another build than {report_json.FILE}"


def _of_the_page(build: FinishedBuild) -> Iterator[str]:
    """A page that is gone is no fault: the command `report` writes it anew."""
    path = build.directory / report_json.PAGE
    if not path.is_file():
        return
    with path.open("rb") as file:
        named = NAMED_ON_THE_PAGE.search(file.read(HEAD))
    content = None if named is None else named.group(1).decode()
    if content != build.content:
        yield f"{path.name} is the page of another report; report {build.directory} writes it anew"


def _strays(build: FinishedBuild) -> Iterator[str]:
    """Files of stages that no row tells of: a build deletes those of the one before it."""
    files = {row.file for row in build.stages}
    for note_path in sorted(build.directory.glob("[0-9][0-9]-*.json")):
        note = workspace.read_note(note_path)
        name = note.get("file")
        if not isinstance(name, str) or name in files or name.split(".")[0] != note_path.stem:
            continue
        # A person's own file may have such a name; only what its note proves was made here.
        if workspace.other(build.directory / name, note.get("sha256")) is None:
            yield f"{name} is of another build: no row of {report_json.FILE} tells of it"


def _of_the_note(build: FinishedBuild, row: StageRow, source: StageRow | None) -> Iterator[str]:
    path = workspace.note_of(build.path(row))
    if build.note_digests is not None:
        changed = workspace.other(path, build.note_digests.get(path.name))
        if changed is not None:
            yield changed
    note = workspace.read_note(path)
    if not note:
        # Where there is a hash it was told above.
        if build.note_digests is None:
            yield f"{path.name} is gone"
        return

    for key in BOTH_TELL:
        told = getattr(row, key)
        if note.get(key) != told:
            yield f"{path.name} has another {key} than the report{_shown(note.get(key), told)}"
    made_of = note.get("key")
    if not isinstance(made_of, dict):
        yield f"{path.name} does not say what {row.file} was made from"
        return
    if made_of.get("stage") != row.name:
        yield f"{path.name} is the note of the stage {made_of.get('stage')}"
    if source is not None and made_of.get("source") != source.sha256:
        yield f"{path.name} tells that {row.file} was made from another file than {source.file}"


def _shown(noted: Any, told: Any) -> str:
    """Both values, where they are short enough for a sentence."""
    if isinstance(noted, dict) or isinstance(told, dict):
        return ""
    return f": {noted}, not {told}"
