"""How much of the error each look at one question may use, so that all looks together use no more than all of it.

Who judges, adds images and judges again has two chances of a wrong pass, and a pass ends the looking. Spending the
error over the looks (Lan and DeMets 1983, Biometrika 70:659) keeps the chance of a wrong verdict at any of them within
what was asked for. The shares add up to 1, which is enough whatever the looks have to do with each other (Bonferroni):
it also holds where every look is at another file, and the best one is kept (alpha-spending, Foster and Stine 2008,
Journal of the Royal Statistical Society B 70:429).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pipeline.stage import Tolerance

# Nearly all, since most builds are looked at once: from a confidence of 0.95 on the first look costs 4 % more images at
# most.
FIRST = 0.94
# The double next to 1: an error below that cannot be written as a confidence.
MOST = 1 - 2**-53


def share(look: int) -> float:
    """The share of the error that look number ``look``, from 1, may use; over all looks they add up to 1.

    What the first leaves is given out as 1 / (k (k - 1)): these add up to 1 over k = 2, 3, ..., and never reach 0.
    """
    if look == 1:
        return FIRST
    return (1 - FIRST) / (look * (look - 1))


def confidence_of(look: int, confidence: float) -> float:
    """What the bounds of look number ``look`` must hold with, so that all looks together hold with ``confidence``."""
    return min(1 - share(look) * (1 - confidence), MOST)


def spent(tolerance: Tolerance) -> float:
    """What each bound of the look of ``tolerance`` must hold with."""
    if tolerance.look is None:
        return tolerance.confidence
    return confidence_of(tolerance.look, tolerance.confidence)


def spent_next(tolerance: Tolerance) -> float:
    """What each bound must hold with at the look after that of ``tolerance``."""
    if tolerance.look is None:
        return tolerance.confidence
    return confidence_of(tolerance.look + 1, tolerance.confidence)
