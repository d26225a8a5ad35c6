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
from pipeline.finished import vectors as kept_vectors
from pipeline.finished.finished_build import FinishedBuild
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
ONLY_TENSORS = "tensors alone cannot be tried on the images that judged this build"


def conform(directory: Path, asked: str | None, tensors: Path | None, samples: int | None) -> dict[str, Any]:
    """What is known of the loader ``asked`` for, or of the ``tensors`` of one, as plain values.

    Raises BadRequest where the build has no vectors, or the loader answers what is no image.
    """
    build = FinishedBuild.open(directory)
    record, vectors = kept_vectors.read(build)
    load = None if asked is None else loader.find(asked, record)
    if load is not None:
        pixels = {vector.name: load(str(vector.path)) for vector in vectors}
    else:
        pixels = loader.tensors(tensors or Path(), record, vectors)

    distances = {vector.name: distance(pixels[vector.name], vector.expected) for vector in vectors}
    passed = all(conforms(apart) for apart in distances.values())
    result: dict[str, Any] = {
        "verdict": "pass" if passed else "fail",
        "loader": asked or str(tensors),
        "bound": {"largest": conformance.LARGEST, "mean": conformance.MEAN},
        "images": [_image(name, apart) for name, apart in distances.items()],
        "faults": [] if passed else explain(record, vectors, pixels),
        "known": [] if passed else list(known(vectors, pixels)),
        "cost": None,
        "no_cost": ONLY_TENSORS,
    }
    if load is not None:
        result |= cost(build, load, samples)
    return result


def _image(name: str, apart: tuple[float, float]) -> dict[str, Any]:
    """How far the loader is from the contract in one image, in levels of 0..255."""
    largest, mean = apart
    return {
        "name": name,
        "conforms": conforms(apart),
        # JSON knows no infinity: null where the shapes differ.
        "largest": largest if np.isfinite(largest) else None,
        "mean": mean if np.isfinite(mean) else None,
    }


def known(vectors: list[Vector], pixels: dict[str, Pixels]) -> Iterator[str]:
    """Sentences about the ``pixels`` of a loader, by the name of the vector, that need no guess."""
    first = vectors[0]
    shape = pixels[first.name].shape
    if shape != first.expected.shape:
        yield f"its arrays have the shape {shape}, not {first.expected.shape}"
        return

    low = min(float(array.min()) for array in pixels.values())
    high = max(float(array.max()) for array in pixels.values())
    yield f"its values lie in {low:.4g}..{high:.4g}, those of the contract in 0..255"

    right = [vector.name for vector in vectors if conforms(distance(pixels[vector.name], vector.expected))]
    if right:
        yield f"it conforms on {', '.join(right)}"

    for channel in range(len(first.expected)):
        line = _line_through(vectors, pixels, channel)
        if line is not None:
            scale, offset = line
            yield f"channel {channel} is {scale:.4g} x pixel {offset:+.4g}: the place is right and the values are not"


def _line_through(vectors: list[Vector], pixels: dict[str, Pixels], channel: int) -> tuple[float, float] | None:
    """Scale and offset from the pixels of the contract to those of the loader; None where no line joins them."""
    expected = np.concatenate([vector.expected[channel].ravel() for vector in vectors]).astype(np.float64)
    answered = np.concatenate([pixels[vector.name][channel].ravel() for vector in vectors]).astype(np.float64)
    # With domain and window alike the coefficients are those of the pixels themselves, not of scaled ones.
    fitted = np.polynomial.Polynomial.fit(expected, answered, 1, domain=[-1, 1], window=[-1, 1])
    offset, scale = (float(coefficient) for coefficient in fitted.coef)
    if not scale:
        return None
    # In levels of the contract, whatever the scale is.
    largest = np.abs((answered - offset) / scale - expected).max()
    return (scale, offset) if conforms((largest, 0)) else None


def cost(build: FinishedBuild, load: Load, samples: int | None) -> dict[str, Any]:
    """Top-1 under the contract and under the loader of the last judged file, on the images that judged it."""
    images = build.test_images()
    if samples is not None:
        images = sampling.some(images, samples)
    path = build.last_judged()
    try:
        runner = answers.of_file(path)
        contract_logits = runner.answers(images, f"{path.name} under the contract")
        loader_logits = _loaded(runner, images, load)
    except PipelineError:
        raise
    except Exception as error:
        raise StageFailed(f"{path.name} cannot be run: {workspace.explain(error)}") from error
    if loader_logits is None:
        return {"cost": None, "no_cost": FLOAT_IMAGES}

    before = _right(contract_logits, images.labels)
    after = _right(loader_logits, images.labels)
    return {
        "cost": {
            "file": path.name,
            "n": len(images),
            "contract": float(before.mean()),
            "loader": float(after.mean()),
            "confidence": build.confidence,
            "drop": asdict(paired_drop(before, after, build.confidence)),
        },
        "no_cost": None,
    }


def _right(logits: NDArray[np.float32], labels: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Whether each image is answered rightly; NaN is never right, though argmax finds one."""
    return np.asarray((logits.argmax(1) == labels) & np.isfinite(logits).all(1))


def _loaded(runner: Runner, images: Images, load: Load) -> NDArray[np.float32] | None:
    """The logits of what the loader makes of each image, written as PNG; None where one cannot be written so."""
    logits = []
    with tempfile.TemporaryDirectory() as folder, bar("the same under the loader", len(images)) as advance:
        for start in range(0, len(images), images.batch_size):
            batch = []
            for index in range(start, min(start + images.batch_size, len(images))):
                pixels = _loaded_image(images, index, load, Path(folder, f"{index}.png"))
                if pixels is None:
                    return None
                batch.append(pixels)
                advance()
            logits.append(runner.run(np.stack(batch)))
    return np.concatenate(logits)


def _loaded_image(images: Images, index: int, load: Load, path: Path) -> NDArray[np.float32] | None:
    """What the loader makes of one image, written as PNG to ``path`` meanwhile; None where it cannot be written so."""
    content = conformance.png(images.part.decode(index), images.preprocessing, images[index])
    if content is None:
        return None
    path.write_bytes(content)
    try:
        # An engine takes the bytes as they lie: an array (H, W, C) is read as if it were (C, H, W).
        pixels = load(str(path)).reshape(images.shape)
    except BadRequest as error:
        raise BadRequest(f"{error} (that was {images.part.name(index)})") from error
    path.unlink()
    return pixels
