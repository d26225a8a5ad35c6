"""From figures to a verdict: pass, fail, or undecided where the images are too few to tell."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.parity.looks import spent_next
from pipeline.parity.own_noise import Bound, step_bound
from pipeline.stage import CLASSES, SAME_BITS, OwnNoise

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from pipeline.stage import Agreement, Crossing, Drift, Drop, Family, StageRow

# What the centred logits keep at least of PyTorch and of the file before, in dB, where the bound of the logits
# themselves is not lower. It bounds no rounding in float, which goes by the size of the logits with their offset.
CENTRED_DB = 15.0
CENTRED_STEP_DB = 30.0
# Of the file before where nobody knows what it keeps.
UNKNOWN = OwnNoise(None, None)


def judge(row: StageRow) -> tuple[str, list[str]]:
    """The verdict on a stage, from all that ``weigh`` found, and the reasons with their figures; a pass has none."""
    verdict_of = weigh(row)
    verdict = overall(check_verdict for check_verdict, _ in verdict_of.values())
    reasons = []
    for check_verdict, check_reasons in verdict_of.values():
        if check_verdict == verdict:
            reasons += check_reasons
    return verdict, reasons


def weigh(row: StageRow) -> dict[str, tuple[str, list[str]]]:
    """The verdict of each check that the bounds of ``row`` ask for, and its reasons; a pass has none.

    All figures of the row must be there.
    """
    tolerance = row.tolerance
    assert tolerance is not None
    assert row.drift is not None
    assert row.step is not None
    reasons_of = {
        "refuted": list(row.refuted),
        "drift": _apart("PyTorch", row.drift, Bound(tolerance.sqnr_db), Bound(min(tolerance.sqnr_db, CENTRED_DB))),
        "step": _stepped(row.step, row.before or UNKNOWN, tolerance.step_sqnr_db),
    }
    verdict_of = {}
    for check, reasons in reasons_of.items():
        verdict_of[check] = ("fail" if reasons else "pass", reasons)
    # Those that the images can leave undecided.
    verdict_of["agreement"] = _weigh_agreement(row.agreement, tolerance.agreement)
    if tolerance.drop is not None:
        assert row.accuracy is not None
        assert row.drop is not None
        verdict_of["accuracy"] = _weigh_drop(row.drop, row.accuracy.n, tolerance.drop, spent_next(tolerance))
        verdict_of |= _weigh_subsets(row.subsets)
        if tolerance.crossed is not None:
            crossing = None if row.spread is None else row.spread.crossing
            verdict_of["threshold"] = _weigh_crossing(crossing, tolerance.crossed)
    return verdict_of


def _weigh_subsets(subsets: Mapping[str, Family]) -> dict[str, tuple[str, list[str]]]:
    """The verdict on the classes, and that on the groups of all columns."""
    verdict_of: dict[str, tuple[str, list[str]]] = {}
    groups = {column: family for column, family in subsets.items() if column != CLASSES}
    if CLASSES in subsets:
        family = subsets[CLASSES]
        verdict_of[CLASSES] = (family.verdict, [f"class {reason}" for reason in family.reasons])
    if groups:
        verdict = overall(family.verdict for family in groups.values())
        reasons = []
        for column, family in groups.items():
            if family.verdict == verdict:
                reasons += [f"{column} {reason}" for reason in family.reasons]
        verdict_of["groups"] = (verdict, reasons)
    return verdict_of


def _weigh_crossing(crossing: Crossing | None, margin: float) -> tuple[str, list[str]]:
    if crossing is None:
        return "undecided", ["the softmax of its answers was not kept: nothing tells how many cross --threshold"]
    if crossing.upper < margin:
        return "pass", []
    bounds = f"between {100 * crossing.lower:.2f} and {100 * crossing.upper:.2f}"
    found = (
        f"{100 * crossing.share:.2f} % of the images cross the softmax threshold of {crossing.threshold:g} ({bounds}; "
        f"{crossing.lost} fall below it, {crossing.gained} rise)"
    )
    if crossing.lower > margin:
        return "fail", [f"{found}, more than {100 * margin:g}"]
    return "undecided", [f"{found}, which the images cannot tell from {100 * margin:g}"]


def _weigh_drop(drop: Drop, n: int, margin: float, next_confidence: float) -> tuple[str, list[str]]:
    """Pass where the upper bound of the drop lies below the margin, fail where the lower lies above, else undecided.

    ``next_confidence`` is that of a look at these and more images.
    """
    if drop.upper < margin:
        return "pass", []
    if drop.lower > margin:
        return "fail", [f"top-1 fell by {_points(drop)}, more than {100 * margin:g} points"]
    from pipeline.parity.advice import more_images

    more = more_images(drop.lost, drop.gained, n, margin, next_confidence)
    cure = "the change lies on the margin itself"
    if more is not None:
        cure = f"about {more:,} more images would tell (4 times in 5)"
    return "undecided", [f"top-1 fell by {_points(drop)}, which {n} images cannot tell from {100 * margin:g}; {cure}"]


def _weigh_agreement(agreement: Agreement | None, bound: float) -> tuple[str, list[str]]:
    """Fail where the upper bound of the share lies below ``bound``, undecided where only the share itself does.

    A share that holds the bound passes: that the others cost nothing is what the drop has to prove (docs/parity.md).
    """
    if agreement is None:
        return "undecided", ["how many images are answered as by PyTorch was not counted"]
    share = agreement.same / agreement.n
    if share >= bound:
        return "pass", []
    found = f"share of top-1 answers as PyTorch gives them is {share:.4g}, below its bound of {bound:g}"
    differ = f"at most {agreement.upper:.4g}; {agreement.n - agreement.same} of {agreement.n} images differ"
    if agreement.upper < bound:
        return "fail", [f"{found} ({differ})"]
    return "undecided", [f"{found}, which so few images do not prove ({differ})"]


def _stepped(step: Drift, before: OwnNoise, asked_db: float) -> list[str]:
    """Why ``step`` is too far from the file before, which lies as far from PyTorch as ``before`` says."""
    bound = step_bound(asked_db, before.sqnr_db)
    centred = step_bound(min(asked_db, CENTRED_STEP_DB), before.centred_db)
    return _apart("the file before", step, bound, centred)


def _apart(other: str, drift: Drift, bound: Bound, centred: Bound) -> list[str]:
    """Why the logits, or else the centred ones, are too far from those of ``other``.

    A bound of SAME_BITS asks for the same bits.
    """
    reasons = _below(f"median SQNR in dB against {other}", drift.sqnr_db, bound)
    if bound.db >= SAME_BITS and drift.max_abs > 0:
        reasons.append(
            f"answers differ from those of {other} by up to {drift.max_abs:.4g}, and the same bits are asked for"
        )
    if not reasons:
        name = f"median SQNR in dB of the logits less their mean, against {other},"
        reasons = _below(name, drift.centred_db, centred)
    return reasons


def _below(name: str, figure: float | None, bound: Bound) -> list[str]:
    """Why ``figure`` misses its ``bound``; None, which stands for the same bits, holds every bound."""
    if figure is None or figure >= bound.db:
        return []
    why = f" ({bound.why})" if bound.why else ""
    return [f"{name} is {figure:.4g}, below its bound of {bound.db:.4g}{why}"]


def overall(verdicts: Iterable[str]) -> str:
    """The verdict on a build: the worst of its stages.

    A stage that did not run does not count, and a build of which none ran is undecided.
    """
    given = set(verdicts)
    for verdict in ("fail", "undecided", "pass"):
        if verdict in given:
            return verdict
    return "undecided"


def _points(drop: Drop) -> str:
    return f"{100 * drop.value:.2f} points (between {100 * drop.lower:.2f} and {100 * drop.upper:.2f})"
