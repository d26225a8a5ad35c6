"""Sessions of ONNX Runtime as engines: optimised, and with pixels in the type that the file takes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from exporters import onnx_file, reference
from exporters.engines.backend import LoadedEngine

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray
    from onnxruntime import InferenceSession

# Everything, the memory layouts that this processor likes included.
LAYOUTS = "ORT_ENABLE_ALL"


def loaded(session: InferenceSession) -> LoadedEngine:
    """The session of one of our graphs as an engine."""
    takes_bytes = session.get_inputs()[0].type == "tensor(uint8)"

    def run(images: NDArray[np.float32]) -> NDArray[np.float32]:
        pixels = as_bytes(images) if takes_bytes else images
        (logits,) = session.run(["logits"], {"images": pixels})
        return np.asarray(logits)

    return LoadedEngine(run, session.get_providers()[0])


def optimised(path: Path) -> LoadedEngine:
    """Any graph as ONNX Runtime optimises it by itself, to be timed: its answers may be others."""
    model = onnx_file.read(path)
    return loaded(reference.session(path, LAYOUTS, disabled_optimisers(model), alone=True))


def disabled_optimisers(model: ir.Model) -> tuple[str, ...]:
    """The optimisers that may not run on ``model``.

    The one that is wrong for float16 scales is needed where they are float32: it quantises the biases, without which no
    convolution runs in INT8.
    """
    for value in model.graph.initializers.values():
        if value.dtype == ir.DataType.FLOAT16:
            return reference.DISABLED
    return ()


def as_bytes(images: NDArray[np.float32]) -> NDArray[np.uint8]:
    """The same pixels as uint8; raises ValueError where they are no whole numbers from 0 to 255."""
    pixels = images.clip(0, 255).astype(np.uint8)
    if not np.array_equal(pixels, images):
        raise ValueError("these pixels are no whole numbers from 0 to 255, and the file takes uint8: build for float32")
    return pixels
