"""What of a build goes into a bundle, and what its manifest says: taken from files that the report proves."""

from __future__ import annotations

import io
import json
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline import workspace
from pipeline.data import conformance
from pipeline.data.images import Images, spread
from pipeline.errors import BadRequest
from pipeline.finished import build_directory, recheck
from pipeline.precisions import PRECISIONS
from pipeline.ship.card import card
from pipeline.targets import table

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from pipeline.data.conformance import Vector
    from pipeline.recipe import Recipe

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
    report = _passed(directory)
    recipe, (row, path) = build_directory.recipe_of(directory), _model(directory, report)
    record, vectors = conformance.read(directory)
    asked = _goldens(directory, path, goldens)
    when = _released(directory) if released is None else released
    model = _described(path, recipe, report, [record.channels, record.input_size, record.input_size])
    name = "-".join(filter(None, (model["arch"], model["precision"], model["target"])))
    said = {
        "name": re.sub(r"[^A-Za-z0-9._@+-]", "-", name),
        "released": when,
        "expires": None if expires_days is None else when + expires_days * DAY,
        "model": model,
        "bounds": _bounds(directory, row, asked, max_latency_ms),
    }
    content = {
        "model.onnx": path.read_bytes(),
        "classes.json": _json(report["classes"]),
        "conformance.json": (directory / conformance.FOLDER / conformance.RECORD).read_bytes(),
        "compatibility.json": _json(table.data()),
        "licence.txt": NO_LICENCE.encode() if licence is None else _given(licence, "--licence"),
        "card.md": card(report, said, row).encode(),
        **{f"golden-{name}.npy": _npy(values) for name, values in asked.items()},
        **_vectors(vectors),
        **{f"timing-{name}.cache": _given(file, "--timing-cache") for name, file in (timing_caches or {}).items()},
    }
    if agent is not None:
        content["agent.pyz"] = _given(agent, "--agent")
    return said, content


def _passed(directory: Path) -> dict[str, Any]:
    """The report, its verdicts computed anew; raises BadRequest unless the build passed and its files are whole."""
    report, _ = recheck.recheck(directory)
    if report["verdict"] != "pass":
        bad = [row for row in report["stages"] if row["verdict"] not in {"pass", "not_run"}]
        why = "; ".join(f"{row['name']}: {', '.join(row['reasons']) or row['verdict']}" for row in bad)
        raise BadRequest(f"{directory}: its verdict is {report['verdict']}, and only what passed is shipped ({why})")
    return report


def _model(directory: Path, report: dict[str, Any]) -> tuple[dict[str, Any], Path]:
    """The row and the file that the device's engine is built from: what the first engine here was built from."""
    rows = {row["name"]: row for row in report["stages"]}
    engine = rows.get("engine_device") or rows.get("engine")
    if engine is None or not engine["source"]:
        raise BadRequest(f"{directory} has no engine; build again")
    row = rows[engine["source"]]
    path = directory / Path(row["file"]).name
    if workspace.sha256(path) != row["sha256"]:
        raise BadRequest(f"{path} is not the file that was judged; build again")
    return row, path


def _goldens(directory: Path, path: Path, count: int) -> dict[str, NDArray[Any]]:
    """Images spread over the classes, and what the PyTorch network and the file that is shipped answer to them."""
    import safetensors.numpy

    from pipeline.parity import answers

    images = build_directory.test_images(directory)
    chosen = spread(images.labels, min(count, len(images)), seed=0)
    few = Images(images.part.take(chosen), images.preprocessing)
    reference = safetensors.numpy.load_file(directory / recheck.ANSWERS)["reference"]
    pixels = few.select(np.arange(len(few)))
    if np.array_equal(pixels, pixels.astype(np.uint8)):
        pixels = pixels.astype(np.uint8)
    return {
        "images": pixels,
        "reference": reference[chosen],
        "judged": answers.of_file(path).answers(few, f"{path.name} on the goldens"),
    }


def _bounds(
    directory: Path, row: dict[str, Any], asked: dict[str, NDArray[Any]], latency: float | None
) -> dict[str, Any]:
    reference, judged = asked["reference"], asked["judged"]
    agreeing = int((reference.argmax(1) == judged.argmax(1)).sum())
    return {
        "sqnr_db": row["tolerance"]["sqnr_db"],
        "judged_db": build_directory.bounds(directory, "engine").step_sqnr_db,
        "agreement": max(0, agreeing - FLIPS) / len(judged),
        "latency_ms": latency,
        "top1": row["accuracy"]["top1"],
        "images": row["accuracy"]["n"],
    }


def _described(path: Path, recipe: Recipe, report: dict[str, Any], shape: list[int]) -> dict[str, Any]:
    from exporters import onnx_file

    model = onnx_file.read(path)
    (images,) = model.graph.inputs
    profiles = recipe.profiles or [DEFAULT_BATCHES]
    if len(profiles) != 1:
        raise BadRequest(f"a bundle has one profile, the build has {len(profiles)}; build again with one")
    return {
        "arch": report["recipe"]["arch"],
        "precision": recipe.precision,
        **needs(recipe.precision),
        "opset": model.opset_imports[""],
        "input": shape,
        "dtype": "uint8" if images.dtype is not None and images.dtype.name == "UINT8" else "float32",
        "classes": len(report["classes"]),
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


def _vectors(vectors: list[Vector]) -> dict[str, bytes]:
    files = {f"vector-{vector.path.name}": vector.path.read_bytes() for vector in vectors}
    return files | {f"vector-{vector.path.stem}.npy": _npy(vector.expected) for vector in vectors}


def _released(directory: Path) -> int:
    """Seconds since 1970 that order bundles: of SOURCE_DATE_EPOCH, else of the build's report."""
    said = os.environ.get("SOURCE_DATE_EPOCH")
    if said is not None and not said.isdecimal():
        raise BadRequest(f"SOURCE_DATE_EPOCH is {said!r}, not seconds since 1970")
    return int((directory / "report.json").stat().st_mtime) if said is None else int(said)


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
