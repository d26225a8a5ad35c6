"""From figures to a verdict: pass, fail, or undecided where the images are too few to tell."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.parity.paired import images_that_decide
from pipeline.stage import SAME_BITS

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from pipeline.stage import Drift, Drop, Tolerance


def judge(
    tolerance: Tolerance, drift: Drift, step: Drift, drop: Drop, n: int, refuted: Sequence[str] = ()
) -> tuple[str, list[str]]:
    """The verdict on a stage and, unless it is a pass, the reasons with their figures.

    ``n`` is the number of test images and ``refuted`` what was disproved without looking at them. A drop is refuted
    when its upper bound lies below the margin, proven when its lower bound lies above, and undecided in between.
    """
    breaches = list(refuted) + [
        f"{name} is {found:.4g}, below its bound of {bound:g}"
        for name, found, bound in (
            ("median SQNR in dB against PyTorch", drift.sqnr_db, tolerance.sqnr_db),
            ("median SQNR in dB against the file before", step.sqnr_db, tolerance.step_sqnr_db),
            ("share of top-1 answers as PyTorch gives them", drift.top1_agreement, tolerance.agreement),
        )
        if found is not None and not found >= bound
    ]
    if tolerance.sqnr_db >= SAME_BITS and drift.max_abs > 0:
        breaches.append(f"answers differ from PyTorch's by up to {drift.max_abs:.4g}, and the same bits are asked for")
    margin = tolerance.drop
    if margin is not None and drop.lower > margin:
        breaches.append(f"top-1 fell by {_points(drop)}, more than {100 * margin:g} points")
    if breaches:
        return "fail", breaches
    if margin is None or drop.upper < margin:
        return "pass", []
    enough = images_that_decide(drop, n, margin, tolerance.confidence)
    cure = f"about {enough - n} more images would tell" if enough else "the change lies on the margin itself"
    return "undecided", [f"top-1 fell by {_points(drop)}, which {n} images cannot tell from {100 * margin:g}; {cure}"]


def overall(verdicts: Iterable[str]) -> str:
    """The verdict on a build: the worst of its stages; what did not run does not count, and nothing proves nothing."""
    found = set(verdicts)
    return next((verdict for verdict in ("fail", "undecided", "pass") if verdict in found), "undecided")


def _points(drop: Drop) -> str:
    return f"{100 * drop.value:.2f} points (between {100 * drop.lower:.2f} and {100 * drop.upper:.2f})"
