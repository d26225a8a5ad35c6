"""TensorRT-RTX: builds ahead of time with no GPU, for desktop GPUs; it has no Jetson target."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING, Any

from exporters.engines import trt_builder

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

SUFFIX = ".engine"
PACKAGES = ("tensorrt-rtx",)
RUNS_HERE = False
PLACEMENTS = ("tensorrt",)  # of Q/DQ pairs, that it reads
OPTIONS = ("rtx_sm",)  # the knobs of a recipe that it takes
# SM without its point: what 1.7 can build for with no GPU, and the precisions there (measured: for 7.5 the builder
# finds no float32 Gemm; for 8.6 and older "HW-specific datatypes: fp8_e4m3").
AMPERE = ("fp32", "fp16", "int8", "int8-fp16")
TARGETS = {
    "75": ("fp16", "int8-fp16"),
    **dict.fromkeys(("80", "86"), AMPERE),
    **dict.fromkeys(("89", "120", "121"), (*AMPERE, "fp8")),
}


def available() -> str | None:
    """Why this backend cannot be used here, or None."""
    return None if importlib.util.find_spec("tensorrt_rtx") else "tensorrt-rtx is not installed (extra: rtx)"


def machine() -> None:
    """What an engine depends on: nothing of this machine."""
    return


def build(src: Path, dst: Path, rtx_sm: Sequence[str] = ()) -> dict[str, Any]:
    """Build ``src`` into ``dst`` for ``rtx_sm`` (of TARGETS), or its portable default; see trt_builder.build."""
    return trt_builder.build("tensorrt_rtx", src, dst, *(f"SM{target}" for target in rtx_sm))
