"""Probabilities instead of logits, for a runtime that takes the answers of every classifier for shares of one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnx_ir as ir

from exporters import onnx_file

if TYPE_CHECKING:
    from pathlib import Path

OUTPUT = "probabilities"


def probabilities(src: Path, dst: Path) -> None:
    """Write ``src`` to ``dst`` with a Softmax over the classes: (N, classes), of the type of the logits."""
    model = onnx_file.read(src)
    (logits,) = model.graph.outputs
    softmax = ir.node("Softmax", [logits], {"axis": 1}, name=f"/{OUTPUT}/Softmax")
    shares = softmax.outputs[0]
    shares.name = OUTPUT
    shares.shape = logits.shape
    shares.type = logits.type
    model.graph.append(softmax)
    model.graph.outputs[0] = shares
    onnx_file.write(model, dst)
