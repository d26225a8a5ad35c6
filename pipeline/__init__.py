"""A ResNet or ResNeXt from PyTorch to a verified engine: train or load, export, fold, quantise, build, judge.

``from pipeline import Recipe, build``: see pipeline.api.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipeline.api import Result, build
    from pipeline.recipe import Recipe

__version__ = "0.2.0"
__all__ = ["Recipe", "Result", "build"]


def __getattr__(name: str) -> Any:
    """Only what is asked for is imported: the command line starts without any of it."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from pipeline import api

    return getattr(api, name)
