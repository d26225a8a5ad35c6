"""Does a file agree with itself? Needs no reference: the same image has one answer, wherever it stands in a batch."""

from __future__ import annotations

from statistics import median
from typing import TYPE_CHECKING

import numpy as np

from pipeline.parity.depth import capped_sqnr_db

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    from pipeline.data.images import Images

    Run = Callable[[NDArray[np.float32]], NDArray[np.float32]]

# The largest batch of an engine's profile, and smaller ones: its least, a ragged one, and the one it is tuned for.
BATCH = 16
SMALLER = (1, 3, 8)
# Decibels by which one image may lie below what all of them keep; a row of another image, or of garbage, lies 30 below.
WORST = 10.0


def sample(images: Images) -> NDArray[np.float32]:
    """A full batch of images from all over the set, (BATCH, C, H, W); some of them twice where there are too few."""
    return images.select(np.linspace(0, len(images) - 1, BATCH).astype(np.int64))


def contradictions(run: Run, images: NDArray[np.float32], least_db: float) -> list[str]:
    """Each way in which ``run`` contradicts itself on ``images`` (n, C, H, W), as a sentence; empty where it agrees.

    Batches of another shape may be summed in another order, so answers count as the same when their median SQNR is at
    least ``least_db`` and none is more than a little below; the same batch twice must give the same bits.
    """
    whole = run(images)
    found = [] if np.array_equal(whole, run(images)) else ["the same batch twice gives two answers"]
    for name, expected, answered in _pairs(run, images, whole):
        agree = capped_sqnr_db(expected, answered)
        for what, found_db, asked_db in (
            ("half of the", median(agree), least_db),
            ("one of the", min(agree), least_db - WORST),
        ):
            if found_db < asked_db:
                found.append(f"{name}: {what} answers agree to {found_db:.1f} dB only, not {asked_db:g}")
    return found


def _pairs(
    run: Run, images: NDArray[np.float32], whole: NDArray[np.float32]
) -> Iterator[tuple[str, NDArray[np.float32], NDArray[np.float32]]]:
    """What is compared: a name, the answers expected, and those given."""
    last = len(images) - 1
    order = np.roll(np.arange(len(images)), 1)
    yield "permuted rows", whole[order], run(images[order])
    for size in SMALLER:
        yield f"a batch of {size}", whole[-size:], run(images[-size:])
    same = run(np.repeat(images[last:], len(images), axis=0))
    yield "one image in every row", np.repeat(whole[last:], len(images), axis=0), same
