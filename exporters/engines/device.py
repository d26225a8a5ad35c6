"""The engine of another device: written down as a recipe, since a plan loads only where it was built."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

from exporters import onnx_file, trtexec
from exporters.engines import tensorrt_rtx
from exporters.engines.backend import Backend, BuiltEngine, LoadedEngine

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import onnx_ir as ir

    from exporters.engines.backend import Progress
    from exporters.engines.description import EngineDescription

NOT_PROVEN = (
    "The engine is built on the device, by the script that stands beside its graph; TensorRT-RTX's parser and builder, "
    "which took the same graph here, stand in for those of the device."
)


class Device(Backend):
    """A script for trtexec on a Jetson."""

    name = "device"
    suffix = ".sh"
    packages = ()
    runs_here = False
    placements = ("tensorrt",)
    options = (
        "target",
        "tensorrt",
        "precision",
        "typing",
        "weak_flags",
        "profiles",
        "workspace",
        *trtexec.FLAGS,
        "no_gpu_fallback",
    )
    beside = True
    not_proven = NOT_PROVEN

    def available(self) -> str | None:
        """Why no recipe can be written here, or None: its graph is proven by the stand-in, which must be there."""
        reason = tensorrt_rtx.BACKEND.available()
        if reason is None:
            return None
        return f"TensorRT-RTX stands in for the parser and builder of a Jetson, and {reason}"

    def machine(self) -> None:
        """What a recipe depends on: nothing of this machine."""

    def build(
        self, src: Path, dst: Path, options: Mapping[str, Any] | None = None, progress: Progress | None = None
    ) -> BuiltEngine:
        """Write to ``dst`` how ``src`` is built on the device of ``options``; see trtexec.script."""
        del progress
        knobs = dict(options or {})
        precision = knobs.pop("precision")
        model = onnx_file.read(src)
        sha256 = hashlib.sha256(src.read_bytes()).hexdigest()
        dst.write_text(trtexec.script(dst.name, src.name, sha256, _image_shape(model), precision, knobs))
        dst.chmod(0o755)
        work = f"recipe for {knobs['target']} with TensorRT {knobs['tensorrt']}: sh {dst.name} beside {src.name} there"
        return BuiltEngine(onnx_file.count(model, "Conv"), None, work=work)

    def load(self, path: Path) -> LoadedEngine:
        """Raise ValueError: a recipe is no engine yet."""
        raise ValueError(f"{path.name}: it is the recipe of an engine, which runs on the device that it is built on")

    def describe(self, path: Path, details: Mapping[str, Any] | None = None) -> EngineDescription:
        """Raise ValueError: a recipe is no engine yet."""
        del details
        raise ValueError(f"{path.name}: it is the recipe of an engine, which its device alone can describe")


def _image_shape(model: ir.Model) -> list[int]:
    """Channels, height and width that the graph takes; the number of images is free."""
    shape = model.graph.inputs[0].shape
    assert shape is not None
    return [int(size) for size in shape.dims[1:]]  # type: ignore[arg-type]


BACKEND = Device()
