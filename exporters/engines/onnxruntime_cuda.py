"""ONNX Runtime on the GPU of this machine, by its CUDA provider: for where TensorRT is not installed."""

from __future__ import annotations

import shutil
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

from exporters import onnx_file, reference
from exporters.portable import cuda

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from exporters.engines.description import EngineDescription

SUFFIX = ".cuda.onnx"
PACKAGES = ("onnxruntime-gpu",)
BESIDE = False  # whether FP16 comes beside 8 bits, since it may be the faster
RUNS_HERE = True
PLACEMENTS = ("tensorrt",)  # of Q/DQ pairs, that it reads
OPTIONS: tuple[str, ...] = ()  # the knobs of a recipe that it takes
PROVIDER, LEVEL = "CUDAExecutionProvider", "ORT_ENABLE_ALL"


def available() -> str | None:
    """Why this backend cannot be used here, or None."""
    if cuda.driver() is None:
        return "there is no NVIDIA GPU with a working driver on this machine"
    try:
        version("onnxruntime-gpu")
    except PackageNotFoundError:
        return "onnxruntime-gpu is not installed (extra: gpu)"
    return None


def machine() -> str | None:
    """What an engine depends on: the GPU, for which kernels are chosen when it is loaded."""
    return cuda.name()


def build(
    src: Path,
    dst: Path,
    _options: Mapping[str, Any] | None = None,
    _heard: Callable[[str, int, int], None] | None = None,
) -> dict[str, Any]:
    """Copy ``src`` to ``dst`` once it loads there: the provider compiles nothing that could be kept."""
    shutil.copyfile(src, dst)
    load(dst)
    return {"convolutions": onnx_file.count(onnx_file.read(src), "Conv"), "int8": None, "warnings": []}


def load(path: Path) -> Any:
    """The file as a session; raises an error where any node would run on the CPU."""
    return reference.session(path, LEVEL, provider=PROVIDER, alone=True)


def describe(path: Path, _details: Mapping[str, Any] | None = None) -> EngineDescription:
    """Raise ValueError: this provider fuses when it loads, and tells nobody."""
    raise ValueError(f"{path.name}: ONNX Runtime's CUDA provider fuses when it loads, and does not tell what")
