"""Labelled images that are decoded when needed, and the batches that everything downstream eats."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.console.progress import bar
from pipeline.errors import BadRequest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from pipeline.data.preprocessing import Preprocessing

# Decoded images are kept, as bytes, when they fit in here; larger sets are decoded again for every pass.
CACHE_BYTES = 2**28
NO_CLASS = -1  # labels from here down are of images that nothing says the class of
BATCH_BYTES = 2**24


@dataclass(frozen=True)
class Part:
    """Some images of a data set: ``labels`` (N,) int64, and how to decode image number i."""

    labels: NDArray[np.int64]
    decode: Callable[[int], Any]
    name: Callable[[int], str]

    def __len__(self) -> int:
        """How many images."""
        return len(self.labels)

    def take(self, chosen: NDArray[np.int64]) -> Part:
        """Only these, in this order."""

        def decode(index: int) -> Any:
            return self.decode(chosen[index])

        def name(index: int) -> str:
            return self.name(chosen[index])

        return Part(self.labels[chosen], decode, name)


def part_of(array: NDArray[np.uint8], labels: NDArray[np.int64], name: str) -> Part:
    """Images that lie in memory as (N, H, W) or (N, H, W, 3) uint8."""
    from PIL import Image

    def decode(index: int) -> Image.Image:
        return Image.fromarray(array[index])

    return Part(labels, decode, lambda index: f"{name} image {index}")


def joined(parts: Sequence[Part]) -> Part:
    """``parts`` without classes one behind the other, each labelled by its number, from NO_CLASS down."""
    sizes = [len(part) for part in parts]
    # For every image, the number of its part and its place there.
    part_number = np.repeat(np.arange(len(parts)), sizes)
    place = np.concatenate([np.arange(size) for size in sizes])

    def decode(index: int) -> Any:
        part = parts[int(part_number[index])]
        return part.decode(int(place[index]))

    def name(index: int) -> str:
        part = parts[int(part_number[index])]
        return part.name(int(place[index]))

    return Part(NO_CLASS - part_number, decode, name)


def spread(labels: NDArray[np.int64], count: int, seed: int) -> NDArray[np.int64]:
    """``count`` indices with every class in its share, chosen by ``seed``, in ascending order."""
    return np.sort(queue(labels, seed)[:count])


def queue(labels: NDArray[np.int64], seed: int) -> NDArray[np.int64]:
    """All indices in an order, chosen by ``seed``, of which any head has every class in its share."""
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(labels))
    # The k-th of the n images of a class stands at (k + 1/2) / n of the queue.
    place = np.empty(len(labels))
    for label in np.unique(labels):
        members = order[labels[order] == label]
        place[members] = (np.arange(len(members)) + 0.5) / len(members)
    # Images of classes of one size share a place; there the shuffled order decides, not the class.
    tie = np.empty(len(labels), np.int64)
    tie[order] = np.arange(len(labels))
    return np.lexsort((tie, place))  # by place, then by tie


class Images:
    """A part as the network sees it: ``batches()`` yields (n, C, H, W) float32 0..255."""

    def __init__(self, part: Part, preprocessing: Preprocessing) -> None:
        self.part = part
        self.labels = part.labels
        self.preprocessing = preprocessing
        size = preprocessing.input_size
        self.shape = (preprocessing.channels, size, size)

    def __len__(self) -> int:
        """How many images."""
        return len(self.part)

    @property
    def batch_size(self) -> int:
        """As many images as keep the activations of a network within a few hundred megabytes."""
        image_bytes = 4 * int(np.prod(self.shape))
        return max(1, min(64, BATCH_BYTES // (4 * image_bytes)))

    @property
    def observed_batch_size(self) -> int:
        """How many images are computed at once where every activation is kept: one at 224 pixels.

        Their activations are in memory together with those of the batch before.
        """
        return max(1, self.batch_size // 24)

    def __getitem__(self, index: int) -> NDArray[np.float32]:
        """Image ``index`` as (C, H, W) float32 0..255; raises BadRequest naming an image that cannot be read."""
        image = self.part.decode(index)
        if isinstance(image, np.ndarray):
            return self.preprocessing.float_pixels(image, self.part.name(index))
        return self.preprocessing.pixels(image, self.part.name(index))

    @cached_property
    def _kept(self) -> NDArray[np.uint8] | None:
        """All images as bytes; None where they do not fit, or where some pixel is no byte."""
        if len(self) * int(np.prod(self.shape)) > CACHE_BYTES:
            return None
        kept = np.empty((len(self), *self.shape), np.uint8)
        for index in range(len(self)):
            image = self[index]
            with np.errstate(invalid="ignore"):  # a cast that overflows is found by the comparison
                kept[index] = image
            if not np.array_equal(kept[index], image):  # an array's pixels may be between or beyond bytes
                return None
        return kept

    def batches(self, size: int | None = None) -> Iterator[NDArray[np.float32]]:
        """All images in order, ``size`` at a time; the last batch may be smaller."""
        step = size or self.batch_size
        for start in range(0, len(self), step):
            end = min(start + step, len(self))
            yield self.select(np.arange(start, end))

    def select(self, chosen: NDArray[np.int64]) -> NDArray[np.float32]:
        """The images of these indices as one batch."""
        if self._kept is not None:
            return self._kept[chosen].astype(np.float32)
        return np.stack([self[index] for index in chosen])

    @cached_property
    def distinct(self) -> NDArray[np.bool_]:
        """(N,), False of an image whose pixels an earlier one has."""
        return np.ones(len(self), np.bool_)

    @cached_property
    def digest(self) -> str:
        """SHA-256 over every pixel and label; reading them all also finds the images that cannot be read."""
        sha256 = hashlib.sha256(repr(self.shape).encode() + self.labels.tobytes())
        with bar("reading images", len(self)) as advance:
            for index in range(len(self)):
                sha256.update(self[index].tobytes())
                advance()
        return sha256.hexdigest()


def from_array(path: Path) -> Part:
    """The images in an .npy file, or in an .npz file under ``images`` or alone: (N, C, H, W) pixels 0..255."""
    try:
        array = _array(path)
    except BadRequest:
        raise
    except Exception as error:  # a damaged archive ends in any error there is
        raise BadRequest(f"{path} is no readable array of numbers ({error}); write it with numpy.save") from error
    if array.ndim != 4 or array.dtype.kind not in "uif" or array.shape[1] not in {1, 3} or not array.size:
        raise BadRequest(
            f"{path} holds {array.dtype} {array.shape}; "
            "calibration images are pixels 0..255 of shape (N, C, H, W) with C 1 or 3"
        )
    _refuse_range(array, path)

    # Without a copy of the whole: an .npy file is mapped into memory, and only the image that is asked for is read.
    return Part(np.full(len(array), NO_CLASS), lambda index: np.asarray(array[index]), lambda index: f"{path}[{index}]")


def _refuse_range(array: NDArray[np.generic], path: Path) -> None:
    """Raise BadRequest where pixels are no numbers, or where most images are not of pixels 0..255.

    Most and not any: a dark image has no pixel above 1 either.
    """
    # Image by image, since the file may be larger than memory.
    lows = np.empty(len(array))
    highs = np.empty(len(array))
    for index, image in enumerate(array):
        lows[index] = image.min()
        highs[index] = image.max()
    if not np.isfinite([lows, highs]).all():  # the minimum of NaN is NaN
        raise BadRequest(f"{path} holds NaN or infinite pixels; remove those images")
    for is_odd, what in (
        (highs <= 1, "no pixel above 1"),
        (lows < 0, "pixels below 0"),
        (highs > 255, "pixels above 255"),
    ):
        if 2 * is_odd.sum() > len(array):
            raise BadRequest(
                f"{path}: {is_odd.sum()} of {len(array)} images have {what}; give pixels 0..255 as they are before "
                "normalisation, which is in the network"
            )


def _array(path: Path) -> NDArray[np.generic]:
    # An .npz file cannot be mapped: its arrays are compressed.
    loaded = np.load(path, allow_pickle=False, mmap_mode="r" if path.suffix == ".npy" else None)
    if not isinstance(loaded, np.lib.npyio.NpzFile):
        return np.asanyarray(loaded)
    names = list(loaded)
    if "images" in names:
        return np.asarray(loaded["images"])
    if len(names) != 1:
        raise BadRequest(f"{path} holds {', '.join(names) or 'nothing'}; name the array of pixels 'images'")
    return np.asarray(loaded[names[0]])
