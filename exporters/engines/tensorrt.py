"""TensorRT on the GPU of this machine. The engine runs only where it was built."""

from __future__ import annotations

import importlib.util
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from exporters import child, onnx_file
from exporters.engines import description, trt_builder, trt_layers
from exporters.engines.backend import Backend, BuiltEngine, LoadedEngine
from exporters.portable import cuda, tensorrt_run

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray

    from exporters.engines.backend import Progress
    from exporters.engines.description import EngineDescription


class TensorRt(Backend):
    """TensorRT and the first GPU of this machine."""

    name = "tensorrt"
    suffix = ".engine"
    packages = ("tensorrt",)
    runs_here = True
    placements = ("tensorrt",)
    options = (
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
    beside = True

    def available(self) -> str | None:
        """Why this backend cannot be used here, or None."""
        if cuda.driver() is None:
            return "there is no NVIDIA GPU with a working driver on this machine"
        if importlib.util.find_spec("tensorrt") is None:
            return "tensorrt is not installed (extra: gpu)"
        return None

    def machine(self) -> str | None:
        """What an engine depends on: the GPU."""
        return cuda.name()

    def made_for(self) -> dict[str, str | None]:
        """Where an engine that is built here loads, and nowhere else."""
        from importlib.metadata import version

        return {"GPU": cuda.name(), "TensorRT": version("tensorrt")}

    def build(
        self, src: Path, dst: Path, options: Mapping[str, Any] | None = None, progress: Progress | None = None
    ) -> BuiltEngine:
        """Build ``src`` into ``dst``, and have the engine inspector describe it; see trt_builder.build."""
        built = trt_builder.build("tensorrt", src, dst, options, progress)
        try:
            # Now, while nobody else can have written the engine: to read it is to run what it holds.
            listed = child.call("exporters.engines.tensorrt:inspect", str(dst))
            return _inspected(built, listed, src)
        except (RuntimeError, ValueError) as error:
            return replace(built, warnings=(*built.warnings, f"it cannot be described: {error}"))

    def load(self, path: Path) -> LoadedEngine:
        """The engine in ``path``, whose seal was proven; raises RuntimeError where TensorRT refuses it."""
        return LoadedEngine(load(path), "TensorRT")

    def describe(self, path: Path, details: Mapping[str, Any] | None = None) -> EngineDescription:
        """What the inspector said of the engine in ``path`` when it was built; see trt_layers.kept."""
        return trt_layers.kept(path.name, details)


def _inspected(built: BuiltEngine, listed: str, src: Path) -> BuiltEngine:
    """``built`` from ``src`` with what the inspector ``listed`` in place of what the builder's log said."""
    model = onnx_file.read(src)
    described = trt_layers.of_inspector(listed, model, built.description or {})
    eight_bit_convolutions = built.eight_bit_convolutions
    if onnx_file.count(model, "QuantizeLinear"):
        eight_bit_convolutions = description.reading_8_bits(described)
    return replace(built, description=described, eight_bit_convolutions=eight_bit_convolutions)


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


BACKEND = TensorRt()
