"""A folder of images: train/CLASS/ and val/CLASS/, anything that Pillow reads."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from pipeline.data.dataset import Dataset
from pipeline.data.images import Part
from pipeline.data.preprocessing import GREY, Preprocessing
from pipeline.errors import BadRequest

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def read(root: Path) -> Dataset:
    """The images below ``root``; raises BadRequest where parts, classes or images are missing."""
    classes = _classes(root / "train")
    test_classes = _classes(root / "val")
    if test_classes != classes:
        odd = min(set(classes) ^ set(test_classes))
        raise BadRequest(f"--data {root}: class {odd} is in only one of train/ and val/; both need the same classes")
    if len(classes) < 2:
        raise BadRequest(f"--data {root} has only the class {classes[0]}; a classifier needs at least two")
    train = _labelled(root / "train", classes)
    test = _labelled(root / "val", classes)
    # The first image speaks for all; one of the other kind is refused by name when it is read.
    is_grey = _open(files_below(root / "train")[0]).mode in GREY
    mean, std = ((0.5,), (0.25,)) if is_grey else IMAGENET
    return Dataset(
        source=f"{root} ({len(train)} training and {len(test)} test images of {len(classes)} classes)",
        classes=tuple(classes),
        train=train,
        calibration=train,
        test=test,
        preprocessing=Preprocessing(224, 256, "bilinear", 1 if is_grey else 3, mean, std),
        epochs=10,
    )


def plain(root: Path, flag: str) -> Part:
    """All images below ``root``, the first level of folders taken for classes; ``flag`` is for the error."""
    files = files_below(root)
    if not files:
        raise BadRequest(f"{flag} {root} holds no images; point it to a folder of images or an .npy/.npz file")
    # Of an image that lies in no folder this is its own name: a class of one.
    first_parts = [path.relative_to(root).parts[0] for path in files]
    classes = sorted(set(first_parts))
    return _part(files, [classes.index(part) for part in first_parts])


def _classes(part: Path) -> list[str]:
    if not part.is_dir():
        raise BadRequest(f"--data {part.parent}: there is no folder {part.name}/; it needs train/CLASS/ and val/CLASS/")
    names = sorted(child.name for child in part.iterdir() if child.is_dir() and not child.name.startswith("."))
    if not names:
        raise BadRequest(f"--data {part.parent}: {part.name}/ is empty; it needs one folder of images per class")
    return names


def _labelled(part: Path, classes: list[str]) -> Part:
    files: list[Path] = []
    labels: list[int] = []
    for label, name in enumerate(classes):
        files_of_class = files_below(part / name)
        if not files_of_class:
            raise BadRequest(f"--data: {part / name} holds no images; remove the class or add images to it")
        files += files_of_class
        labels += [label] * len(files_of_class)
    return _part(files, labels)


def files_below(folder: Path) -> list[Path]:
    """All that Pillow may read, at any depth, in alphabetical order."""
    known = Image.registered_extensions()
    return sorted(path for path in folder.rglob("*") if path.is_file() and path.suffix.lower() in known)


def _part(files: list[Path], labels: Sequence[int]) -> Part:
    def decode(index: int) -> Image.Image:
        return _open(files[index])

    return Part(np.array(labels, np.int64), decode, lambda index: str(files[index]))


def _open(path: Path) -> Image.Image:
    try:
        with Image.open(path) as image:
            image.load()
            return image.copy()
    except Exception as error:  # every decoder has errors of its own
        raise BadRequest(f"{path} is no readable image ({error}); repair or remove it") from error
