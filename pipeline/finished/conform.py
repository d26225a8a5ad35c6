"""Another loader next to the contract: how far apart, through which fault, and what it costs in top-1."""

from __future__ import annotations

import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline import workspace
from pipeline.console.progress import bar
from pipeline.data import conformance, loader, sampling
from pipeline.data.loader_search import conforms, distance, explain
from pipeline.errors import BadRequest, PipelineError, StageFailed
from pipeline.finished import build_directory
from pipeline.parity import answers
from pipeline.parity.paired import paired_drop

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from pipeline.data.conformance import Vector
    from pipeline.data.images import Images
    from pipeline.data.loader import Load
    from pipeline.parity.answers import Runner

    Pixels = NDArray[np.float32]

FLOAT_IMAGES = "the images that judged this build are arrays or of a mode that no PNG holds without loss"


def conform(directory: Path, asked: str | None, tensors: Path | None, samples: int | None) -> dict[str, Any]:
    """What is known of the loader ``asked`` for, or of the ``tensors`` of one, as plain values.

    Raises BadRequest where the build has no vectors, or the loader answers what is no image.
    """
    record, vectors = conformance.read(directory)
    load = None if asked is None else loader.find(asked, record)
    if load is not None:
        made = {vector.name: load(str(vector.path)) for vector in vectors}
    else:
        made = loader.tensors(tensors or Path(), record, vectors)
    apart = {vector.name: distance(made[vector.name], vector.expected) for vector in vectors}
    passed = all(map(conforms, apart.values()))
    found: dict[str, Any] = {
        "verdict": "pass" if passed else "fail",
        "loader": asked or str(tensors),
        "bound": {"largest": conformance.LARGEST, "mean": conformance.MEAN},
        "images": [{"name": name, "conforms": conforms(far), **_figures(far)} for name, far in apart.items()],
        "faults": [] if passed else explain(record, vectors, made),
        "known": [] if passed else list(known(vectors, made)),
    }
    if load is None:
        return {**found, "cost": None, "no_cost": "tensors alone cannot be tried on the images that judged this build"}
    return found | cost(directory, load, samples)


def _figures(far: tuple[float, float]) -> dict[str, float | None]:
    """JSON knows no infinity: null where the shapes differ."""
    return dict(zip(("largest", "mean"), (value if np.isfinite(value) else None for value in far), strict=True))


def known(vectors: list[Vector], made: dict[str, Pixels]) -> Iterator[str]:
    """Sentences about the answers that need no guess."""
    shape = made[vectors[0].name].shape
    if shape != vectors[0].expected.shape:
        yield f"its arrays have the shape {shape}, not {vectors[0].expected.shape}"
        return
    low, high = min(float(a.min()) for a in made.values()), max(float(a.max()) for a in made.values())
    yield f"its values lie in {low:.4g}..{high:.4g}, those of the contract in 0..255"
    right = [vector.name for vector in vectors if conforms(distance(made[vector.name], vector.expected))]
    if right:
        yield f"it conforms on {', '.join(right)}"
    for channel in range(len(vectors[0].expected)):
        pixels = np.concatenate([vector.expected[channel].ravel() for vector in vectors]).astype(np.float64)
        answered = np.concatenate([made[vector.name][channel].ravel() for vector in vectors]).astype(np.float64)
        scale, offset = np.polynomial.Polynomial.fit(pixels, answered, 1, domain=[-1, 1], window=[-1, 1]).coef[::-1]
        left = np.abs((answered - offset) / scale - pixels).max() if scale else np.inf
        if left <= conformance.LARGEST and conforms((left, 0)):
            yield f"channel {channel} is {scale:.4g} x pixel {offset:+.4g}: the place is right and the values are not"


def cost(directory: Path, load: Load, samples: int | None) -> dict[str, Any]:
    """Top-1 under the contract and under the loader of the last judged file, on the images that judged it."""
    images = build_directory.test_images(directory)
    if samples is not None:
        images = sampling.some(images, samples)
    path, confidence = build_directory.last_judged(directory)
    try:
        runner = answers.of_file(path)
        contract = runner.answers(images, f"{path.name} under the contract")
        loaded = _loaded(runner, images, load)
    except PipelineError:
        raise
    except Exception as error:
        raise StageFailed(f"{path.name} cannot be run: {workspace.explain(error)}") from error
    if loaded is None:
        return {"cost": None, "no_cost": FLOAT_IMAGES}
    before, after = (_right(logits, images.labels) for logits in (contract, loaded))
    return {
        "cost": {
            "file": path.name,
            "n": len(images),
            "contract": float(before.mean()),
            "loader": float(after.mean()),
            "confidence": confidence,
            "drop": asdict(paired_drop(before, after, confidence)),
        },
        "no_cost": None,
    }


def _right(logits: NDArray[np.float32], labels: NDArray[np.int64]) -> NDArray[np.bool_]:
    return np.asarray((logits.argmax(1) == labels) & np.isfinite(logits).all(1))


def _loaded(runner: Runner, images: Images, load: Load) -> NDArray[np.float32] | None:
    """The logits of what the loader makes of each image, written as PNG; None where one cannot be written so."""
    logits = []
    with tempfile.TemporaryDirectory() as folder, bar("the same under the loader", len(images)) as advance:
        for start in range(0, len(images), images.batch_size):
            batch = []
            for index in range(start, min(start + images.batch_size, len(images))):
                content = conformance.png(images.part.decode(index), images.preprocessing, images[index])
                if content is None:
                    return None
                path = Path(folder, f"{index}.png")
                path.write_bytes(content)
                # An engine takes the bytes as they lie: an array (H, W, C) is read as if it were (C, H, W).
                try:
                    batch.append(load(str(path)).reshape(images.shape))
                except BadRequest as error:
                    raise BadRequest(f"{error} (that was {images.part.name(index)})") from error
                path.unlink()
                advance()
            logits.append(runner.run(np.stack(batch)))
    return np.concatenate(logits)
