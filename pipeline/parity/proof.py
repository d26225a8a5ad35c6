"""Proves that a graph is the honest successor of the file before, which answers on images can never show."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from exporters.certify import Certificate


def certify(before: Path, after: Path, *, stage: str | None = None, retrained: bool = False) -> Certificate:
    """The certificate of ``after`` from ``before``, a graph or frozen weights; raises ValueError as those do.

    ``stage`` made ``after`` of a graph; None: what the two files show. ``retrained`` layers may have other weights.
    """
    from exporters.certify import certify as certify_graph
    from exporters.certify_weights import certify_weights

    if before.suffix == ".safetensors":
        return certify_weights(before, after, must_say=stage is not None)
    return certify_graph(before, after, stage=stage, retrained=retrained)
