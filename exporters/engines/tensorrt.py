"""TensorRT on the GPU of this machine. The engine runs only where it was built."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING, Any

import numpy as np

from exporters.engines import gpu, trt_builder

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

SUFFIX = ".engine"
PACKAGES = ("tensorrt",)
RUNS_HERE = True
PLACEMENTS = ("tensorrt",)  # of Q/DQ pairs, that it reads
OPTIONS: tuple[str, ...] = ()  # the knobs of a recipe that it takes


def available() -> str | None:
    """Why this backend cannot be used here, or None."""
    if gpu.driver() is None:
        return "there is no NVIDIA GPU with a working driver on this machine"
    return None if importlib.util.find_spec("tensorrt") else "tensorrt is not installed (extra: gpu)"


def machine() -> str | None:
    """What an engine depends on: the GPU."""
    return gpu.name()


def build(src: Path, dst: Path) -> dict[str, Any]:
    """Build ``src`` into ``dst``; see trt_builder.build."""
    return trt_builder.build("tensorrt", src, dst)


def load(path: Path) -> Callable[[NDArray[np.float32]], NDArray[np.float32]]:
    """A function from images (N, C, H, W) float32 to logits (N, classes) float32, computed by the engine."""
    import tensorrt as trt

    runtime = trt.Runtime(trt.Logger(trt.Logger.ERROR))
    engine = runtime.deserialize_cuda_engine(path.read_bytes())
    if engine is None:
        raise RuntimeError(f"{path.name} was built for another GPU or TensorRT than {gpu.name()}, {trt.__version__}")
    context = engine.create_execution_context()

    def run(images: NDArray[np.float32]) -> NDArray[np.float32]:
        parts = [
            _run(context, images[i : i + trt_builder.BATCHES[-1]])
            for i in range(0, len(images), trt_builder.BATCHES[-1])
        ]
        return np.concatenate(parts)

    return run


def _run(context: Any, images: NDArray[np.float32]) -> NDArray[np.float32]:
    pixels = np.ascontiguousarray(images, np.float32)
    if not context.set_input_shape("images", pixels.shape):
        raise RuntimeError(f"the engine refuses images of shape {pixels.shape}")
    logits = np.empty(tuple(context.get_tensor_shape("logits")), np.float32)
    with gpu.buffer(pixels.nbytes) as source, gpu.buffer(logits.nbytes) as answer, gpu.stream() as stream:
        gpu.to_device(source, pixels)
        context.set_tensor_address("images", source.value)
        context.set_tensor_address("logits", answer.value)
        if not context.execute_async_v3(stream.value):
            raise RuntimeError("the engine failed to run")
        gpu.wait(stream)
        gpu.to_host(logits, answer)
    return logits
