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
    """The verdict on a stage and, unless it is a pass, the reasons with their figures: all that ``weigh`` found."""
    found = weigh(tolerance, drift, step, drop, n, refuted)
    verdict = overall(each for each, _ in found.values())
    return verdict, [reason for each, reasons in found.values() if each == verdict for reason in reasons]


def weigh(
    tolerance: Tolerance, drift: Drift, step: Drift, drop: Drop, n: int, refuted: Sequence[str] = ()
) -> dict[str, tuple[str, list[str]]]:
    """The verdict of each check that the bounds ask for and, unless it is a pass, its reasons.

    ``n`` is the number of test images and ``refuted`` what was disproved without looking at them.
    """
    sqnr = _apart("PyTorch", drift, tolerance.sqnr_db)
    before = _apart("the file before", step, tolerance.step_sqnr_db)
    alike = _below("share of top-1 answers as PyTorch gives them", drift.top1_agreement, tolerance.agreement)
    reasons = {"refuted": list(refuted), "drift": sqnr, "step": before, "agreement": alike}
    found = {check: ("fail" if why else "pass", why) for check, why in reasons.items()}
    if tolerance.drop is not None:
        found["accuracy"] = _weigh_drop(drop, n, tolerance.drop, tolerance.confidence)
    return found


def _weigh_drop(drop: Drop, n: int, margin: float, confidence: float) -> tuple[str, list[str]]:
    """Pass where the upper bound of the drop lies below the margin, fail where the lower lies above, else undecided."""
    if drop.upper < margin:
        return "pass", []
    if drop.lower > margin:
        return "fail", [f"top-1 fell by {_points(drop)}, more than {100 * margin:g} points"]
    enough = images_that_decide(drop, n, margin, confidence)
    cure = f"about {enough - n} more images would tell" if enough else "the change lies on the margin itself"
    return "undecided", [f"top-1 fell by {_points(drop)}, which {n} images cannot tell from {100 * margin:g}; {cure}"]


def _apart(other: str, drift: Drift, bound: float) -> list[str]:
    """Why ``drift`` is too far from ``other``, whose same bits are asked for by a bound of SAME_BITS."""
    why = _below(f"median SQNR in dB against {other}", drift.sqnr_db, bound)
    if bound >= SAME_BITS and drift.max_abs > 0:
        why += [f"answers differ from those of {other} by up to {drift.max_abs:.4g}, and the same bits are asked for"]
    return why


def _below(name: str, found: float | None, bound: float) -> list[str]:
    return [] if found is None or found >= bound else [f"{name} is {found:.4g}, below its bound of {bound:g}"]


def overall(verdicts: Iterable[str]) -> str:
    """The verdict on a build: the worst of its stages; what did not run does not count, and nothing proves nothing."""
    found = set(verdicts)
    return next((verdict for verdict in ("fail", "undecided", "pass") if verdict in found), "undecided")


def _points(drop: Drop) -> str:
    return f"{100 * drop.value:.2f} points (between {100 * drop.lower:.2f} and {100 * drop.upper:.2f})"
