"""Whether all files of a finished build are of one network: its classes, and how it wants its images."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from pipeline import workspace
from pipeline.data import conformance
from pipeline.finished import report_json
from pipeline.finished.mismatch import Mismatch

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from exporters.onnx_glance import Glance
    from pipeline.finished.finished_build import FinishedBuild
    from pipeline.stage import StageRow

CHECK = "network"
RECORD = f"{conformance.FOLDER}/{conformance.RECORD}"
# Of the frozen file, and of the metadata of every graph.
KEYS = ("classes", "preprocessing")
# Classes that a sentence shows, from where two lists of them part.
SHOWN = 3


def mismatches(build: FinishedBuild, whole: list[StageRow], glances: Mapping[str, Glance]) -> Iterator[Mismatch]:
    """Where a file of ``build`` tells of another network than the frozen one.

    ``whole`` are the rows whose files are those that were judged, and ``glances`` those of the ONNX files, by stage.
    """
    frozen_row = next((row for row in whole if row.role == "reference"), None)
    if frozen_row is None:
        return
    path = build.path(frozen_row)
    frozen = _frozen(path)
    if frozen is None:
        yield Mismatch(frozen_row.name, CHECK, f"{path.name} does not say which network it holds")
        return

    weights = _noted_weights(path)
    if weights is not None and weights != frozen.get("sha256"):
        yield Mismatch(frozen_row.name, CHECK, f"{path.name} holds other weights than its note tells of")
    told = {"arch": build.arch, "classes": build.classes, "preprocessing": build.preprocessing}
    for sentence in _apart(report_json.FILE, told, path.name, frozen):
        yield Mismatch(frozen_row.name, CHECK, sentence)
    for sentence in _apart(RECORD, _record(build), path.name, frozen):
        yield Mismatch(frozen_row.name, CHECK, sentence)
    for row in whole:
        if row.name not in glances:
            continue
        for sentence in _apart(str(row.file), _metadata(row, glances[row.name]), path.name, frozen):
            yield Mismatch(row.name, CHECK, sentence)


def frozen_weights(build: FinishedBuild) -> str | None:
    """The digest of the frozen weights of ``build``; None where their file is gone, or does not tell it."""
    for row in build.stages:
        if row.role == "reference" and row.file is not None:
            return (_frozen(build.path(row)) or {}).get("sha256")
    return None


def _frozen(path: Path) -> dict[str, Any] | None:
    """What the frozen file says of its network, without its weights; None where it says nothing."""
    import safetensors

    try:
        with safetensors.safe_open(path, "np") as file:
            record = json.loads(file.metadata()["network"])
    except (safetensors.SafetensorError, OSError, KeyError, TypeError, ValueError):
        return None
    return record if isinstance(record, dict) else None


def _noted_weights(path: Path) -> str | None:
    """The digest of the weights that the note of the frozen file ``path`` has among what it was made from."""
    made_of = workspace.read_note(workspace.note_of(path)).get("key")
    parameters = made_of.get("parameters") if isinstance(made_of, dict) else None
    return parameters.get("weights") if isinstance(parameters, dict) else None


def _record(build: FinishedBuild) -> dict[str, Any]:
    """What the contract of preprocessing says; nothing where there is none."""
    record = workspace.read_note(build.directory / conformance.FOLDER / conformance.RECORD)
    return {"preprocessing": record["preprocessing"]} if "preprocessing" in record else {}


def _metadata(row: StageRow, glance: Glance) -> dict[str, Any]:
    """The keys of a graph's metadata that say which network it is; what is no JSON stays the text that it is."""
    told = {}
    for key in KEYS:
        text = glance.metadata.get(key, "null")
        # Not every version of a runtime keeps them in what it compiles.
        if row.role == "engine" and key not in glance.metadata:
            continue
        try:
            told[key] = json.loads(text)
        except ValueError:
            told[key] = text
    return told


def _apart(name: str, told: Mapping[str, Any], frozen_name: str, frozen: Mapping[str, Any]) -> Iterator[str]:
    """Where what the file ``name`` told is not what the frozen network says."""
    for key, value in told.items():
        expected = frozen.get(key)
        if value == expected:
            continue
        if isinstance(value, dict) and isinstance(expected, dict):
            yield from _keys_apart(f"the {key} of {name}", value, frozen_name, expected)
        elif isinstance(value, list) and isinstance(expected, list):
            yield f"the {key} of {name} {_items_apart(value, frozen_name, expected)}"
        else:
            yield f"the {key} of {name} is {value}, and that of {frozen_name} {expected}"


def _keys_apart(what: str, value: dict[str, Any], frozen_name: str, expected: dict[str, Any]) -> Iterator[str]:
    for key in sorted({*value, *expected}):
        if value.get(key) != expected.get(key):
            yield f"{what} has {key} {value.get(key)}, and that of {frozen_name} {expected.get(key)}"


def _items_apart(value: list[Any], frozen_name: str, expected: list[Any]) -> str:
    if len(value) != len(expected):
        return f"are {len(value)}, and those of {frozen_name} {len(expected)}"
    first = next(place for place, item in enumerate(value) if item != expected[place])
    shown = ", ".join(map(str, value[first : first + SHOWN]))
    shown_expected = ", ".join(map(str, expected[first : first + SHOWN]))
    return f"are {shown} from number {first} on, and those of {frozen_name} {shown_expected}"
