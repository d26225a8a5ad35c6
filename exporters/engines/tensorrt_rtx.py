"""TensorRT-RTX: builds ahead of time with no GPU, for desktop GPUs; it has no Jetson target."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING, Any

from exporters.engines import trt_builder

if TYPE_CHECKING:
    from pathlib import Path

SUFFIX = ".engine"
PACKAGES = ("tensorrt-rtx",)
RUNS_HERE = False
PLACEMENTS = ("tensorrt",)  # of Q/DQ pairs, that it reads


def available() -> str | None:
    """Why this backend cannot be used here, or None."""
    return None if importlib.util.find_spec("tensorrt_rtx") else "tensorrt-rtx is not installed (extra: rtx)"


def machine() -> None:
    """What an engine depends on: nothing of this machine."""
    return


def build(src: Path, dst: Path) -> dict[str, Any]:
    """Build ``src`` into ``dst`` for the portable default targets; see trt_builder.build."""
    return trt_builder.build("tensorrt_rtx", src, dst)
