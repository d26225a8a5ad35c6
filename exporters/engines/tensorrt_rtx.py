"""TensorRT-RTX: builds ahead of time with no GPU, for desktop GPUs; it has no Jetson target."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING, Any

from exporters.engines import trt_builder, trt_layers

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from exporters.engines.description import EngineDescription

SUFFIX = ".engine"
PACKAGES = ("tensorrt-rtx",)
BESIDE = True  # whether FP16 comes beside 8 bits, since it may be the faster
RUNS_HERE = False
PLACEMENTS = ("tensorrt",)  # of Q/DQ pairs, that it reads
OPTIONS = ("rtx_sm", "profiles", "workspace")  # the knobs of a recipe that it takes
# SM without its point: what 1.7 can build for with no GPU, and the precisions there (measured: for 7.5 the builder
# finds no float32 Gemm; for 8.6 and older "HW-specific datatypes: fp8_e4m3").
AMPERE = ("fp32", "fp16", "int8", "int8-trt8", "int8-fp16")
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


def build(
    src: Path,
    dst: Path,
    options: Mapping[str, Any] | None = None,
    heard: Callable[[str, int, int], None] | None = None,
) -> dict[str, Any]:
    """Build ``src`` into ``dst`` for the ``rtx_sm`` (of TARGETS) in ``options``, or its portable default.

    See trt_builder.build.
    """
    return trt_builder.build("tensorrt_rtx", src, dst, options, heard)


def describe(path: Path, details: Mapping[str, Any] | None = None) -> EngineDescription:
    """What the builder listed for the engine in ``path``, kept in its stage's ``details``; see trt_layers.kept."""
    return trt_layers.kept(path.name, details)
