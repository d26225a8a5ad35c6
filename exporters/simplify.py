"""onnxsim in a child process; BatchNormalization stays, because folding it is the next stage's own, proven work."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from exporters import child

# Limits of time and of bytes; a ResNeXt-101 takes 8 s and 2 GB.
SECONDS = 600.0
MEMORY = 16 * 2**30


def simplify(src: Path, dst: Path, seconds: float = SECONDS, memory: int = MEMORY) -> str:
    """Write the simplified ``src`` to ``dst``.

    Raises RuntimeError when the simplifier fails, crashes, or needs more than ``seconds`` or ``memory`` bytes.
    """
    counts = child.call("exporters.simplify:in_child", str(src), str(dst), seconds=seconds, memory=memory)
    nodes_before, nodes_after = counts["nodes"]
    norms_before, norms_after = counts["norms"]
    return f"{nodes_before} → {nodes_after} nodes, BatchNormalization {norms_before} → {norms_after}"


def in_child(src: str, dst: str) -> dict[str, Any]:
    """Runs where a crash of the simplifier hurts nobody; returns the counts before and after."""
    import onnx_ir as ir
    import onnxsim
    from onnx_ir.passes.common import LiftConstantsToInitializersPass

    from exporters import onnx_file

    before = onnx_file.read(Path(src))
    # Its own certificate is left out: certify proves what was made.
    proto, _ = onnxsim.simplify(ir.to_proto(before), skip_fuse_bn=True, certify=False)
    after = ir.from_proto(proto)
    # A weight that it computed is left in a Constant node, where a quantiser would not look for it.
    LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(after)
    after.metadata_props.update(before.metadata_props)
    onnx_file.write(after, Path(dst))
    return {
        "nodes": [len(before.graph), len(after.graph)],
        "norms": [onnx_file.count(before, "BatchNormalization"), onnx_file.count(after, "BatchNormalization")],
    }
