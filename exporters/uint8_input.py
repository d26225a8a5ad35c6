"""Pixels in as bytes, a quarter of the memory to copy: the graph itself turns them into float32, value for value."""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnx_ir as ir

from exporters import onnx_file

if TYPE_CHECKING:
    from pathlib import Path


def uint8_input(src: Path, dst: Path) -> str:
    """Write ``src`` to ``dst`` with images (N, C, H, W) uint8 and a Cast behind them."""
    model = onnx_file.read(src)
    images = model.graph.inputs[0]
    cast = ir.node("Cast", [images], {"to": ir.DataType.FLOAT.value}, name="/images/Cast")
    pixels = cast.outputs[0]
    pixels.name = f"{images.name}_float32"
    pixels.shape = images.shape
    pixels.type = ir.TensorType(ir.DataType.FLOAT)

    # Everything that read the images reads the Cast, which itself must go on reading the images.
    images.replace_all_uses_with(pixels)
    cast.replace_input_with(0, images)
    images.type = ir.TensorType(ir.DataType.UINT8)
    model.graph.insert_before(model.graph[0], cast)
    onnx_file.write(model, dst)
    return "images uint8, cast to float32 in the graph"
