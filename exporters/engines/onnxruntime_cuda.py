"""ONNX Runtime on the GPU of this machine, by its CUDA provider: for where TensorRT is not installed."""

from __future__ import annotations

import shutil
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

from exporters import onnx_file, reference
from exporters.engines import ort_session, shapes, trt_config
from exporters.engines.backend import Backend, BuiltEngine, LoadedEngine
from exporters.portable import cuda

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from exporters.engines.backend import Progress
    from exporters.engines.description import EngineDescription

PROVIDER = "CUDAExecutionProvider"
LEVEL = "ORT_ENABLE_ALL"


class OnnxRuntimeCuda(Backend):
    """ONNX Runtime's CUDA provider."""

    name = "onnxruntime-cuda"
    suffix = ".cuda.onnx"
    packages = ("onnxruntime-gpu",)
    runs_here = True
    placements = ("tensorrt",)

    def available(self) -> str | None:
        """Why this backend cannot be used here, or None."""
        if cuda.driver() is None:
            return "there is no NVIDIA GPU with a working driver on this machine"
        # Both distributions bring the module onnxruntime, and only this one the provider.
        try:
            version("onnxruntime-gpu")
        except PackageNotFoundError:
            return "onnxruntime-gpu is not installed (extra: gpu)"
        return None

    def machine(self) -> str | None:
        """What an engine depends on: the GPU, for which kernels are chosen when it is loaded."""
        return cuda.name()

    def build(
        self, src: Path, dst: Path, options: Mapping[str, Any] | None = None, progress: Progress | None = None
    ) -> BuiltEngine:
        """Copy ``src`` to ``dst`` once it loads there: the provider compiles nothing that could be kept."""
        del options, progress
        shutil.copyfile(src, dst)
        # Refused here rather than where it is used.
        session = reference.session(dst, LEVEL, provider=PROVIDER)
        warnings = shapes.refuse("ONNX Runtime", src, session, shapes.batches_of([trt_config.BATCHES]))
        return BuiltEngine(onnx_file.count(onnx_file.read(src), "Conv"), None, warnings)

    def load(self, path: Path) -> LoadedEngine:
        """The file; raises an error where any node would run on the CPU."""
        return ort_session.loaded(reference.session(path, LEVEL, provider=PROVIDER, alone=True))

    def describe(self, path: Path, details: Mapping[str, Any] | None = None) -> EngineDescription:
        """Raise ValueError: this provider fuses when it loads, and tells nobody."""
        del details
        raise ValueError(f"{path.name}: ONNX Runtime's CUDA provider fuses when it loads, and does not tell what")


BACKEND = OnnxRuntimeCuda()
