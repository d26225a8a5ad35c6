"""Photographs without labels, cut into crops; no photograph gives crops to both calibration and test."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    Pixels = NDArray[np.uint8]

SUFFIXES = {".jpg", ".jpeg", ".png"}
# Where photographs lie in what was fetched, and how many levels above a file stand for one photograph: a wallpaper is
# there in many sizes, by day and by night.
FOLDERS = {
    "foolbox/data/imagenet_*": 0,
    "skimage/data/*": 0,
    "sklearn/datasets/images/*": 0,
    "usr/share/wallpapers/*/contents/images*/*": 3,
}
# Drawings, text, masks and the second half of a stereo pair.
LEFT_OUT = {"logo", "text", "page", "color", "horse", "phantom", "microaneurysms", "motorcycle_right", "clock_motion"}
# A crop has this share of the photograph's area, and this ratio of its sides (those of ImageNet's training).
AREA = (0.08, 1.0)
RATIO = (3 / 4, 4 / 3)
# A photograph is brought to this many pixels on its shorter side before it is cut.
SHORTER = 512


def sources(folder: Path) -> list[Path]:
    """One file for each photograph in ``folder``, the smallest that is large enough, in an order of names."""
    files: dict[str, list[Path]] = {}
    for part, levels in FOLDERS.items():
        for path in sorted(folder.rglob(part)):
            if path.suffix.lower() not in SUFFIXES or path.stem in LEFT_OUT or path.stem.startswith("chessboard"):
                continue
            place = path.parents[levels - 1] if levels else path
            files.setdefault(f"{part}/{place.name}", []).append(path)
    chosen = []
    for name in sorted(files):
        sized = sorted((_shorter_side(path), path) for path in files[name])
        enough = [path for size, path in sized if size >= SHORTER]
        chosen.append(enough[0] if enough else sized[-1][1])
    return chosen


def parts(files: Sequence[Path]) -> tuple[Sequence[Path], Sequence[Path]]:
    """The photographs of calibration and those of the test: every second one."""
    return files[::2], files[1::2]


def crops(files: Sequence[Path], count: int, size: int, seed: int, strip: tuple[float, float] = (0, 1)) -> Pixels:
    """``count`` crops of ``files``, (count, 3, size, size) uint8 RGB, in turn one of each.

    They come from a ``strip`` of each photograph, from one share of its width to another.
    """
    photographs = [_opened(path, strip) for path in files]
    rng = np.random.default_rng(seed)
    turns = (photographs[number % len(photographs)] for number in range(count))
    return np.stack(list(_cut(turns, size, rng)))


def digest(files: Iterable[Path]) -> str:
    """Eight digits that tell these photographs from others."""
    found = hashlib.sha256()
    for path in files:
        found.update(path.read_bytes())
    return found.hexdigest()[:8]


def _shorter_side(path: Path) -> int:
    with Image.open(path) as stored:
        return min(stored.size)


def _opened(path: Path, strip: tuple[float, float]) -> Image.Image:
    with Image.open(path) as stored:
        image = stored.convert("RGB")
    factor = SHORTER / min(image.size)
    if factor < 1:
        width, height = (round(factor * side) for side in image.size)
        image = image.resize((width, height), Image.Resampling.BOX)
    left, right = (round(share * image.width) for share in strip)
    return image.crop((left, 0, right, image.height))


def _cut(photographs: Iterable[Image.Image], size: int, rng: np.random.Generator) -> Iterator[Pixels]:
    for photograph in photographs:
        area = rng.uniform(*AREA) * photograph.width * photograph.height
        ratio = np.exp(rng.uniform(*np.log(RATIO)))
        width = min(photograph.width, round(np.sqrt(area * ratio)))
        height = min(photograph.height, round(np.sqrt(area / ratio)))
        left = rng.integers(photograph.width - width + 1)
        top = rng.integers(photograph.height - height + 1)
        box = (left, top, left + width, top + height)
        crop = photograph.resize((size, size), Image.Resampling.BILINEAR, box)
        pixels = np.asarray(crop).transpose(2, 0, 1)
        yield pixels[:, :, ::-1] if rng.integers(2) else pixels
