"""What of a build goes into a bundle, and what its manifest says: taken from files that the report proves."""

from __future__ import annotations

import io
import json
import os
import re
from typing import TYPE_CHECKING, Any

import numpy as np

from exporters import engines
from pipeline import workspace
from pipeline.data import conformance
from pipeline.data.images import Images
from pipeline.data.part import spread
from pipeline.errors import BadRequest
from pipeline.finished import recheck, report_json, vectors
from pipeline.finished.report_json import measured
from pipeline.parity.own_noise import step_bound
from pipeline.precisions import PRECISIONS
from pipeline.ship.agent.manifest import LONGEST_NAME
from pipeline.ship.card import card
from pipeline.stage import CLASSES
from pipeline.targets import table

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from pipeline.finished.finished_build import FinishedBuild
    from pipeline.stage import StageRow

DAY = 86400
# Goldens that the device may answer otherwise than here: an argmax close to a tie may fall on the other side.
FLIPS = 2
DEFAULT_BATCHES = (1, 8, 16)
NO_LICENCE = "No licence was named for this model. Ask whoever gave it to you before you pass it on.\n"


def gather(
    directory: Path,
    *,
    goldens: int = 64,
    released: int | None = None,
    expires_days: int | None = None,
    max_latency_ms: float | None = None,
    licence: Path | None = None,
    timing_caches: Mapping[str, Path] | None = None,
    agent: Path | None = None,
) -> tuple[dict[str, Any], dict[str, bytes]]:
    """The manifest's own fields, and every member by name."""
    build = _passed(directory)
    row, path = _shipped_graph(build)
    record, conformance_vectors = vectors.read(build)
    golden = _goldens(build, path, goldens)

    when = _released(directory) if released is None else released
    model = _described(path, build, [record.channels, record.input_size, record.input_size])
    name = "-".join(filter(None, (model["arch"], model["precision"], model["target"])))
    manifest = {
        "name": re.sub(r"[^A-Za-z0-9._@+-]", "-", name),
        "released": when,
        "expires": None if expires_days is None else when + expires_days * DAY,
        "model": model,
        "bounds": _bounds(build, row, golden, max_latency_ms),
    }

    # In no order that counts: a bundle sorts them by name.
    members = {
        "model.onnx": path.read_bytes(),
        "classes.json": _json(build.classes),
        "conformance.json": (directory / conformance.FOLDER / conformance.RECORD).read_bytes(),
        "compatibility.json": _json(table.data()),
        "licence.txt": NO_LICENCE.encode() if licence is None else _given(licence, "--licence"),
        "card.md": card(build, manifest, row).encode(),
    }
    for name, values in golden.items():
        members[f"golden-{name}.npy"] = _npy(values)
    for vector in conformance_vectors:
        members[f"vector-{vector.path.name}"] = vector.path.read_bytes()
        members[f"vector-{vector.path.stem}.npy"] = _npy(vector.expected)
    for name, cache in (timing_caches or {}).items():
        members[f"timing-{name}.cache"] = _given(cache, "--timing-cache")
    if agent is not None:
        members["agent.pyz"] = _given(agent, "--agent")
    return manifest, members


def _passed(directory: Path) -> FinishedBuild:
    """The build, its verdicts computed anew; raises BadRequest unless it passed and its files are whole."""
    build, _ = recheck.recheck(directory)
    if build.verdict == "pass":
        return build
    bad = [row for row in build.stages if row.verdict not in {"pass", "not_run"}]
    why = "; ".join(f"{row.name}: {', '.join(row.reasons) or row.verdict}" for row in bad)
    raise BadRequest(f"{directory}: its verdict is {build.verdict}, and only what passed is shipped ({why})")


def _shipped_graph(build: FinishedBuild) -> tuple[StageRow, Path]:
    """The row and the file that the device's engine is built from: what the first engine here was built from."""
    # Where the device builds its own engine, its recipe names the graph.
    recipes = [row for row in build.engines if row.details.get("backend") in engines.RECIPES]
    engine = next(iter(recipes or build.engines), None)
    if engine is None or engine.source is None:
        raise BadRequest(f"{build.directory} has no engine; build again")

    row = build.stage(engine.source)
    path = build.path(row)
    if workspace.sha256(path) != row.sha256:
        raise BadRequest(f"{path} is not the file that was judged; build again")
    return row, path


def _goldens(build: FinishedBuild, path: Path, count: int) -> dict[str, NDArray[Any]]:
    """Images spread over the classes, and what the PyTorch network and the file that is shipped answer to them."""
    from pipeline.parity import answers

    images = build.test_images()
    chosen = spread(images.labels, min(count, len(images)), seed=0)
    golden_images = Images(images.part.take(chosen), images.preprocessing)
    pixels = golden_images.select(np.arange(len(golden_images)))
    # As bytes where nothing is lost: a quarter of the size.
    if np.array_equal(pixels, pixels.astype(np.uint8)):
        pixels = pixels.astype(np.uint8)
    return {
        "images": pixels,
        "reference": build.saved_answers().reference[chosen],
        "judged": answers.of_file(path).answers(golden_images, f"{path.name} on the goldens"),
    }


def _bounds(
    build: FinishedBuild, row: StageRow, golden: dict[str, NDArray[Any]], latency: float | None
) -> dict[str, Any]:
    """What an engine must hold on the device; ``row`` is that of the graph it is built from."""
    figures = measured(row)
    if figures is None:
        raise BadRequest(f"{build.directory}: {row.name} was not judged; build again")
    # The device rounds the same graph elsewhere than ONNX Runtime here.
    asked_db = build.bounds(build.engines[0].name).step_sqnr_db
    reference, judged = golden["reference"], golden["judged"]
    agreeing = int((reference.argmax(1) == judged.argmax(1)).sum())
    return {
        "sqnr_db": figures.tolerance.sqnr_db,
        "judged_db": step_bound(asked_db, figures.drift.sqnr_db).db,
        "agreement": max(0, agreeing - FLIPS) / len(judged),
        "latency_ms": latency,
        "top1": figures.accuracy.top1,
        "images": figures.accuracy.n,
        "worst_class": _worst_class(row),
    }


def _worst_class(row: StageRow) -> dict[str, Any] | None:
    """The class that lost most for certain; None of a build that kept no answers by class."""
    classes = row.subsets.get(CLASSES)
    if classes is None:
        return None
    worst = classes.worst
    return {
        "name": _printable(worst.name),
        "images": worst.n,
        "lost": worst.lost,
        "gained": worst.gained,
        "lower": worst.lower,
        "upper": worst.upper,
        "at_most": classes.at_most,
    }


def _printable(name: str) -> str:
    """``name`` as a device takes it: classes are folders, which may be called anything."""
    text = "".join(character if character.isprintable() else "\ufffd" for character in name)
    return text if len(text) <= LONGEST_NAME else f"{text[: LONGEST_NAME - 1]}…"


def _described(path: Path, build: FinishedBuild, shape: list[int]) -> dict[str, Any]:
    """The model in the manifest; ``shape`` is (C, H, W) of an image."""
    from exporters import onnx_file

    model = onnx_file.read(path)
    (images,) = model.graph.inputs
    takes_bytes = images.dtype is not None and images.dtype.name == "UINT8"
    recipe = build.recipe
    profiles = recipe.profiles or [DEFAULT_BATCHES]
    if len(profiles) != 1:
        raise BadRequest(f"a bundle has one profile, the build has {len(profiles)}; build again with one")
    return {
        "arch": build.arch,
        "precision": build.precision,
        **needs(build.precision),
        "opset": model.opset_imports[""],
        "input": shape,
        "dtype": "uint8" if takes_bytes else "float32",
        "classes": len(build.classes),
        "batches": list(profiles[0]),
        "target": recipe.target,
        "tensorrt": recipe.tensorrt,
    }


def needs(precision: str) -> dict[str, Any]:
    """What a device must know of a precision, as data: then the agent need not know its name."""
    row = PRECISIONS[precision]
    return {
        "typing": row.typing,
        "weak_flags": None if row.weak_flags is None else list(row.weak_flags),
        "computes_in": row.computes_in,
        "number_format": row.number_format,
        "scales": row.scales,
    }


def _released(directory: Path) -> int:
    """Seconds since 1970 that order bundles: of SOURCE_DATE_EPOCH, else of the build's report."""
    epoch = os.environ.get("SOURCE_DATE_EPOCH")
    if epoch is None:
        return int((directory / report_json.FILE).stat().st_mtime)
    if not epoch.isdecimal():
        raise BadRequest(f"SOURCE_DATE_EPOCH is {epoch!r}, not seconds since 1970")
    return int(epoch)


def _given(path: Path, flag: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise BadRequest(f"{flag} {path}: it cannot be read ({error.strerror})") from error


def _npy(values: NDArray[Any]) -> bytes:
    file = io.BytesIO()
    np.lib.format.write_array(file, np.ascontiguousarray(values), version=(1, 0), allow_pickle=False)
    return file.getvalue()


def _json(value: Any) -> bytes:
    return (json.dumps(value, sort_keys=True, indent=1, default=str, allow_nan=False) + "\n").encode()
