"""The proof that a graph is the honest successor of the one before: what answers on images can never show."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

NAMED = 3


def proof(before: Path | None, after: Path) -> dict[str, Any] | None:
    """The certificate of two ONNX files as stages write them; None where there are no two such files."""
    from exporters.certify import certify

    if before is None or not all(path.suffixes == [".onnx"] for path in (before, after)):
        return None
    certificate = certify(before, after)
    return {"proven": certificate.proven, **asdict(certificate)}


def reasons(certificate: dict[str, Any] | None, contradictions: list[str]) -> list[str]:
    """What disproves a file without a look at its answers: the first differences by module, and its contradictions."""
    refuted = [] if certificate is None else certificate["refuted"]
    named = [f"refuted at {item['module'] or 'the graph'}: {item['found']}" for item in refuted[:NAMED]]
    return named + [f"it contradicts itself: {sentence}" for sentence in contradictions]
