"""What report.html shows beyond report.json: only the end of a build has it all at hand, and keeps it in one file."""

from __future__ import annotations

import base64
import io
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from exporters import engines
from pipeline import provenance, workspace
from pipeline.errors import BadRequest
from pipeline.finished import json_records, report_json
from pipeline.finished.finished_build import FinishedBuild
from pipeline.parity.fault import median

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from pipeline.building.run import Build
    from pipeline.data.images import Images

FILE = report_json.EVIDENCE
HISTORY = "history.jsonl"
# Images whose answer flipped: at most so many, and of so many pixels a side.
FLIPS = 24
SIDE = 96
# Images that the drift along the depth is measured on.
DEPTH = 4
# Rows of a training's history that are kept, at most.
EPOCHS = 2000
PNG = b"\x89PNG\r\n\x1a\n"


@dataclass(frozen=True)
class Flip:
    """An image that the network answers as class ``before`` and the shipped file as ``after``; ``png`` in base64."""

    name: str
    label: int
    before: int
    after: int
    png: str


@dataclass(frozen=True)
class DepthStep:
    """One module: the SQNR in dB that it alone leaves (``own``), and of all so far; None where nothing differs."""

    module: str
    operator: str
    own: float | None
    total: float | None


@dataclass(frozen=True)
class Depth:
    """The drift of the file ``bad`` next to ``good`` along its depth; without ``steps``, ``missing`` says why."""

    missing: str | None
    good: str = ""
    bad: str = ""
    images: int = 0
    steps: list[DepthStep] | None = None


@dataclass(frozen=True)
class History:
    """The numbers of each epoch of a training, by name; ``missing`` says why there are none."""

    rows: list[dict[str, float]]
    missing: str | None


@dataclass(frozen=True)
class Evidence:
    """evidence.json, of the build whose answers have the hash ``answers``; ``missing`` says why there is nothing.

    ``engines``: what each engine says that it is made of, or why it says nothing.
    """

    answers: str
    flips: list[Flip]
    depth: Depth
    engines: list[dict[str, Any]]
    history: History
    missing: str | None = None


def read(build: FinishedBuild) -> Evidence:
    """What this very build kept; raises BadRequest where it is damaged."""
    path = build.directory / FILE
    # A page without it is still the page of this build; one with that of another build would be wrong.
    if not path.is_file():
        return _nothing(f"there is no {path.name} in this directory; build again to have it.")
    values = workspace.read_note(path)
    if not values:
        raise BadRequest(f"{path} is damaged; build again")
    kept = json_records.read(Evidence, values)
    if kept.answers != build.answers_digest:
        return _nothing(f"{path.name} is that of another build than report.json.")
    # The page shows them as images, whatever else somebody put there.
    for flip in kept.flips:
        if not base64.b64decode(flip.png, validate=True).startswith(PNG):
            raise BadRequest(f"{path} holds an image that is no PNG; build again")
    return kept


def _nothing(why: str) -> Evidence:
    return Evidence("", [], Depth(None), [], History([], None), why)


def write(build: Build, report: Mapping[str, Any]) -> None:
    """Keep the evidence of the build whose ``report`` is about to be written, since that has the hash of it."""
    finished = FinishedBuild.of(build.output, dict(report))
    depth_before = workspace.read_note(build.output / FILE).get("depth")
    kept = {
        "answers": report["answers"],
        "flips": _flips(build, finished),
        "depth": _depth(finished, build.images, depth_before),
        "engines": _engines(finished),
        "history": _history(report["recipe"]["weights"]),
    }
    text = json.dumps(kept, separators=(",", ":"), allow_nan=False)
    workspace.write_bytes(build.output / FILE, text.encode(), build.unfinished)


def _flips(build: Build, finished: FinishedBuild) -> list[dict[str, Any]]:
    """The images that the network and the shipped file answer otherwise: first those lost, then those gained."""
    if finished.shipped is None:
        return []
    labels = build.images.labels
    before = build.test_set.before.top1
    after = build.kept[finished.shipped.name].answers.top1

    moved = np.flatnonzero(before != after)
    lost = before[moved] == labels[moved]
    gained = after[moved] == labels[moved]
    # Those that were wrong before and are wrong now come last.
    order = np.where(lost, 0, np.where(gained, 1, 2))
    chosen = moved[np.argsort(order, kind="stable")][:FLIPS]

    flips = []
    for index in chosen:
        name = build.images.part.name(index)
        png = _png(build.images[index])
        flips.append(asdict(Flip(name, int(labels[index]), int(before[index]), int(after[index]), png)))
    return flips


def _png(pixels: NDArray[np.float32]) -> str:
    """An image (C, H, W) float32 0..255, shrunk where it is large, as PNG in base64."""
    from PIL import Image

    planes = np.rint(pixels).clip(0, 255).astype(np.uint8)
    grey = len(planes) == 1
    image = Image.fromarray(planes[0] if grey else np.moveaxis(planes, 0, -1))
    image.thumbnail((SIDE, SIDE))
    file = io.BytesIO()
    image.save(file, "PNG", optimize=True)
    return base64.b64encode(file.getvalue()).decode()


def _depth(finished: FinishedBuild, images: Images, before: object) -> dict[str, Any]:
    """The drift of the noisiest stage along its depth, in dB; ``missing`` says why there is none.

    ``before`` is what an earlier build in the directory kept; of the same two files and images it is not measured anew.
    """
    try:
        good, bad = finished.stage_files(None)
    except BadRequest as error:
        return {"missing": str(error)}
    made_of = [workspace.sha256(good), workspace.sha256(bad), images.digest, provenance.source_hash()]
    if isinstance(before, dict) and before.get("made_of") == made_of:
        return before
    return {"made_of": made_of, "good": good.name, "bad": bad.name, "images": DEPTH, **_walked(good, bad, images)}


def _walked(good: Path, bad: Path, images: Images) -> dict[str, Any]:
    """``steps``, and in ``missing`` why there are none."""
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
    steps = []
    for pair in pairs:
        step = pair.step
        steps.append(asdict(DepthStep(step.module, step.operator, median(step.own), median(step.accumulated))))
    return {"steps": steps, "missing": None}


def _engines(finished: FinishedBuild) -> list[dict[str, Any]]:
    """What each engine says that it is made of; nothing where no engine was built."""
    try:
        files = finished.engine_files()
    except BadRequest:
        return []
    # What the device builds itself is a recipe here.
    return [_described(path, details) for path, details in files if details["backend"] not in engines.RECIPES]


def _described(path: Path, details: dict[str, Any]) -> dict[str, Any]:
    try:
        description = engines.named(details["backend"]).describe(path, details)
    except ValueError as error:
        return {"file": path.name, "missing": str(error)}
    return {"file": path.name, **description.to_json()}


def _history(weights: str | None) -> dict[str, Any]:
    """The numbers of every line of the history that a training left beside the user's weights."""
    path = Path(weights).with_name(HISTORY) if weights else None
    if path is None or not path.is_file():
        return asdict(History([], "no history of a training stands beside the weights."))
    rows = []
    try:
        for line in path.read_text("utf-8").splitlines()[-EPOCHS:]:
            epoch = json.loads(line)
            rows.append({str(key): value for key, value in epoch.items() if _is_number(value)})
    except (OSError, ValueError, AttributeError) as error:
        return asdict(History([], f"{path} is no history of a training: {error}."))
    return asdict(History(rows, None))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and bool(np.isfinite(value))
