"""Which images calibrate and which judge."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from pipeline.data.images import Images, Part, from_array, spread
from pipeline.errors import BadRequest

if TYPE_CHECKING:
    from pathlib import Path

    from pipeline.data.dataset import Dataset
    from pipeline.data.preprocessing import Preprocessing
    from pipeline.recipe import Recipe

# Ranges hardly move after a few hundred images (Wu et al. 2020, arXiv 2004.09602, calibrate on 1024).
CALIBRATION = 512
ARRAYS = {".npy", ".npz"}


def calibration(recipe: Recipe, data: Dataset, preprocessing: Preprocessing) -> Images:
    """The images that calibrate: the user's own, or some of the data set's, spread over its classes."""
    part = data.calibration if recipe.calib_data is None else _own(recipe.calib_data)
    return _chosen(part, "--calib-samples", recipe.calib_samples, CALIBRATION, recipe.seed, preprocessing)


def test(recipe: Recipe, data: Dataset, preprocessing: Preprocessing) -> Images:
    """The images that judge: all of the test part, or some, spread over its classes."""
    return _chosen(data.test, "--test-samples", recipe.test_samples, len(data.test), recipe.seed, preprocessing)


def _own(path: Path) -> Part:
    if not path.exists():
        raise BadRequest(f"--calib-data {path}: there is no such file or folder")
    if path.is_dir():
        from pipeline.data import folder

        return folder.plain(path)
    if path.suffix not in ARRAYS:
        raise BadRequest(f"--calib-data {path}: it takes a folder of images or a file in {', '.join(sorted(ARRAYS))}")
    return from_array(path)


def _chosen(part: Part, flag: str, asked: int | None, default: int, seed: int, preprocessing: Preprocessing) -> Images:
    if asked is not None and asked > len(part):
        raise BadRequest(f"{flag} {asked}: there are only {len(part)} images; ask for at most that many")
    count = min(asked or default, len(part))
    images = Images(part.take(spread(part.labels, count, seed)), preprocessing)
    if flag == "--test-samples" and len(np.unique(images.labels)) < 2:
        raise BadRequest(f"{flag} {count}: the {count} images show one class only; ask for more")
    _ = images.digest  # decodes every image once, so that an unreadable one is found before any work is done
    return images
