"""Crops of photographs as what calibrates and what judges: an array for the peers, folders of images for our build."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from benchmarks.real import photo_head, photos
from pipeline.data.images import Images
from pipeline.data.part import part_of
from pipeline.data.preprocessing import Preprocessing

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    Pixels = NDArray[np.uint8]
    Labels = NDArray[np.int64]

CALIBRATION_CROPS = 512


@dataclass(frozen=True)
class Crops:
    """``pixels`` (N, 3, S, S), and the photograph that each comes from, by its number in the files given."""

    pixels: Pixels
    photograph: Labels


def of_different_photographs(files: Sequence[Path], size: int, test_count: int) -> tuple[Crops, Crops]:
    """Those that calibrate and those that judge, of which no photograph has both."""
    calibration, test = photos.parts(files)
    return _crops(calibration, CALIBRATION_CROPS, size, 0), _crops(test, test_count, size, 1)


def of_different_strips(files: Sequence[Path], size: int, test_count: int) -> tuple[Crops, Crops]:
    """Those that calibrate and those that judge, from other parts of every photograph than its head was trained on."""
    calibration = _crops(files, CALIBRATION_CROPS, size, 0, photo_head.CALIBRATION)
    return calibration, _crops(files, test_count, size, 1, photo_head.TEST)


def _crops(files: Sequence[Path], count: int, size: int, seed: int, strip: tuple[float, float] = (0, 1)) -> Crops:
    return Crops(photos.crops(files, count, size, seed, strip), np.arange(count) % len(files))


def images(pixels: Pixels, labels: Labels) -> Images:
    """Pixels as they are, for the judge."""
    size = pixels.shape[2]
    # The normalisation stands in every graph; nobody asks for it here.
    preprocessing = Preprocessing(size, size, "bilinear", 3, (0.0,), (1.0,))
    return Images(part_of(pixels.transpose(0, 2, 3, 1), labels, "crop"), preprocessing)


def leaning(logits: NDArray[np.float32]) -> Labels:
    """The class of each image by the answers of the float network, with every class in it.

    A folder of a data set has images in each class. Where no image is answered by a class, the one that leans to it
    most stands there: its label is then no answer of the network.
    """
    labels = np.asarray(logits.argmax(1), np.int64)
    for absent in sorted(set(range(logits.shape[1])) - set(labels.tolist())):
        # Not the last image of another class, which would be absent then.
        is_spare = np.bincount(labels, minlength=logits.shape[1])[labels] > 1
        lead = np.where(is_spare, logits[:, absent] - logits.max(1), -np.inf)
        labels[int(lead.argmax())] = absent
    return labels


def write_folder(folder: Path, part: str, pixels: Pixels, labels: Labels) -> None:
    """Images of one part, train or val, as ``folder``/part/CLASS/NUMBER.png."""
    unfinished = folder / f".{part}"
    shutil.rmtree(unfinished, ignore_errors=True)
    for number, (image, label) in enumerate(zip(pixels, labels, strict=True)):
        place = unfinished / f"{label:03d}"
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image.transpose(1, 2, 0)).save(place / f"{number:04d}.png", compress_level=1)
    unfinished.rename(folder / part)
