"""What each case calibrates with, and with which weights."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.peers import networks
from pipeline.data import fashion_mnist
from pipeline.data.part import queue

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    Pixels = NDArray[np.float32]

MANY, FEW, SORTED = 512, 32, 64


def spread() -> Pixels:
    """``MANY`` training images, every class in its share."""
    part = fashion_mnist.read(None).train
    chosen = networks.images(part.take(queue(part.labels, 1)[:MANY]))
    return np.concatenate(list(chosen.batches(64)))


def outliers() -> Pixels:
    """One image in a hundred with its pixels times ten."""
    pixels = spread()
    pixels[50::100] *= 10
    return pixels


def by_class() -> Pixels:
    """``MANY`` images as a folder of classes lists them: all of one class come first."""
    part = fashion_mnist.read(None).train
    chosen = np.sort(queue(part.labels, 1)[:MANY])
    ordered = networks.images(part.take(chosen[np.argsort(part.labels[chosen], kind="stable")]))
    return np.concatenate(list(ordered.batches(64)))


# For each case: its images, whether the channels are rescaled, how many images ours is told to take of those (None:
# all, and it may take fewer) and how many the readers of the peers get, from the first on.
CASES: dict[str, tuple[Callable[[], Pixels], bool, int | None]] = {
    "plain": (spread, False, None),
    "32 images": (lambda: spread()[:FEW], False, None),
    "outliers": (outliers, False, None),
    "rescaled": (spread, True, None),
    "sorted folder": (by_class, False, SORTED),
}


def row(case: str) -> dict[str, Any]:
    """What a cell of ``case`` depends on."""
    return {"images": {"32 images": FEW}.get(case, MANY), "rescaled": CASES[case][1], "taken": CASES[case][2]}
