"""Is the network itself any good: what its own answers say against it, in sentences that decide nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

LOOK_AT = "see the order of the classes and the pixels (RGB or BGR, mean and std, EXIF turns)"


def of_network(
    logits: NDArray[np.floating], labels: NDArray[np.int64], classes: int, confidence: float
) -> Iterator[str]:
    """A sentence where the float network with these ``logits`` (N, classes) may as well guess.

    Its top-1 is held against that of guessing, and of answering the commonest class always, by the exact one-sided
    binomial test at ``confidence``.
    """
    from scipy.stats import binomtest

    if len(np.unique(labels)) < 2:
        return  # where one class is all that there is, nothing can be guessed
    count = len(labels)
    right = int((logits.argmax(1) == labels).sum())
    commonest = np.bincount(labels).max() / count
    rivals = {
        "guessing": 1 / classes,
        "always answering the commonest class": float(commonest),
    }
    rival = max(rivals, key=lambda name: rivals[name])
    chance = rivals[rival]
    if binomtest(right, count, chance, alternative="greater").pvalue > 1 - confidence:
        yield (
            f"the float network answers {right} of {count} test images rightly ({100 * right / count:.2f} %), which is "
            f"not shown to be better than {rival} ({100 * chance:.2f} %): {LOOK_AT}"
        )
