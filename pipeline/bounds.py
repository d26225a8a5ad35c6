"""The bounds of every stage, whoever asks: the plan of a build, or a check of a finished one."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from pipeline.precisions import EXACT, FLOAT16, PRECISIONS, QUANTISED, REORDERED

if TYPE_CHECKING:
    from pipeline.recipe import Recipe
    from pipeline.stage import Role, Tolerance

# The bounds of a stage by its name. Those of what is quantised, and of all behind it, are in the row of the precision.
STAGE_BOUNDS = {
    "freeze": EXACT,
    "export": REORDERED,
    "simplify": REORDERED,
    "fold_batchnorm": REORDERED,
    "equalise": REORDERED,
    "qat": replace(QUANTISED, retrained=True),
    "fp16": FLOAT16,
    # The same levels and scales: only how weights are stored changes.
    "float_weights": replace(QUANTISED, step_sqnr_db=EXACT.step_sqnr_db),
}
# Roles of the stages behind the last quantisation.
BEHIND: set[Role] = {"typing", "input", "engine"}


def bounds(stage: str, role: Role, precision: str, recipe: Recipe) -> Tolerance:
    """The bounds of ``stage`` with the user's margin, where they have one at all; raises KeyError for no such stage."""
    row = PRECISIONS[precision]
    # The stage that writes the pairs has the name of their number format.
    if role == "quantised" and stage == row.number_format:
        tolerance = row.quantised
    elif role in BEHIND and stage not in STAGE_BOUNDS:
        tolerance = row.tolerance
    else:
        tolerance = STAGE_BOUNDS[stage]

    # Pixels as bytes are the same numbers, so that this stage changes no bit.
    if role == "input":
        tolerance = replace(tolerance, step_sqnr_db=EXACT.step_sqnr_db)
    if tolerance.drop is None:
        return tolerance
    return replace(
        tolerance,
        drop=recipe.max_drop,
        confidence=recipe.confidence,
        subset_drop=recipe.max_class_drop,
        threshold=recipe.threshold,
        crossed=recipe.max_crossed,
    )
