"""TensorRT-RTX: builds ahead of time with no GPU, for desktop GPUs; it has no Jetson target."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING, Any

from exporters.engines import trt_builder, trt_layers
from exporters.engines.backend import Backend, BuiltEngine, LoadedEngine

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from exporters.engines.backend import Progress
    from exporters.engines.description import EngineDescription

# SM without its point: what 1.7 can build for with no GPU, and the types of the units there (measured: for 7.5 the
# builder finds no float32 Gemm; for 8.6 and older "HW-specific datatypes: fp8_e4m3").
TURING = ("float16", "int8")
AMPERE = ("float32", "float16", "int8")
ADA = ("float32", "float16", "int8", "float8")
TARGETS = {"75": TURING, "80": AMPERE, "86": AMPERE, "89": ADA, "120": ADA, "121": ADA}


class TensorRtRtx(Backend):
    """TensorRT-RTX on this machine, for GPUs elsewhere."""

    name = "tensorrt-rtx"
    suffix = ".engine"
    packages = ("tensorrt-rtx",)
    runs_here = False
    placements = ("tensorrt",)
    options = ("rtx_sm", "profiles", "workspace")
    beside = True
    targets = TARGETS

    def available(self) -> str | None:
        """Why this backend cannot be used here, or None."""
        if importlib.util.find_spec("tensorrt_rtx") is None:
            return "tensorrt-rtx is not installed (extra: rtx)"
        return None

    def machine(self) -> None:
        """What an engine depends on: nothing of this machine."""

    def build(
        self, src: Path, dst: Path, options: Mapping[str, Any] | None = None, progress: Progress | None = None
    ) -> BuiltEngine:
        """Build ``src`` into ``dst`` for the ``rtx_sm`` (of TARGETS) in ``options``, or its portable default.

        See trt_builder.build.
        """
        return trt_builder.build("tensorrt_rtx", src, dst, options, progress)

    def load(self, path: Path) -> LoadedEngine:
        """Raise ValueError: it builds for GPUs that are not here."""
        raise ValueError(f"{path.name}: TensorRT-RTX builds for GPUs elsewhere, and runs nothing here")

    def describe(self, path: Path, details: Mapping[str, Any] | None = None) -> EngineDescription:
        """What the builder listed for the engine in ``path``, kept in its stage's ``details``; see trt_layers.kept."""
        return trt_layers.kept(path.name, details)


BACKEND = TensorRtRtx()
