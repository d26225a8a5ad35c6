"""What TensorRT-RTX makes of the layers of an ONNX file, built for real: it needs no GPU for that."""

from __future__ import annotations

from typing import TYPE_CHECKING

from exporters.engines import tensorrt_rtx
from exporters.engines.description import EIGHT_BITS, EngineDescription, Layer, from_json

if TYPE_CHECKING:
    from pathlib import Path

# Kernels that multiply; what it calls runtime_fusion dequantises first.
KERNELS = {"correlation", "gemm"}


def built(path: Path) -> EngineDescription | None:
    """The engine of ``path`` as its builder lists it; None where it is refused."""
    try:
        made = tensorrt_rtx.BACKEND.build(path, path.with_suffix(".engine"))
    except RuntimeError:
        return None
    assert made.description is not None
    assert made.description["layers"]
    return from_json(made.description)


def kernels_in_8_bits(description: EngineDescription) -> list[Layer]:
    """The kernels that multiply 8-bit numbers."""
    kernels = [layer for layer in description.layers if layer.kind in KERNELS]
    return [layer for layer in kernels if EIGHT_BITS & {*layer.inputs}]


def in_8_bits(description: EngineDescription) -> set[str]:
    """The modules that are in such a kernel."""
    found: set[str] = set()
    for layer in kernels_in_8_bits(description):
        found.update(layer.modules)
    return found
