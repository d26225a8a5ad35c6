"""Does an engine agree with itself? Needs no reference: one image has one answer, wherever it stands in a batch."""

from __future__ import annotations

from typing import Any, Callable, Iterable, Iterator, List, Tuple

import numpy as np

from .sqnr import capped_sqnr_db

# Decibels by which one image may lie below what half of them keep; a row of another image or of garbage lies 30 below.
WORST_DB = 10.0


def comparisons(
    run: Callable[[Any], Any], images: Any, logits: Any, sizes: Iterable[int]
) -> Iterator[Tuple[str, List[float]]]:
    """What is asked of ``run`` besides ``images`` (n, C, H, W), whose answers were ``logits`` (n, classes).

    For each: its name, and how far the answers agree with those expected, in dB, one for each image. ``sizes`` are the
    smaller batches that are asked. Batches of another shape may be summed in another order, so the bits may differ.
    """
    count = len(images)
    order = np.roll(np.arange(count), 1)
    yield "permuted rows", capped_sqnr_db(logits[order], run(images[order]))
    for size in sizes:
        # From the end, so that no image stands where it stood before.
        yield f"a batch of {size}", capped_sqnr_db(logits[-size:], run(images[-size:]))
    same_answer = np.repeat(logits[count - 1 :], count, axis=0)
    yield "one image in every row", capped_sqnr_db(same_answer, run(np.repeat(images[count - 1 :], count, axis=0)))
