"""What report.html shows beyond report.json: only the end of a build has it all at hand, and keeps it in one file."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from exporters import engines
from pipeline import provenance, workspace
from pipeline.errors import BadRequest
from pipeline.finished import build_directory
from pipeline.parity.fault import median

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from pipeline.building.run import Build
    from pipeline.data.images import Images

FILE, HISTORY = "evidence.json", "history.jsonl"
# Images whose answer flipped, at most so many and so large; images that the drift along the depth is measured on.
FLIPS, SIDE, DEPTH = 24, 96, 4
# Rows of a training's history that are kept, at most.
EPOCHS = 2000


def write(build: Build, report: Mapping[str, Any]) -> None:
    """Keep the evidence of the build whose report.json has just been written."""
    before = workspace.read_note(build.output / FILE).get("depth")
    kept = {
        "answers": report["answers"],
        "flips": _flips(build, report),
        "depth": _depth(build.output, build.images, before),
        "engines": _engines(build.output),
        "history": _history(report["recipe"]["weights"]),
    }
    text = json.dumps(kept, separators=(",", ":"), allow_nan=False)
    workspace.write_bytes(build.output / FILE, text.encode(), build.unfinished)


def shipped(report: Mapping[str, Any]) -> str | None:
    """The stage whose answers count: the engine that was judged, else the last stage that was; None without any."""
    judged = [row["name"] for row in report["stages"] if row["accuracy"]]
    return next((name for name in judged if name.startswith("engine")), judged[-1] if judged else None)


def _flips(build: Build, report: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The images that the network and the shipped file answer otherwise: first those lost, then those gained."""
    answered = build.top1.get(shipped(report) or "")
    if answered is None:
        return []
    labels, before = build.images.labels, build.reference.argmax(1)
    moved = np.flatnonzero(before != answered)
    order = np.where(before[moved] == labels[moved], 0, np.where(answered[moved] == labels[moved], 1, 2))
    chosen = moved[np.argsort(order, kind="stable")][:FLIPS]
    return [
        {
            "name": build.images.part.name(index),
            "label": int(labels[index]),
            "before": int(before[index]),
            "after": int(answered[index]),
            "png": _png(build.images[index]),
        }
        for index in chosen
    ]


def _png(pixels: NDArray[np.float32]) -> str:
    """An image (C, H, W) float32 0..255, shrunk where it is large, as PNG in base64."""
    from PIL import Image

    planes = np.rint(pixels).clip(0, 255).astype(np.uint8)
    image = Image.fromarray(planes[0] if len(planes) == 1 else np.moveaxis(planes, 0, -1))
    image.thumbnail((SIDE, SIDE))
    image.save(written := io.BytesIO(), "PNG", optimize=True)
    return base64.b64encode(written.getvalue()).decode()


def _depth(directory: Path, images: Images, before: Any) -> dict[str, Any]:
    """The drift of the noisiest stage along its depth, in dB; ``missing`` says why there is none.

    ``before`` is what an earlier build in the directory kept; of the same two files and images it is not measured anew.
    """
    try:
        good, bad = build_directory.stage_files(directory, None)
    except BadRequest as error:
        return {"missing": str(error)}
    made_of = [workspace.sha256(good), workspace.sha256(bad), images.digest, provenance.source_hash()]
    if isinstance(before, dict) and before.get("made_of") == made_of:
        return before
    return {"made_of": made_of, "good": good.name, "bad": bad.name, "images": DEPTH, **_walked(good, bad, images)}


def _walked(good: Path, bad: Path, images: Images) -> dict[str, Any]:
    from exporters import reference
    from exporters.subgraphs import Subgraphs
    from pipeline.data import sampling
    from pipeline.parity.depth import walk

    refusals: tuple[type[Exception], ...] = (ValueError, *reference.refusals())
    reference.give_back_memory()
    try:
        # One image at a time: its activations, of both files, are all that is in memory beside the weights.
        pairs, _ = walk(Subgraphs(good), Subgraphs(bad), sampling.some(images, DEPTH).batches(1))
    except refusals as error:
        return {"missing": str(error)}
    steps = [
        {
            "module": pair.step.module,
            "operator": pair.step.operator,
            "own": median(pair.step.own),
            "total": median(pair.step.accumulated),
        }
        for pair in pairs
    ]
    return {"steps": steps, "missing": None}


def _engines(directory: Path) -> list[dict[str, Any]]:
    """What each engine says that it is made of; nothing where no engine was built."""
    try:
        found = build_directory.engine_files(directory)
    except BadRequest:
        return []
    return [_described(path, details) for path, details in found if details["backend"] not in engines.RECIPES]


def _described(path: Path, details: dict[str, Any]) -> dict[str, Any]:
    try:
        return {"file": path.name, **engines.named(details["backend"]).describe(path, details).to_json()}
    except ValueError as error:
        return {"file": path.name, "missing": str(error)}


def _history(weights: str | None) -> dict[str, Any]:
    """The numbers of every line of the history that a training left beside the user's weights."""
    path = Path(weights).with_name(HISTORY) if weights else None
    if path is None or not path.is_file():
        return {"rows": [], "missing": "no history of a training stands beside the weights."}
    try:
        rows = [json.loads(line) for line in path.read_text("utf-8").splitlines()[-EPOCHS:]]
        kept = [{str(key): value for key, value in row.items() if _number(value)} for row in rows]
    except (OSError, ValueError, AttributeError) as error:
        return {"rows": [], "missing": f"{path} is no history of a training: {error}."}
    return {"rows": kept, "missing": None}


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and bool(np.isfinite(value))
