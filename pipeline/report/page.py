"""report.html: one file that asks nothing of a network, made of what the directory of a build holds."""

from __future__ import annotations

import base64
import shlex
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from pipeline import workspace
from pipeline.errors import EXITS, BadRequest
from pipeline.finished import build_directory
from pipeline.recipe import Recipe, flag
from pipeline.report import changes, evidence, figures, layers, terminal
from pipeline.report.render import refusing, rendered

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

FILE = "report.html"
# Histograms that are shown at once; the others open on request.
FIRST = 12
# What the command always says; the defaults of other flags may depend on it.
NAMED = ("arch", "precision", "target")
PNG = b"\x89PNG\r\n\x1a\n"


def html(directory: Path) -> str:
    """The report of ``directory``, finished or not; raises BadRequest where it holds no build, or a damaged one."""
    with refusing(directory):
        return rendered("report.html", build=gathered(directory))


def gathered(directory: Path) -> dict[str, Any]:
    """All that a template shows of the build in ``directory``; of an unfinished one ``report`` is None."""
    path = directory / "report.json"
    if not path.exists():
        return _unfinished(directory)
    if not workspace.read_note(path):
        raise BadRequest(f"{path} is damaged: it holds no report; build again")
    report = build_directory.report(directory)
    name = evidence.shipped(report)
    rows = {row["name"]: row for row in report["stages"]}
    kept = _evidence(directory / evidence.FILE, report)
    saved = changes.saved(directory, report["answers"], name) if name else None
    return {
        "name": str(directory),
        "title": f"{report['recipe']['arch']} in {report['recipe']['precision']}",
        "report": report,
        "word": EXITS[report["verdict"]].name.capitalize(),
        "stages": report["stages"],
        "first": report["stages"][0] if report["stages"] else None,
        "shipped": rows[name] if name else None,
        "intervals": figures.intervals(report["stages"]),
        "reach": figures.reach(report["stages"]),
        "sizes": figures.shares({row["name"]: row["bytes"] for row in report["stages"] if row["bytes"]}),
        "speed": terminal.speed(report["speed"]) if report["speed"] else None,
        "saved": saved,
        "answers": changes.changes(saved, report["classes"]) if saved else None,
        "ranges": _ranges(report["stages"]),
        "first_ranges": FIRST,
        "depth": _depth(kept["depth"]),
        "flips": kept["flips"],
        "engines": [layers.drawn(each) for each in kept["engines"]],
        "history": _history(kept["history"]["rows"]),
        "no_history": kept["history"]["missing"],
        "bench": _bench(directory, report["answers"]),
        "missing": kept["missing"],
        "command": command(report["recipe"]),
    }


def _unfinished(directory: Path) -> dict[str, Any]:
    """What the notes say of a build that was killed, or still runs."""
    notes = [workspace.read_note(path) for path in sorted(directory.glob("[0-9][0-9]-*.json"))]
    rows = [note for note in notes if note.keys() >= {"file", "seconds", "work"}]
    if not rows:
        raise BadRequest(f"{directory} holds no report.json and no file of a stage; give the directory of a build")
    return {"name": str(directory), "title": f"Build in {directory}", "report": None, "stages": rows}


def _evidence(path: Path, report: Mapping[str, Any]) -> dict[str, Any]:
    """What this very build kept; where it kept nothing, ``missing`` says why."""
    none: dict[str, Any] = {
        "flips": [],
        "depth": {"missing": None},
        "engines": [],
        "history": {"rows": [], "missing": None},
    }
    if not path.is_file():
        return {**none, "missing": f"there is no {path.name} in this directory; build again to have it."}
    found = workspace.read_note(path)
    if not found:
        raise BadRequest(f"{path} is damaged; build again")
    if found["answers"] != report["answers"]:
        return {**none, "missing": f"{path.name} is that of another build than report.json."}
    if not all(base64.b64decode(flip["png"], validate=True).startswith(PNG) for flip in found["flips"]):
        raise BadRequest(f"{path} holds an image that is no PNG; build again")
    return {**found, "missing": None}


def _ranges(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Every tensor that was calibrated, those of which most is clipped first."""
    tensors = {name: each for row in rows for name, each in (row["details"].get("tensors") or {}).items()}
    found = [
        {
            "tensor": _maker(name),
            "seen": account["seen"],
            "amax": account["amax"],
            "clipped": account["beyond"] / (account["values"] or 1),
            "drawn": figures.histogram(account) if account.get("histogram") else None,
        }
        for name, account in tensors.items()
    ]
    return sorted(found, key=lambda each: -each["clipped"])


def _maker(tensor: str) -> str:
    """The module that made a tensor, where its name says it: ``/layer1/layer1.0/relu/Relu_output_0``."""
    import onnx

    from exporters import onnx_file

    return onnx_file.module_of(onnx.NodeProto(name=tensor)) or tensor.strip("/").removesuffix("_output_0")


def _depth(kept: Mapping[str, Any]) -> dict[str, Any]:
    if "steps" not in kept:
        return {"missing": kept["missing"]}
    # What a layer hands on as it came adds nothing, and would only break the line.
    steps = [step for step in kept["steps"] if step["own"] is not None]
    series = {"all so far": [step["total"] for step in steps], "this layer alone": [step["own"] for step in steps]}
    chart = figures.lines(series)
    tops = [step["module"].split(".")[0] for step in steps]
    chart["x"] = [
        {"at": chart["across"](tops.index(name)), "text": name} for name in dict.fromkeys(tops) if "layer" in name
    ]
    worst = min(steps, key=lambda step: float(step["own"]), default=None)
    return {**kept, "steps": steps, "chart": chart, "worst": worst}


def _history(rows: list[dict[str, float]]) -> list[dict[str, Any]]:
    """A chart for the losses and one for the accuracies of a training, where its history has any."""
    names = dict.fromkeys(name for row in rows for name in row)
    kinds = {
        "Loss": [name for name in names if "loss" in name],
        "Accuracy": [name for name in names if "top1" in name or "acc" in name],
    }
    return [
        {
            "title": title,
            "names": chosen,
            "count": len(rows),
            "chart": {**figures.lines({name: [row.get(name) for row in rows] for name in chosen}), "x": []},
        }
        for title, chosen in kinds.items()
        if chosen
    ]


def _bench(directory: Path, answers: str) -> dict[str, Any] | None:
    """The timings of ``bench``, where they are of this very build."""
    found = workspace.read_note(directory / "bench.json")
    if not found or found.get("answers") != answers:
        return None
    medians = {str(place): row["milliseconds"]["50"] / row["batch"] for place, row in enumerate(found["rows"])}
    return {**found, "shares": list(figures.shares(medians).values())}


def command(recipe: Mapping[str, Any]) -> str:
    """The line that builds the same again."""
    from pipeline.models.specs import ARCHITECTURES

    by_itself = Recipe(**{name: recipe[name] for name in NAMED})
    words = ["python", "-m", "pipeline", "build"]
    for knob in fields(Recipe):
        value = recipe.get(knob.name, knob.default)
        if value is None or (knob.name not in NAMED and value == getattr(by_itself, knob.name)):
            continue
        if knob.name == "arch" and value not in ARCHITECTURES and ":" not in value:
            value = f"{value}.toml"
        values = [] if value is True else value if isinstance(value, list) else [value]
        words += [flag(knob.name), *map(str, values)]
    return shlex.join(words)
