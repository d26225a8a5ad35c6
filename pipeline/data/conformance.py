"""The contract of preprocessing as files: a written record, images, and the tensors that must come of them."""

from __future__ import annotations

import hashlib
import io
import json
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image
from PIL import __version__ as pillow

from pipeline import __version__, workspace
from pipeline.data import loader_test_images
from pipeline.data.preprocessing import Preprocessing
from pipeline.data.sampling import some
from pipeline.errors import BadRequest
from pipeline.finished import build_directory

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from pipeline.data.images import Images

FOLDER, RECORD, EXPECTED = "conformance", "record.json", "expected.npz"
OWN, LOOKED_AT, OWN_PIXELS = 4, 16, 2**20
# Levels of 0..255 by which an honest loader may differ in one pixel, and in the mean of one image. Measured
# (docs/conform.md): what rounds at other places is at most 2 and 0.33 away, another filter or crop at least 22 and 3.9.
LARGEST, MEAN = 3.0, 0.5
FILTERS = {
    "nearest": "the pixel of the old image in which the centre of the new pixel lies; not antialiased",
    "bilinear": "triangle of radius 1, antialiased: on shrinking the radius grows with the factor",
    "bicubic": "Keys with a = -0.5 and radius 2, antialiased: on shrinking the radius grows with the factor",
    "lanczos": "sinc windowed by sinc, radius 3, antialiased: on shrinking the radius grows with the factor",
}


@dataclass(frozen=True)
class Vector:
    """One image and ``expected`` (C, H, W) float32, the pixels 0..255 that a loader must make of it."""

    name: str
    path: Path
    image: Image.Image
    expected: NDArray[np.float32]


def png(image: Any, record: Preprocessing, expected: NDArray[np.float32]) -> bytes | None:
    """``image`` as a PNG file of which ``record`` makes ``expected``; None where no PNG holds it without loss."""
    if isinstance(image, np.ndarray):
        return None
    try:
        content = _saved(image)
        pixels = record.pixels(Image.open(io.BytesIO(content)), "")
    except (OSError, BadRequest):
        return None
    return content if np.array_equal(pixels, expected) else None


def _saved(image: Image.Image) -> bytes:
    plain, file = image.copy(), io.BytesIO()
    plain.info = {}  # profiles, comments and times change bytes and no pixel
    plain.save(file, "PNG")
    return file.getvalue()


def write(images: Images, output: Path, unfinished: Path) -> dict[str, str]:
    """SHA-256 of each file written to ``output``/conformance: the record, images and their tensors.

    The images are some of ``images`` and charts that show what those may not.
    """
    record = images.preprocessing
    tensors, files = {}, {}
    for name, image in loader_test_images.draw(record):
        tensors[name] = record.pixels(image, name)
        files[name] = _saved(image)
    for number, (content, pixels) in enumerate(islice(_own(images), OWN)):
        tensors[f"test-{number}.png"], files[f"test-{number}.png"] = pixels, content
    described = json.dumps(describe(record, files), indent=1, allow_nan=False) + "\n"
    packed = io.BytesIO()
    np.savez_compressed(packed, allow_pickle=False, **tensors)
    folder = output / FOLDER
    folder.mkdir(exist_ok=True)
    for left in {*folder.glob("test-[0-9].png")} - {folder / name for name in files}:
        left.unlink()
    files |= {EXPECTED: packed.getvalue(), RECORD: described.encode()}
    for name, content in files.items():
        workspace.write_bytes(folder / name, content, unfinished)
    return {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}


def _own(images: Images) -> Iterator[tuple[bytes, NDArray[np.float32]]]:
    few = some(images, LOOKED_AT)
    for index in range(len(few)):
        image = few.part.decode(index)
        if isinstance(image, np.ndarray) or image.width * image.height > OWN_PIXELS:
            continue
        content = png(image, few.preprocessing, few[index])
        if content is not None:
            yield content, few[index]


def describe(record: Preprocessing, images: dict[str, bytes]) -> dict[str, Any]:
    """Everything that a loader must do, for a person who has none of this code."""
    size, resize = record.input_size, record.resize
    grey = "L = (19595 R + 38470 G + 7471 B + 32768) >> 16 (ITU-R BT.601)" if record.convert else "refused"
    replicated = "the same plane three times" if record.convert else "refused"
    return {
        "schema": 1,
        "written_by": f"edge-resnet {__version__}, Pillow {pillow}",
        "decode": {
            "order": "decode, convert, resize, crop; nothing else",
            "orientation": "as stored: an EXIF orientation is ignored",
            "colour_profile": "ignored",
            "alpha": "dropped, not blended",
            "palette": "looked up, then RGB",
            "sixteen_bits": "divided by 257 and rounded, halves to the even number",
            "grey_from_colour": grey if record.channels == 1 else "not needed",
            "colour_from_grey": replicated if record.channels == 3 else "not needed",
        },
        "resize": {
            "shorter_side": resize,
            "longer_side": f"max({resize}, floor({resize} * longer / shorter)), computed in float64",
            "filter": record.interpolation,
            "antialias": record.interpolation != "nearest",
            "semantics": f"Pillow's Image.resize, {FILTERS[record.interpolation]}",
            "centres": "new pixel i lies at (i + 0.5) * old / new - 0.5; weights outside the image are left out",
            "rounding": "rounded and clipped to 0..255 after the horizontal pass and again after the vertical pass",
            "same_size": "an image that has the size already is left as it is",
        },
        "crop": {
            "width": size,
            "height": size,
            "left": f"(width - {size}) / 2 rounded, halves to the even number",
            "top": f"(height - {size}) / 2 rounded, halves to the even number",
        },
        "tensor": {
            "name": "images",
            "layout": "NCHW",
            "shape": ["N", record.channels, size, size],
            "dtype": "float32",
            "range": [0, 255],
            "channels": "RGB" if record.channels == 3 else "grey",
        },
        "normalisation": {
            "where": "in the graph; the loader does none",
            "formula": "(pixel / 255 - mean) / std",
            "mean": list(record.mean),
            "std": list(record.std),
        },
        "conforms": {"largest": LARGEST, "mean": MEAN, "unit": "levels of 0..255, in every image"},
        "expected": f"{EXPECTED}: for each image its tensor (C, H, W)",
        "images": list(images),
        "preprocessing": record.to_json(),
    }


def read(directory: Path) -> tuple[Preprocessing, list[Vector]]:
    """The record and the vectors of a finished build; raises BadRequest where there are none or any was touched."""
    noted = build_directory.report(directory).get("conformance")
    if not isinstance(noted, dict) or not noted.keys() >= {RECORD, EXPECTED}:
        raise BadRequest(f"{directory} holds no conformance vectors; build again with this version")
    for name in touched(directory, noted):
        raise BadRequest(f"{directory / name} is gone or not what this build wrote; build again")
    folder = directory / FOLDER
    try:
        record = Preprocessing.from_json(json.loads((folder / RECORD).read_text())["preprocessing"])
        with np.load(folder / EXPECTED, allow_pickle=False) as tensors:
            names = sorted(noted.keys() - {RECORD, EXPECTED})
            vectors = [Vector(name, folder / name, _open(folder / name), tensors[name]) for name in names]
        shape = (record.channels, record.input_size, record.input_size)
        whole = bool(vectors) and all(vector.expected.shape == shape for vector in vectors)
    except Exception as error:  # whoever writes the hashes as well can put anything here
        raise BadRequest(f"{folder} makes no sense ({workspace.explain(error)}); build again") from error
    if not whole:
        raise BadRequest(f"{folder} makes no sense (its tensors are not as its record says); build again")
    return record, vectors


def touched(directory: Path, noted: dict[str, str]) -> list[str]:
    """The files of ``noted`` (name to SHA-256) that are gone or others, relative to ``directory``."""
    paths = {Path(FOLDER, name): digest for name, digest in noted.items()}
    return [name for name in noted if Path(name).name != name] or [
        str(path)
        for path, digest in paths.items()
        if not (directory / path).is_file() or workspace.sha256(directory / path) != digest
    ]


def _open(path: Path) -> Image.Image:
    with Image.open(path) as image:
        image.load()
        return image.copy()
