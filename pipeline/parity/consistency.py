"""Does a file agree with itself? Needs no reference: the same image has one answer, wherever it stands in a batch."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from exporters.portable import consistency
from exporters.portable.consistency import WORST_DB

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from pipeline.data.images import Images

    Run = Callable[[NDArray[np.float32]], NDArray[np.float32]]

# The largest batch of an engine's profile, and smaller ones: its least, a ragged one, and the one it is tuned for.
BATCH = 16
SMALLER = (1, 3, 8)


def sample(images: Images) -> NDArray[np.float32]:
    """A full batch of images from all over the set, (BATCH, C, H, W); some of them twice where there are too few."""
    return images.select(np.linspace(0, len(images) - 1, BATCH).astype(np.int64))


def contradictions(run: Run, images: NDArray[np.float32], least_db: float) -> list[str]:
    """Each way in which ``run`` contradicts itself on ``images`` (n, C, H, W), as a sentence; empty where it agrees.

    Batches of another shape may be summed in another order, so answers count as the same when their median SQNR is at
    least ``least_db`` and none is more than a little below; the same batch twice must give the same bits.
    """
    logits = run(images)
    sentences = []
    if not np.array_equal(logits, run(images)):
        sentences.append("the same batch twice gives two answers")

    for name, agreement_db in consistency.comparisons(run, images, logits, SMALLER):
        median_db = float(np.median(agreement_db))
        worst_db = min(agreement_db)
        if median_db < least_db:
            sentences.append(f"{name}: half of the answers agree to {median_db:.1f} dB only, not {least_db:g}")
        if worst_db < least_db - WORST_DB:
            sentences.append(f"{name}: one of the answers agree to {worst_db:.1f} dB only, not {least_db - WORST_DB:g}")
    return sentences
