"""TensorRT on the GPU of this machine. The engine runs only where it was built."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from exporters import child, onnx_file
from exporters.engines import description, trt_builder, trt_layers
from exporters.portable import cuda, tensorrt_run

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
    if cuda.driver() is None:
        return "there is no NVIDIA GPU with a working driver on this machine"
    return None if importlib.util.find_spec("tensorrt") else "tensorrt is not installed (extra: gpu)"


def machine() -> str | None:
    """What an engine depends on: the GPU."""
    return cuda.name()


def made_for() -> dict[str, str | None]:
    """Where an engine that is built here loads, and nowhere else."""
    from importlib.metadata import version

    return {"GPU": cuda.name(), "TensorRT": version("tensorrt")}


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

    loaded = tensorrt_run.load(path.read_bytes())
    if loaded is None:
        raise RuntimeError(f"{path.name} was built for another GPU or TensorRT than {cuda.name()}, {trt.__version__}")
    engine = loaded.engine
    pixel_type = np.uint8 if engine.get_tensor_dtype("images") == trt.uint8 else np.float32
    profile, batches = _widest_profile(engine)
    runner = tensorrt_run.Runner(loaded, "images", "logits", batches, profile)

    def run(images: NDArray[np.float32]) -> NDArray[np.float32]:
        logits: NDArray[np.float32] = runner(images.astype(pixel_type))
        return logits

    return run


def _widest_profile(engine: Any) -> tuple[int, tuple[int, int]]:
    """The profile that takes the most images at once: its number, and the images that it takes at least and at most."""
    profiles = []
    for number in range(engine.num_optimization_profiles):
        least, _, most = engine.get_tensor_profile_shape("images", number)
        profiles.append((number, (least[0], most[0])))
    return max(profiles, key=lambda profile: profile[1][1])
