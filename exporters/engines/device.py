"""The engine of another device: written down as a recipe, since a plan loads only where it was built."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

from exporters import onnx_file, trtexec

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

SUFFIX = ".sh"
PACKAGES = ()
BESIDE = True  # whether FP16 comes beside 8 bits, since it may be the faster
RUNS_HERE = False
NOT_PROVEN = (
    "The engine is built on the device, by the script that stands beside its graph; TensorRT-RTX's parser and builder, "
    "which took the same graph here, stand in for those of the device."
)
PLACEMENTS = ("tensorrt",)  # of Q/DQ pairs, that it reads
# The knobs of a recipe that it takes.
OPTIONS = ("target", "tensorrt", "precision", "profiles", "workspace", *trtexec.FLAGS, "no_gpu_fallback")


def available() -> None:
    """Why this backend cannot be used here, or None."""
    return


def machine() -> None:
    """What an engine depends on: nothing of this machine."""
    return


def build(
    src: Path,
    dst: Path,
    options: Mapping[str, Any] | None = None,
    _heard: Callable[[str, int, int], None] | None = None,
) -> dict[str, Any]:
    """Write to ``dst`` how ``src`` is built on the device of ``options``; see trtexec.script."""
    asked = dict(options or {})
    model = onnx_file.read(src)
    shape = [int(size) for size in model.graph.inputs[0].shape.dims[1:]]  # type: ignore[union-attr,arg-type]
    held = hashlib.sha256(src.read_bytes()).hexdigest()
    text = trtexec.script(dst.name, src.name, held, shape, asked.pop("precision"), asked)
    dst.write_text(text)
    dst.chmod(0o755)
    work = f"recipe for {asked['target']} with TensorRT {asked['tensorrt']}: sh {dst.name} beside {src.name} there"
    return {"work": work, "convolutions": onnx_file.count(model, "Conv"), "int8": None, "warnings": []}
