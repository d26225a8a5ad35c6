"""The proof that a graph is the honest successor of the one before: what answers on images can never show."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    from exporters.certify import Certificate

NAMED = 3


def proof(before: Path | None, after: Path) -> dict[str, Any] | None:
    """The certificate of two files as stages write them; None where no such proof exists for such files."""
    if before is None or after.suffixes != [".onnx"] or before.suffixes not in ([".onnx"], [".safetensors"]):
        return None
    certificate = certify(before, after)
    return {"proven": certificate.proven, **asdict(certificate)}


def certify(before: Path, after: Path) -> Certificate:
    """The certificate of ``after`` from ``before``, a graph or frozen weights; raises ValueError as those do."""
    from exporters.certify import certify as certify_graph
    from exporters.certify_weights import certify_weights

    return (certify_weights if before.suffix == ".safetensors" else certify_graph)(before, after)


def reasons(certificate: dict[str, Any] | None, contradictions: list[str]) -> list[str]:
    """What disproves a file without a look at its answers: the first differences by module, and its contradictions."""
    refuted = [] if certificate is None else certificate["refuted"]
    named = [f"refuted at {item['module'] or 'the graph'}: {item['found']}" for item in refuted[:NAMED]]
    return named + [f"it contradicts itself: {sentence}" for sentence in contradictions]
