"""Some images of a data set, which are decoded when needed, and the choice of some of them by their classes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from numpy.typing import NDArray
    from PIL import Image

    Stored = Path | NDArray[np.generic] | None

NO_CLASS = -1  # labels from here down are of images that nothing says the class of


def _nowhere(_: int) -> None:
    """Where an image is stored that is made when it is asked for."""


@dataclass(frozen=True)
class Part:
    """Some images of a data set: ``labels`` (N,) int64, and how to decode image number i.

    ``stored`` answers what image number i is decoded from: its file, an array, or None. ``left_out`` are the names of
    images that lie beside these and are none of them: hidden ones, and what other programs keep.
    """

    labels: NDArray[np.int64]
    decode: Callable[[int], Any]
    name: Callable[[int], str]
    stored: Callable[[int], Stored] = _nowhere
    left_out: tuple[str, ...] = ()

    def __len__(self) -> int:
        """How many images."""
        return len(self.labels)

    def take(self, chosen: NDArray[np.int64]) -> Part:
        """Only these, in this order."""

        def decode(index: int) -> Any:
            return self.decode(chosen[index])

        def name(index: int) -> str:
            return self.name(chosen[index])

        def stored(index: int) -> Stored:
            return self.stored(chosen[index])

        return Part(self.labels[chosen], decode, name, stored, self.left_out)


def part_of(array: NDArray[np.uint8], labels: NDArray[np.int64], name: str) -> Part:
    """Images that lie in memory as (N, H, W) or (N, H, W, 3) uint8."""
    from PIL import Image

    def decode(index: int) -> Image.Image:
        return Image.fromarray(array[index])

    return Part(labels, decode, lambda index: f"{name} image {index}", lambda index: array[index])


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

    def stored(index: int) -> Stored:
        part = parts[int(part_number[index])]
        return part.stored(int(place[index]))

    return Part(NO_CLASS - part_number, decode, name, stored)


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
