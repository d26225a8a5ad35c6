"""Which engines a build makes, and what is asked of each; refused before any work where it cannot be had here."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from pipeline.errors import BadRequest

if TYPE_CHECKING:
    from pipeline.recipe import Recipe

# Backends by preference: `auto` judges the first that can run here, and also builds those that run only elsewhere.
BACKENDS = ("tensorrt", "onnxruntime", "tensorrt-rtx")


def refuse(recipe: Recipe) -> None:
    """Raise BadRequest, before any work, where an engine or what is asked of it cannot be had here."""
    taken = [options(module(backend), recipe) for backend in chosen(recipe.engine, recipe.placement)]
    if recipe.rtx_sm and not any(taken):
        raise BadRequest("--rtx-sm goes with TensorRT-RTX: install the extra rtx, or ask for --engine tensorrt-rtx")


def chosen(asked: str, placement: str = "tensorrt") -> list[str]:
    """The backends to build with; raises BadRequest where the one asked for cannot be had here."""
    reasons = {backend: _reason(backend, placement) for backend in BACKENDS}
    if asked != "auto":
        if reasons[asked] is not None:
            others = [backend for backend, reason in reasons.items() if reason is None]
            raise BadRequest(f"--engine {asked}: {reasons[asked]}; available here: {', '.join(others) or 'none'}")
        return [asked]
    usable = [backend for backend in BACKENDS if reasons[backend] is None]
    runnable = [backend for backend in usable if module(backend).RUNS_HERE]
    if not runnable:
        raise BadRequest(f"--engine auto: no backend can run here ({'; '.join(filter(None, reasons.values()))})")
    return runnable[:1] + [backend for backend in usable if backend not in runnable]


def options(backend: Any, recipe: Recipe) -> dict[str, Any]:
    """What the user asked of this backend; raises BadRequest where it cannot do it."""
    found = {name: value for name in backend.OPTIONS if (value := getattr(recipe, name)) is not None}
    for target in found.get("rtx_sm", ()):
        if target not in backend.TARGETS:
            raise BadRequest(f"--rtx-sm {target}: TensorRT-RTX builds for {', '.join(backend.TARGETS)} with no GPU")
        if recipe.precision not in (can := backend.TARGETS[target]):
            raise BadRequest(f"--rtx-sm {target}: no {recipe.precision} there; take {', '.join(can)}")
    return found


def _reason(backend: str, placement: str) -> str | None:
    """Why ``backend`` cannot be had, or None."""
    found = module(backend)
    unread = None if placement in found.PLACEMENTS else f"it does not read pairs that are placed for {placement}"
    return found.available() or unread


def module(name: str) -> Any:
    """The backend of that name."""
    return importlib.import_module(f"exporters.engines.{name.replace('-', '_')}")
