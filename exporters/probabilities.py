"""Probabilities instead of logits, for a runtime that takes the answers of every classifier for shares of one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnx_ir as ir

from exporters import onnx_file

if TYPE_CHECKING:
    from pathlib import Path

OUTPUT = "probabilities"


def probabilities(src: Path, dst: Path) -> None:
    """Write ``src`` to ``dst`` with a Softmax over the classes: (N, classes), of the type of the logits.

    Where one stands there already its answers are handed on: the softmax of shares would be other shares.
    """
    model = onnx_file.read(src)
    (logits,) = model.graph.outputs
    if _are_shares(logits):
        last = ir.node("Identity", [logits], name=f"/{OUTPUT}/Identity")
    else:
        last = ir.node("Softmax", [logits], {"axis": 1}, name=f"/{OUTPUT}/Softmax")
    shares = last.outputs[0]
    shares.name = OUTPUT
    shares.shape = logits.shape
    shares.type = logits.type
    model.graph.append(last)
    model.graph.outputs[0] = shares
    onnx_file.write(model, dst)


def _are_shares(answers: ir.Value) -> bool:
    """Whether ``answers`` (N, classes) come out of a Softmax over the classes."""
    node = answers.producer()
    while node is not None and node.op_type in {"Cast", "Identity"} and node.inputs[0] is not None:
        node = node.inputs[0].producer()
    if node is None or node.op_type != "Softmax":
        return False
    # Of two axes the second is the last one, which is the default.
    return node.attributes.get_int("axis", -1) in {1, -1}
