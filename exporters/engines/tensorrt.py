"""TensorRT on the GPU of this machine. The engine runs only where it was built."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from exporters import child, onnx_file
from exporters.engines import description, gpu, trt_builder, trt_layers

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray

    from exporters.engines.description import EngineDescription

SUFFIX = ".engine"
PACKAGES = ("tensorrt",)
BESIDE = True  # whether FP16 comes beside 8 bits, since it may be the faster
RUNS_HERE = True
PLACEMENTS = ("tensorrt",)  # of Q/DQ pairs, that it reads
# The knobs of a recipe that it takes.
OPTIONS = (
    "profiles",
    "workspace",
    "timing_cache",
    "error_on_timing_cache_miss",
    "builder_optimization_level",
    "dla_core",
    "no_gpu_fallback",
    "version_compatible",
    "hardware_compatibility",
)


def available() -> str | None:
    """Why this backend cannot be used here, or None."""
    if gpu.driver() is None:
        return "there is no NVIDIA GPU with a working driver on this machine"
    return None if importlib.util.find_spec("tensorrt") else "tensorrt is not installed (extra: gpu)"


def machine() -> str | None:
    """What an engine depends on: the GPU."""
    return gpu.name()


def made_for() -> dict[str, str | None]:
    """Where an engine that is built here loads, and nowhere else."""
    from importlib.metadata import version

    return {"GPU": gpu.name(), "TensorRT": version("tensorrt")}


def build(
    src: Path,
    dst: Path,
    options: Mapping[str, Any] | None = None,
    heard: Callable[[str, int, int], None] | None = None,
) -> dict[str, Any]:
    """Build ``src`` into ``dst``; see trt_builder.build."""
    built = trt_builder.build("tensorrt", src, dst, options, heard)
    try:
        # Now, while nobody else can have written the engine: to read it is to run what it holds.
        text = child.call("exporters.engines.tensorrt:inspect", str(dst))
        model = onnx_file.read(src)
        built["description"] = trt_layers.of_inspector(text, model, built["description"])
        if onnx_file.count(model, "QuantizeLinear"):
            built["int8"] = description.reading_8_bits(built["description"])
    except (RuntimeError, ValueError) as error:
        built["warnings"].append(f"it cannot be described: {error}")
    return built


def describe(path: Path, details: Mapping[str, Any] | None = None) -> EngineDescription:
    """What the inspector said of the engine in ``path`` when it was built; see trt_layers.kept."""
    return trt_layers.kept(path.name, details)


def inspect(path: str) -> str:
    """The inspector's JSON of an engine that was built here. Runs in a child process."""
    import tensorrt as trt

    engine = trt.Runtime(trt.Logger(trt.Logger.ERROR)).deserialize_cuda_engine(Path(path).read_bytes())
    return str(engine.create_engine_inspector().get_engine_information(trt.LayerInformationFormat.JSON))


def load(path: Path) -> Callable[[NDArray[np.float32]], NDArray[np.float32]]:
    """A function from images (N, C, H, W) float32 to logits (N, classes) float32, computed by the engine."""
    import tensorrt as trt

    runtime = trt.Runtime(trt.Logger(trt.Logger.ERROR))
    engine = runtime.deserialize_cuda_engine(path.read_bytes())
    if engine is None:
        raise RuntimeError(f"{path.name} was built for another GPU or TensorRT than {gpu.name()}, {trt.__version__}")
    context = engine.create_execution_context()
    kind = np.uint8 if engine.get_tensor_dtype("images") == trt.uint8 else np.float32
    shapes = [engine.get_tensor_profile_shape("images", each) for each in range(engine.num_optimization_profiles)]
    # The profile that takes the most images at once, and what it takes at least.
    profile, (least, most) = max(enumerate((shape[0][0], shape[2][0]) for shape in shapes), key=lambda each: each[1][1])

    def run(images: NDArray[np.float32]) -> NDArray[np.float32]:
        pixels = images.astype(kind)
        parts = [_run(context, profile, pixels[i : i + most], least) for i in range(0, len(images), most)]
        return np.concatenate(parts)

    return run


def _run(context: Any, profile: int, images: NDArray[Any], least: int) -> NDArray[np.float32]:
    """The logits of ``images``, with copies of the last one where the engine takes no fewer than ``least``."""
    missing = max(least - len(images), 0)
    pixels = np.ascontiguousarray(np.concatenate([images, *[images[-1:]] * missing]))
    with gpu.stream() as stream:
        if not context.set_optimization_profile_async(profile, stream.value):
            raise RuntimeError(f"the engine refuses its own profile {profile}")
        if not context.set_input_shape("images", pixels.shape):
            raise RuntimeError(f"the engine refuses images of shape {pixels.shape}")
        logits = np.empty(tuple(context.get_tensor_shape("logits")), np.float32)
        with gpu.buffer(pixels.nbytes) as source, gpu.buffer(logits.nbytes) as answer:
            gpu.to_device(source, pixels)
            context.set_tensor_address("images", source.value)
            context.set_tensor_address("logits", answer.value)
            if not context.execute_async_v3(stream.value):
                raise RuntimeError("the engine failed to run")
            gpu.wait(stream)
            gpu.to_host(logits, answer)
    return logits[: len(images)]
