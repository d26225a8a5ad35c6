"""Which backends make the engines of a build, and what is asked of each; refused before any work if it cannot be."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from exporters import engines
from exporters.engines.description import type_name
from pipeline.errors import BadRequest
from pipeline.precisions import PRECISIONS
from pipeline.recipe import flag

if TYPE_CHECKING:
    from collections.abc import Iterable

    from exporters.engines.backend import Backend
    from pipeline.precisions import Precision
    from pipeline.recipe import Recipe

# The flags behind a recipe's ``profiles``.
BATCHES = "--min-batch, --opt-batch, --max-batch"


def refuse(recipe: Recipe) -> None:
    """Raise BadRequest, before any work, where an engine or what is asked of it cannot be had here."""
    takers = chosen(recipe)
    precision = PRECISIONS[recipe.precision]
    taken: set[str] = set()
    for backend in takers:
        taken.update(options(backend, recipe, precision))

    for name in engines.BACKENDS:
        missed = options(engines.named(name), recipe, precision).keys() - taken
        if missed:
            names = ", ".join(backend.name for backend in takers)
            raise BadRequest(f"{_flags(missed)} goes with --engine {name}, and this builds for {names} only")


def chosen(recipe: Recipe) -> list[Backend]:
    """The backends to build with; raises BadRequest where one that is needed cannot be had here."""
    reasons: dict[str, str] = {}
    usable: list[Backend] = []
    for name in engines.BACKENDS:
        backend = engines.named(name)
        reason = _reason(backend, recipe.placement)
        if reason is None:
            usable.append(backend)
        else:
            reasons[name] = reason

    if recipe.engine in reasons:
        others = ", ".join(backend.name for backend in usable) or "none"
        raise BadRequest(f"--engine {recipe.engine}: {reasons[recipe.engine]}; available here: {others}")
    if recipe.engine != "auto":
        return [engines.named(recipe.engine)]

    run_here = [backend for backend in usable if backend.runs_here]
    if not run_here:
        raise BadRequest(f"--engine auto: no backend can run here ({'; '.join(reasons.values())})")
    # Of those that run here one is enough; what is built for elsewhere comes beside it.
    takers = [run_here[0]] + [backend for backend in usable if not backend.runs_here]
    # A target that names a TensorRT is another machine.
    if recipe.tensorrt is not None:
        takers += _recipes(recipe)
    return takers


def _recipes(recipe: Recipe) -> list[Backend]:
    """The backends that write a recipe for the target; raises BadRequest where one cannot be had here."""
    writers = [engines.named(name) for name in engines.RECIPES]
    for writer in writers:
        reason = _reason(writer, recipe.placement)
        if reason is not None:
            raise BadRequest(f"--target {recipe.target}: {reason}")
    return writers


def _reason(backend: Backend, placement: str) -> str | None:
    """Why a backend cannot be had, or None."""
    reason = backend.available()
    if reason is not None:
        return reason
    if placement not in backend.placements:
        return f"it does not read pairs that are placed for {placement}"
    return None


def options(backend: Backend, recipe: Recipe, precision: Precision) -> dict[str, Any]:
    """What the user asked of this backend, for an engine of ``precision``; raises BadRequest where it cannot do it."""
    of_precision = {"precision": precision.name, "typing": precision.typing, "weak_flags": precision.weak_flags}
    asked: dict[str, Any] = {}
    for name in backend.options:
        value = of_precision[name] if name in of_precision else getattr(recipe, name)
        # A knob that nobody turned.
        if value is None or value is False:
            continue
        # Options go into a note and into a child process as JSON.
        asked[name] = str(value) if isinstance(value, Path) else value

    for target in asked.get("rtx_sm", ()):
        _refuse_target(backend, target, precision)
    return asked


def _refuse_target(backend: Backend, target: str, precision: Precision) -> None:
    """Raise BadRequest unless ``backend`` builds for the GPU ``target``, and that has units for ``precision``."""
    if target not in backend.targets:
        raise BadRequest(f"--rtx-sm {target}: TensorRT-RTX builds for {', '.join(backend.targets)} with no GPU")
    units = {*backend.targets[target]}
    if _types(precision) <= units:
        return
    able = [row for row in PRECISIONS.values() if _types(row) <= units]
    # The ones that older parsers read first.
    able.sort(key=lambda row: row.opset)
    names = ", ".join(row.name for row in able)
    raise BadRequest(f"--rtx-sm {target}: no {precision.name} there; take {names}")


def _types(precision: Precision) -> set[str]:
    """The types of all units that a graph of ``precision`` needs.

    With strong typing all that is not in 8 bits is computed in the type of the scales.
    """
    types = {type_name(precision.computes_in)}
    if precision.calibrated:
        types.add(precision.scales)
    return types


def _flags(options: Iterable[str]) -> str:
    """The flags behind options, in words."""
    return ", ".join(BATCHES if name == "profiles" else flag(name) for name in sorted(options))
