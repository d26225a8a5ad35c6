"""Which engines a build makes, and what is asked of each; refused before any work where it cannot be had here."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.errors import BadRequest
from pipeline.recipe import flag

if TYPE_CHECKING:
    from pipeline.recipe import Recipe

# Backends by preference: `auto` judges the first that can run here, and also builds those that run only elsewhere.
BACKENDS = ("tensorrt", "onnxruntime-cuda", "onnxruntime", "tensorrt-rtx")

# The flags behind a recipe's ``profiles``.
BATCHES = "--min-batch, --opt-batch, --max-batch"


def refuse(recipe: Recipe) -> None:
    """Raise BadRequest, before any work, where an engine or what is asked of it cannot be had here."""
    takers = chosen(recipe)
    taken = {name for backend in takers for name in options(module(backend), recipe)}
    for backend in BACKENDS:
        if missed := options(module(backend), recipe).keys() - taken:
            asked = ", ".join(BATCHES if name == "profiles" else flag(name) for name in sorted(missed))
            raise BadRequest(f"{asked} goes with --engine {backend}, and this builds for {', '.join(takers)} only")


def chosen(recipe: Recipe) -> list[str]:
    """The backends to build with; raises BadRequest where one that is needed cannot be had here."""
    asked = recipe.engine
    reasons = {backend: _reason(backend, recipe.placement) for backend in BACKENDS}
    if asked != "auto":
        if reasons[asked] is not None:
            others = [backend for backend, reason in reasons.items() if reason is None]
            raise BadRequest(f"--engine {asked}: {reasons[asked]}; available here: {', '.join(others) or 'none'}")
        return [asked]
    usable = [backend for backend in BACKENDS if reasons[backend] is None]
    runnable = [backend for backend in usable if module(backend).RUNS_HERE]
    if not runnable:
        raise BadRequest(f"--engine auto: no backend can run here ({'; '.join(filter(None, reasons.values()))})")
    found = runnable[:1] + [backend for backend in usable if backend not in runnable]
    if recipe.tensorrt is None:
        return found
    if reasons["tensorrt-rtx"] is not None:
        needed = "TensorRT-RTX stands in for the parser and builder of a Jetson"
        raise BadRequest(f"--target {recipe.target}: {needed}, and {reasons['tensorrt-rtx']}")
    return [*found, "device"]


def options(backend: Any, recipe: Recipe, precision: str | None = None) -> dict[str, Any]:
    """What the user asked of this backend; raises BadRequest where it cannot do it.

    ``precision`` is that of the engine, where it is another than the recipe's.
    """
    precision = precision or recipe.precision
    given = ((name, getattr(recipe, name)) for name in backend.OPTIONS)
    asked = ((name, value) for name, value in given if value is not None and value is not False)
    found = {name: str(value) if isinstance(value, Path) else value for name, value in asked}
    for target in found.get("rtx_sm", ()):
        if target not in backend.TARGETS:
            raise BadRequest(f"--rtx-sm {target}: TensorRT-RTX builds for {', '.join(backend.TARGETS)} with no GPU")
        if precision not in (can := backend.TARGETS[target]):
            raise BadRequest(f"--rtx-sm {target}: no {precision} there; take {', '.join(can)}")
    return found


def _reason(backend: str, placement: str) -> str | None:
    """Why ``backend`` cannot be had, or None."""
    found = module(backend)
    unread = None if placement in found.PLACEMENTS else f"it does not read pairs that are placed for {placement}"
    return found.available() or unread


def module(name: str) -> Any:
    """The backend of that name."""
    return importlib.import_module(f"exporters.engines.{name.replace('-', '_')}")
