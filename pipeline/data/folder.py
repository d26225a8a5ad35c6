"""A folder of images: train/CLASS/ and val/CLASS/, anything that Pillow reads."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from pipeline.data import oddities, seeing
from pipeline.data.dataset import Dataset
from pipeline.data.part import Part
from pipeline.data.preprocessing import GREY, Preprocessing
from pipeline.errors import BadRequest

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
# Folders of other programs beside those whose names begin with a dot: what macOS packs into archives, thumbnails,
# snapshots and recycle bins of file servers. Names that a class may have, such as thumbs, are none of them.
OF_PROGRAMS = {
    "__macosx", "@eadir", "@__thumb", "@tmp", "@recycle", "#recycle", "$recycle.bin", "#snapshot", "~snapshot",
    "@recently-snapshot", "system volume information", "lost+found",
}  # fmt: skip

# What Pillow calls 16 bits a channel, as in RGB;16B. BGR;16 of a BMP file are 16 bits for all three.
SIXTEEN_BITS = re.compile(";16[BLN]")


@dataclass(frozen=True)
class Files:
    """Images below a folder: those ``found``, and those ``left_out`` since they or a folder there are hidden."""

    found: list[Path]
    left_out: list[Path]


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
    oddities.say_left_out(train, test)
    # The first image speaks for all; one of the other kind is refused by name when it is read.
    is_grey = train.decode(0).mode in GREY
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
    if not files.found:
        raise BadRequest(
            f"{flag} {root} holds no images{_hidden(files)}; point it to a folder of images or an .npy/.npz file"
        )
    # Of an image that lies in no folder this is its own name: a class of one.
    first_parts = [path.relative_to(root).parts[0] for path in files.found]
    labels = {name: label for label, name in enumerate(sorted(set(first_parts)))}
    return _part(files.found, [labels[part] for part in first_parts], files.left_out)


def _hidden(files: Files) -> str:
    """What an error says of a folder that holds images that nobody sees."""
    if not files.left_out:
        return ""
    return f" but {len(files.left_out)} hidden ones ({files.left_out[0]})"


def is_hidden(name: str) -> bool:
    """Whether a file or folder of this name is hidden, or is kept by another program."""
    return name.startswith(".") or name.casefold() in OF_PROGRAMS


def _classes(part: Path) -> list[str]:
    if not part.is_dir():
        raise BadRequest(f"--data {part.parent}: there is no folder {part.name}/; it needs train/CLASS/ and val/CLASS/")
    names = sorted(child.name for child in part.iterdir() if child.is_dir() and not is_hidden(child.name))
    if not names:
        raise BadRequest(f"--data {part.parent}: {part.name}/ is empty; it needs one folder of images per class")
    return names


def _labelled(part: Path, classes: list[str]) -> Part:
    files: list[Path] = []
    labels: list[int] = []
    left_out: list[Path] = []
    for label, name in enumerate(classes):
        of_class = files_below(part / name)
        if not of_class.found:
            raise BadRequest(
                f"--data: {part / name} holds no images{_hidden(of_class)}; remove the class or add images to it"
            )
        files += of_class.found
        labels += [label] * len(of_class.found)
        left_out += of_class.left_out
    for child in part.iterdir():
        if is_hidden(child.name):
            left_out += _images(child)
    return _part(files, labels, sorted(left_out))


def files_below(folder: Path) -> Files:
    """All that Pillow may read, at any depth, in alphabetical order; what is hidden below ``folder`` is left out."""
    files = Files([], [])
    for path in _images(folder):
        # Where the folder itself lies says nothing.
        parts = path.relative_to(folder).parts
        kind = files.left_out if any(map(is_hidden, parts)) else files.found
        kind.append(path)
    return files


def _images(folder: Path) -> list[Path]:
    known = Image.registered_extensions()
    return sorted(path for path in folder.rglob("*") if path.suffix.lower() in known and path.is_file())


def _part(files: list[Path], labels: Sequence[int], left_out: list[Path]) -> Part:
    def decode(index: int) -> Image.Image:
        return _open(files[index])

    return Part(
        labels=np.array(labels, np.int64),
        decode=decode,
        name=lambda index: str(files[index]),
        stored=lambda index: files[index],
        left_out=tuple(map(str, left_out)),
    )


def _open(path: Path) -> Image.Image:
    try:
        with Image.open(path) as image:
            # How the file has its pixels is known before they are read.
            has_16_bits = any(SIXTEEN_BITS.search(str(tile)) for tile in image.tile)
            image.load()
            copied = image.copy()
    except Exception as error:  # every decoder has errors of its own
        raise BadRequest(f"{path} is no readable image ({error}); repair or remove it") from error
    if has_16_bits:
        copied.info[seeing.STORED_16] = True
    return copied
