"""Is one ONNX file the honest successor of another? Every weight, attribute and edge, with a bound that proves it.

The two graphs are walked together from their outputs (:mod:`exporters.certify_walk`). What only hands values on is
stepped over, what a stage may change is a row in :mod:`exporters.stage_changes`, and everything else is compared:

* constants by their values, however they are spelt (:mod:`exporters.constant`): float32 next to float32 the same bits;
  float16 the nearest of the float32; weights behind DequantizeLinear at most half a scale away, channel by channel;
  next to quantised weights the same levels under the same scale, or its nearest float16
  (:mod:`exporters.held_constants`);
* layers that took something in (a BatchNormalization, constants, channels a power of two apart): recomputed in float64
  (:mod:`exporters.linear_layer`, :mod:`exporters.channel_space`);
* operators by what they mean in the opset of their file (:mod:`exporters.opsets`);
* Q/DQ pairs by all that they have: scale, zero point, type, axis;
* metadata: the names of the classes and the preprocessing are part of what is shipped.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import onnx_ir as ir

from exporters import comparable, stage_changes, tidied
from exporters.certificate import Certificate, Refutation
from exporters.certify_rescale import follow
from exporters.certify_walk import Pairing, Walk
from exporters.constant import evaluate_constant
from exporters.number_formats import NUMBER_FORMATS

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np

__all__ = ["Certificate", "Refutation", "certify"]

# Metadata that say who made a file, when and of what; all others say what it means.
PROVENANCE = {"versions", "commit", "source"}
# The characters of metadata that a sentence shows.
EXCERPT = 60
# New keys of metadata that a sentence names.
SHOWN = 3


def certify(before: Path, after: Path, *, stage: str | None = None, retrained: bool = False) -> Certificate:
    """Walk both files; raises ValueError where one cannot be read or compared, or where they are the same file.

    ``stage`` names the stage that made ``after``, or several with commas between; None: what the two files show.
    ``retrained`` layers may have other weights and biases, of the same shapes; everything else is proven as ever.
    """
    if before.exists() and after.exists() and before.samefile(after):
        raise ValueError(f"{before.name} would be compared with itself; give the file before and the file after")
    old_model = comparable.read(before)
    new_model = comparable.read(after)
    names = _shown(old_model.graph, new_model.graph) if stage is None else stage.split(",")
    if retrained and "qat" not in names:
        names.append("qat")
    allowed = stage_changes.together(names)

    rescaled = 0
    # Retrained weights are no powers of two apart, so there is nothing that could be followed.
    if not allowed.retrains and (allowed.rescales or stage is None):
        tidied.tidy(old_model)
        twins = Pairing(old_model.graph, new_model.graph, allowed).twins()
        rescaled = follow(old_model.graph, twins)
    if rescaled > 0 and not allowed.rescales:
        others = [name for name in names if name != stage_changes.SIMPLIFY.name]
        allowed = stage_changes.together([*others, "equalise"])

    walk = Walk(old_model.graph, new_model.graph, allowed)
    walk.run()
    certificate = walk.certificate
    certificate.rescaled = rescaled
    _compare_metadata(certificate, old_model.metadata_props, new_model.metadata_props)
    return certificate


# --- which stage it was ---------------------------------------------------------------------------------------------


def _shown(old: ir.Graph, new: ir.Graph) -> list[str]:
    """The stages that the differences of both graphs speak of; "simplify" where they speak of none."""
    names = []
    if _count(new, "BatchNormalization") < _count(old, "BatchNormalization"):
        names.append("fold_batchnorm")
    gained = _weight_formats(new) - _weight_formats(old)
    for name, row in NUMBER_FORMATS.items():
        family = {NUMBER_FORMATS[other].dtype for other in stage_changes.family(row)}
        if row.symmetric and family & gained.keys():
            names.append(name)
    if _halves(new) and not _halves(old):
        names.append("halve" if _count(old, "DequantizeLinear") or gained else "fp16")
    if any(value.dtype == ir.DataType.UINT8 for value in new.inputs):
        names.append("uint8_input")
    return names or [stage_changes.SIMPLIFY.name]


def _count(graph: ir.Graph, operator: str) -> int:
    return sum(node.op_type == operator for node in graph)


def _weight_formats(graph: ir.Graph) -> Counter[np.dtype[Any]]:
    """How many constants are stored as levels, by the type of those."""
    formats: Counter[np.dtype[Any]] = Counter()
    for node in graph:
        levels = evaluate_constant(node.inputs[0]) if node.op_type == "DequantizeLinear" else None
        if levels is not None:
            formats[levels.dtype] += 1
    return formats


def _halves(graph: ir.Graph) -> bool:
    """Whether any stored number is float16."""
    return any(value.dtype == ir.DataType.FLOAT16 for value in graph.initializers.values())


# --- what the files say of themselves -------------------------------------------------------------------------------


def _compare_metadata(certificate: Certificate, old: dict[str, str], new: dict[str, str]) -> None:
    """Classes and preprocessing are the same, and what else was told; who made the file may be another."""
    for key in sorted(old):
        if old[key] == new.get(key):
            continue
        was, now = _excerpts(old[key], new.get(key))
        found = f"the metadata {key!r} are {now}, they were {was}"
        if key in PROVENANCE:
            certificate.noted.append(found)
        else:
            certificate.refuted.append(Refutation("", found))
    added = sorted(new.keys() - old.keys())
    if added:
        more = f" and {len(added) - SHOWN} more" if len(added) > SHOWN else ""
        certificate.noted.append(f"new metadata: {', '.join(added[:SHOWN])}{more}")


def _excerpts(old: str, new: str | None) -> tuple[str, str]:
    """Both texts from a little before they part, so that a sentence can show it; a missing one is named."""
    start = 0
    if new is not None:
        while start < min(len(old), len(new)) and old[start] == new[start]:
            start += 1
        start = max(0, start - EXCERPT // 3)
    return _excerpt(old, start), "missing" if new is None else _excerpt(new, start)


def _excerpt(text: str, start: int) -> str:
    end = start + EXCERPT
    before = "…" if start else ""
    behind = "…" if len(text) > end else ""
    return f"{before}{text[start:end]}{behind}"
