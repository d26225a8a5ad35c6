"""The contract of preprocessing that a finished build keeps as files, read back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from pipeline import workspace
from pipeline.data.conformance import EXPECTED, FOLDER, RECORD, Vector
from pipeline.data.preprocessing import Preprocessing
from pipeline.errors import BadRequest

if TYPE_CHECKING:
    from pipeline.finished.finished_build import FinishedBuild


def read(build: FinishedBuild) -> tuple[Preprocessing, list[Vector]]:
    """The record and the vectors of ``build``; raises BadRequest where there are none or any was touched."""
    digests = build.conformance_digests
    if digests is None or RECORD not in digests or EXPECTED not in digests:
        raise BadRequest(f"{build.directory} holds no conformance vectors; build again with this version")
    for name in touched(build.directory, digests):
        raise BadRequest(f"{build.directory / name} is gone or not what this build wrote; build again")

    folder = build.directory / FOLDER
    image_names = sorted(digests.keys() - {RECORD, EXPECTED})
    try:
        record = Preprocessing.from_json(json.loads((folder / RECORD).read_text())["preprocessing"])
        with np.load(folder / EXPECTED, allow_pickle=False) as tensors:
            vectors = [Vector(name, folder / name, _image(folder / name), tensors[name]) for name in image_names]
        shape = (record.channels, record.input_size, record.input_size)
        whole = bool(vectors) and all(vector.expected.shape == shape for vector in vectors)
    except Exception as error:  # whoever writes the hashes as well can put anything here
        raise BadRequest(f"{folder} makes no sense ({workspace.explain(error)}); build again") from error
    if not whole:
        raise BadRequest(f"{folder} makes no sense (its tensors are not as its record says); build again")
    return record, vectors


def touched(directory: Path, digests: dict[str, str]) -> list[str]:
    """The files of ``digests`` (name to SHA-256) that are gone or others, relative to ``directory``."""
    # A name with a folder in it would lead out of the build.
    outside = [name for name in digests if Path(name).name != name]
    if outside:
        return outside

    names = []
    for name, digest in digests.items():
        path = Path(FOLDER, name)
        file = directory / path
        if not file.is_file() or workspace.sha256(file) != digest:
            names.append(str(path))
    return names


def _image(path: Path) -> Image.Image:
    with Image.open(path) as image:
        image.load()
        return image.copy()
