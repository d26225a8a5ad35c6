"""Which images calibrate and which judge."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from pipeline.data import oddities
from pipeline.data.array_file import from_array
from pipeline.data.images import Images
from pipeline.data.part import Part, joined, spread
from pipeline.data.preprocessing import Preprocessing
from pipeline.errors import BadRequest

if TYPE_CHECKING:
    from pathlib import Path

    from pipeline.data.dataset import Dataset
    from pipeline.recipe import Recipe

# Ranges hardly move after a few hundred images (Wu et al. 2020, arXiv 2004.09602, calibrate on 1024).
CALIBRATION = 512
ARRAYS = {".npy", ".npz"}


def calibration(recipe: Recipe, data: Dataset, preprocessing: Preprocessing) -> Images:
    """The images that calibrate: the user's own, or some of the data set's, spread over its classes."""
    available = data.calibration if recipe.calib_data is None else part(recipe.calib_data, "--calib-data")
    return _chosen(available, "--calib-samples", recipe.calib_samples, CALIBRATION, recipe.seed, preprocessing)


def test(recipe: Recipe, data: Dataset, preprocessing: Preprocessing) -> Images:
    """The images that judge: all of the test part, or some, spread over its classes."""
    return _chosen(data.test, "--test-samples", recipe.test_samples, len(data.test), recipe.seed, preprocessing)


def users_images(path: Path, model: Path) -> Images:
    """The user's images at ``path`` as the ONNX file ``model`` says that it wants them."""
    from exporters import onnx_file

    try:
        record = json.loads(onnx_file.read(model).metadata_props["preprocessing"])
        preprocessing = Preprocessing.from_json(record)
    except (KeyError, TypeError, ValueError) as error:
        raise BadRequest(
            f"{model.name} does not say how it wants its images ({error}); give a file of a build"
        ) from error
    return Images(part(path, "--images"), preprocessing)


def some(images: Images, count: int, seed: int = 0) -> Images:
    """At most ``count`` of ``images``, spread over their classes."""
    chosen = spread(images.labels, min(count, len(images)), seed)
    return Images(images.part.take(chosen), images.preprocessing)


def part(path: Path, flag: str) -> Part:
    """The user's images at ``path``: a folder of them, or arrays; ``flag`` is for the error.

    A line says how many hidden ones are left out.
    """
    if not path.exists():
        raise BadRequest(f"{flag} {path}: there is no such file or folder")
    if path.is_dir():
        found = _part_of_folder(path, flag)
        oddities.say_left_out(found)
        return found
    if path.suffix not in ARRAYS:
        raise BadRequest(f"{flag} {path}: it takes a folder of images, or pixels in {', '.join(sorted(ARRAYS))}")
    return from_array(path)


def _part_of_folder(path: Path, flag: str) -> Part:
    from pipeline.data import folder

    arrays = sorted(file for file in path.iterdir() if file.suffix in ARRAYS)
    shards = [file for file in arrays if not folder.is_hidden(file.name)]
    if not shards:
        return folder.plain(path, flag)
    images = folder.files_below(path)
    if images.found:
        raise BadRequest(f"{flag} {path} holds images and arrays; give a folder of one kind")
    hidden = [*map(str, images.left_out), *(str(file) for file in arrays if file not in shards)]
    return replace(joined([from_array(file) for file in shards]), left_out=tuple(hidden))


def _chosen(
    available: Part, flag: str, asked: int | None, default: int, seed: int, preprocessing: Preprocessing
) -> Images:
    if asked is not None and asked > len(available):
        raise BadRequest(f"{flag} {asked}: there are only {len(available)} images; ask for at most that many")
    count = min(asked or default, len(available))
    judges = flag == "--test-samples"
    images = Images(available.take(spread(available.labels, count, seed)), preprocessing, looked_at=judges)
    if judges and len(np.unique(images.labels)) < 2:
        raise BadRequest(f"{flag} {count}: the {count} images show one class only; ask for more")
    _ = images.digest  # decodes every image once, so that an unreadable one is found before any work is done
    return images
