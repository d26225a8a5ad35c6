"""The contract of preprocessing as files: a written record, images, and the tensors that must come of them."""

from __future__ import annotations

import hashlib
import io
import json
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import ExifTags, Image
from PIL import __version__ as pillow

from pipeline import __version__, workspace
from pipeline.data import loader_test_images
from pipeline.data.preprocessing import APPLY, IGNORE, TURNS, orientation
from pipeline.data.sampling import some
from pipeline.errors import BadRequest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from pipeline.data.images import Images
    from pipeline.data.preprocessing import Preprocessing

FOLDER = "conformance"
RECORD = "record.json"
EXPECTED = "expected.npz"
# Of the test images so many go along, found among so many that are looked at, none with more pixels than this.
OWN = 4
LOOKED_AT = 16
OWN_PIXELS = 2**20
# Levels of 0..255 by which an honest loader may differ in one pixel, and in the mean of one image. Measured
# (docs/conform.md): what rounds at other places is at most 2 and 0.33 away, another filter or crop at least 22 and 3.9.
LARGEST = 3.0
MEAN = 0.5
ORDERS = {
    IGNORE: "decode, convert, resize, crop; nothing else",
    APPLY: "decode, turn, convert, resize, crop; nothing else",
}
ORIENTATIONS = {
    IGNORE: "as stored: an EXIF orientation is ignored",
    APPLY: "turned upright as the EXIF orientation (tag 274, 1 to 8) says, before all else",
}
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
    """``image`` as a PNG file of its pixels and its EXIF orientation alone."""
    plain = image.copy()
    plain.info = {}  # profiles, comments and times change bytes and no pixel
    exif = Image.Exif()
    turn = orientation(image)
    if turn in TURNS:
        exif[ExifTags.Base.Orientation] = turn
    file = io.BytesIO()
    plain.save(file, "PNG", exif=exif)
    return file.getvalue()


def write(images: Images, output: Path, unfinished: Path) -> dict[str, str]:
    """SHA-256 of each file written to ``output``/conformance: the record, images and their tensors.

    The images are some of ``images`` and charts that show what those may not.
    """
    record = images.preprocessing
    tensors: dict[str, NDArray[np.float32]] = {}
    files: dict[str, bytes] = {}
    for name, image in loader_test_images.draw(record):
        tensors[name] = record.pixels(image, name)
        files[name] = _saved(image)
    for number, (content, pixels) in enumerate(islice(_own(images), OWN)):
        name = f"test-{number}.png"
        tensors[name] = pixels
        files[name] = content

    packed_tensors = io.BytesIO()
    np.savez_compressed(packed_tensors, allow_pickle=False, **tensors)
    description = json.dumps(describe(record, files), indent=1, allow_nan=False) + "\n"

    folder = output / FOLDER
    folder.mkdir(exist_ok=True)
    # An earlier build in this directory may have had more images of its own.
    for left_over in {*folder.glob("test-[0-9].png")} - {folder / name for name in files}:
        left_over.unlink()
    files[EXPECTED] = packed_tensors.getvalue()
    files[RECORD] = description.encode()
    for name, content in files.items():
        workspace.write_bytes(folder / name, content, unfinished)
    return {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}


def _own(images: Images) -> Iterator[tuple[bytes, NDArray[np.float32]]]:
    """PNG file and pixels of each test image that is small and can be held as PNG without loss."""
    candidates = some(images, LOOKED_AT)
    for index in range(len(candidates)):
        image = candidates.part.decode(index)
        if isinstance(image, np.ndarray) or image.width * image.height > OWN_PIXELS:
            continue
        content = png(image, candidates.preprocessing, candidates[index])
        if content is not None:
            yield content, candidates[index]


def describe(record: Preprocessing, images: dict[str, bytes]) -> dict[str, Any]:
    """Everything that a loader must do, for a person who has none of this code."""
    size, resize = record.input_size, record.resize
    grey = "L = (19595 R + 38470 G + 7471 B + 32768) >> 16 (ITU-R BT.601)" if record.convert else "refused"
    replicated = "the same plane three times" if record.convert else "refused"
    return {
        "schema": 1,
        "written_by": f"edge-resnet {__version__}, Pillow {pillow}",
        "decode": {
            "order": ORDERS[record.exif],
            "orientation": ORIENTATIONS[record.exif],
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
