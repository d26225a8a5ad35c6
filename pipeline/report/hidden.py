"""Sentences for what a mean and a median hide: the noisiest images, probabilities, and what stands beside."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.parity.judge import overall
from pipeline.parity.own_noise import step_bound

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pipeline.stage import Crossing, Drift, Spread, StageRow


def sentences(row: StageRow) -> Iterator[str]:
    """What the figures of ``row`` in the table do not show; nothing of a file that gives the same bits."""
    spread = row.spread
    if spread is None or row.drift is None or not spread.noisiest:
        return
    noisy = f"{below(spread)}, at most {100 * spread.below_upper:.2f} % of all"
    yield f"worst images: {_worst(row.drift, spread)}{noisy}"
    yield f"noisiest images: {', '.join(f'{noisy.name} ({noisy.sqnr_db:.1f} dB)' for noisy in spread.noisiest)}"
    lead = "lead of the first logit {:.2f} → {:.2f} in the median".format(*spread.lead)
    before, after = spread.calibration_error
    yield f"confidence: {lead}; expected calibration error {100 * before:.2f} → {100 * after:.2f} %"
    if spread.crossing is not None:
        yield crossed(spread.crossing)
    yield from _own_noise(row)


def _own_noise(row: StageRow) -> Iterator[str]:
    """Which bound the step was held to, where it is another than that of its stage."""
    if row.before is None or row.tolerance is None:
        return
    bound = step_bound(row.tolerance.step_sqnr_db, row.before.sqnr_db)
    if bound.why:
        asked = f"not to {row.tolerance.step_sqnr_db:g}"
        yield f"{row.name} is held to {bound.db:.1f} dB against the file before, {asked} ({bound.why})"


def _worst(drift: Drift, spread: Spread) -> str:
    if spread.worst_db is None or drift.sqnr_db is None:
        return ""
    return f"one in 100 keeps {spread.worst_db:.1f} dB or less, the median {drift.sqnr_db:.1f}; "


def below(spread: Spread) -> str:
    """How many images are noisier than any should be."""
    if spread.below == 1:
        return f"1 image is below {spread.noisy_db:g} dB"
    return f"{spread.below or 'no'} images are below {spread.noisy_db:g} dB"


def crossed(crossing: Crossing) -> str:
    """How many images cross the softmax that the user acts on."""
    share = f"{100 * crossing.share:.2f} % of the images cross it"
    bounds = f"between {100 * crossing.lower:.2f} and {100 * crossing.upper:.2f}"
    return f"softmax {crossing.threshold:g}: {share} ({bounds}; {crossing.lost} fall below it, {crossing.gained} rise)"


def beside(rows: Sequence[StageRow], asked: str) -> Iterator[str]:
    """The verdict on each precision that ran beside the one ``asked`` for, with the reasons for it."""
    rows_of: dict[str, list[StageRow]] = {}
    for row in rows:
        if row.stands_beside(asked) and row.verdict != "not_run":
            rows_of.setdefault(row.precision, []).append(row)
    for precision, its_rows in rows_of.items():
        verdict = overall(row.verdict for row in its_rows)
        reasons = [f"{row.name}: {reason}" for row in its_rows if row.verdict == verdict for reason in row.reasons]
        yield f"beside, not shipped: {precision} {verdict}" + (f" ({'; '.join(reasons)})" if reasons else "")
