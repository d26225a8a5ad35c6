"""onnxsim in a child process, and what of its work can be proven.

BatchNormalization stays, because folding it is the next stage's own, proven work. Where not everything that the
simplifier did can be proven, it is asked for less: to compute constants and nothing more; and where that cannot be
proven either, the graph stays as it is. Nothing unproven goes on.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from exporters import child
from exporters.certify import certify

# Limits of time and of bytes; a ResNeXt-101 takes 8 s and 2 GB.
SECONDS = 600.0
MEMORY = 16 * 2**30


class Simplified(NamedTuple):
    """What was done, and what the simplifier did besides that could not be proven; None where all of it was."""

    work: str
    unproven: str | None


def simplify(src: Path, dst: Path, seconds: float = SECONDS, memory: int = MEMORY) -> Simplified:
    """Write the simplified ``src`` to ``dst``.

    Raises RuntimeError when the simplifier fails, crashes, or needs more than ``seconds`` or ``memory`` bytes.
    """
    unproven = None
    for attempt in ("in_child", "constants_in_child"):
        counts = child.call(f"exporters.simplify:{attempt}", str(src), str(dst), seconds=seconds, memory=memory)
        refuted = certify(src, dst, stage="simplify").refuted
        if not refuted:
            return Simplified(_in_words(counts), unproven)
        first = refuted[0]
        if unproven is None:
            unproven = f"{len(refuted)} changes, the first at {first.module or 'the graph'}: {first.found}"

    dst.write_bytes(src.read_bytes())
    return Simplified(f"nothing: {src.name} goes on as it was", unproven)


def _in_words(counts: dict[str, Any]) -> str:
    nodes_before, nodes_after = counts["nodes"]
    norms_before, norms_after = counts["norms"]
    return f"{nodes_before} → {nodes_after} nodes, BatchNormalization {norms_before} → {norms_after}"


def in_child(src: str, dst: str) -> dict[str, Any]:
    """Runs where a crash of the simplifier hurts nobody; returns the counts before and after."""
    return _simplified(src, dst)


def constants_in_child(src: str, dst: str) -> dict[str, Any]:
    """The same, but constants alone are computed: no two nodes become one."""
    return _simplified(src, dst, perform_optimization=False)


def _simplified(src: str, dst: str, **options: bool) -> dict[str, Any]:
    import onnx_ir as ir
    import onnxsim
    from onnx_ir.passes.common import LiftConstantsToInitializersPass

    from exporters import onnx_file

    before = onnx_file.read(Path(src))
    # Its own certificate is left out: certify proves what was made.
    proto, _ = onnxsim.simplify(ir.to_proto(before), skip_fuse_bn=True, certify=False, **options)
    after = ir.from_proto(proto)
    # A weight that it computed is left in a Constant node, where a quantiser would not look for it.
    LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(after)
    after.metadata_props.update(before.metadata_props)
    onnx_file.write(after, Path(dst))
    return {
        "nodes": [len(before.graph), len(after.graph)],
        "norms": [onnx_file.count(before, "BatchNormalization"), onnx_file.count(after, "BatchNormalization")],
    }
