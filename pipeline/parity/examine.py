"""One file looked at from every side: its answers on the test images, and what can be disproved without them."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import numpy as np

from pipeline import workspace
from pipeline.errors import PipelineError, StageFailed
from pipeline.parity import answers
from pipeline.parity.consistency import contradictions, sample
from pipeline.parity.drift import accuracy, drift
from pipeline.parity.fault import wasted
from pipeline.parity.judge import judge
from pipeline.parity.paired import paired_drop
from pipeline.parity.proof import certify

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from pipeline.data.images import Images
    from pipeline.stage import StageRow

# Decibels at which two answers of one file to one image count as the same: its own step bound, within these.
CONSISTENT, REORDERED = 30.0, 90.0
NAMED = 3
FEW = 32
# Noise of a Q/DQ pair in dB over what 8 bits need there; minmax over a heavy tail may take 10, and honestly.
GROSS = 15.0
# Logits that differ by less than this share of the largest, from image to image, do not depend on the image.
ALIKE = 1e-6


@dataclass
class Exhibit:
    """The file at ``path``, made from ``source``, and its ``logits`` (N, classes) on ``images``."""

    row: StageRow
    path: Path
    source: Path | None
    images: Images
    run: answers.Run
    logits: NDArray[np.float32]


def examine(
    row: StageRow,
    path: Path,
    source: Path | None,
    images: Images,
    reference: NDArray[np.float32],
    before: NDArray[np.float32] | None,
) -> NDArray[np.float32] | None:
    """Fill ``row`` with all that the file shows, and its verdict; its logits, or None where they are no numbers.

    ``reference`` are the logits of the frozen network, ``before`` those of ``source`` (None: the reference).
    Raises StageFailed where the file cannot be run.
    """
    assert row.tolerance is not None
    exhibit = _run(row, path, source, images)
    try:
        row.drift = drift(reference, exhibit.logits)
        row.step = drift(reference if before is None else before, exhibit.logits)
    except ValueError as error:
        row.verdict, row.refuted = "fail", [str(error), *_refuted(exhibit, "certified")]
        row.reasons = row.refuted
        return None
    labels, top1 = images.labels, exhibit.logits.argmax(1)
    row.accuracy = accuracy(exhibit.logits, labels)
    row.drop = paired_drop(reference.argmax(1) == labels, top1 == labels, row.tolerance.confidence)
    row.refuted = list(_refuted(exhibit, *CHECKS))
    row.verdict, row.reasons = judge(row.tolerance, row.drift, row.step, row.drop, len(labels), row.refuted)
    return exhibit.logits


def _run(row: StageRow, path: Path, source: Path | None, images: Images) -> Exhibit:
    try:
        runner = answers.of_file(path)
        logits = runner.answers(images, f"judging {path.name}")
    except PipelineError:
        raise
    except Exception as error:
        raise StageFailed(
            f"stage {row.name} made {path.name}, which cannot be run: {workspace.explain(error)}"
        ) from error
    row.provider = runner.provider
    return Exhibit(row, path, source, images, runner.run, logits)


def _refuted(exhibit: Exhibit, *names: str) -> Iterator[str]:
    for name in names:
        try:
            yield from CHECKS[name](exhibit)
        except Exception as error:  # noqa: BLE001
            # Whatever it is that cannot be looked into: the file is not proven.
            yield f"the check {name!r} could not be made: {workspace.explain(error)}"


def _alike(exhibit: Exhibit) -> list[str]:
    """Whether the answers depend on the images at all."""
    moved = np.ptp(exhibit.logits.astype(np.float64), axis=0).max()
    if len(exhibit.logits) > 1 and moved <= ALIKE * np.abs(exhibit.logits).max():
        return [f"all {len(exhibit.logits)} images get the same answer, whatever they show"]
    return []


def _consistent(exhibit: Exhibit) -> list[str]:
    """Whether the file agrees with itself."""
    assert exhibit.row.tolerance is not None
    least = max(CONSISTENT, min(exhibit.row.tolerance.step_sqnr_db, REORDERED))
    try:
        found = contradictions(exhibit.run, sample(exhibit.images), least)
    except Exception as error:  # noqa: BLE001
        # Each runtime has errors of its own for a batch size that it does not take.
        found = [f"it does not run on every batch size: {workspace.explain(error)}"]
    return [f"it contradicts itself: {sentence}" for sentence in found]


def _certified(exhibit: Exhibit) -> list[str]:
    """Whether it is the honest successor of the graph, or the weights, before."""
    source, path = exhibit.source, exhibit.path
    if source is None or path.suffixes != [".onnx"] or source.suffixes not in ([".onnx"], [".safetensors"]):
        return []
    assert exhibit.row.tolerance is not None
    certificate = certify(source, path, retrained=exhibit.row.tolerance.retrained)
    exhibit.row.certificate = {"proven": certificate.proven, **asdict(certificate)}
    return [f"refuted at {item.module or 'the graph'}: {item.found}" for item in certificate.refuted[:NAMED]]


def _scaled(exhibit: Exhibit) -> list[str]:
    """Whether its Q/DQ pairs make no more noise than 8 bits need."""
    source, path = exhibit.source, exhibit.path
    if source is None or path.suffixes != [".onnx"] or source.suffixes != [".onnx"]:
        return []
    if "DequantizeLinear" not in (exhibit.row.certificate or {}).get("operators", {"DequantizeLinear"}):
        return []
    from pipeline.data import sampling

    found = wasted(source, path, sampling.some(exhibit.images, FEW))
    return [f"at {item.module}: {item.sentence}" for item in found if item.decibels > GROSS][:NAMED]


def _linted(exhibit: Exhibit) -> list[str]:
    """Whether its Q/DQ pairs stand where their runtime takes them, and lets layers fuse."""
    from exporters import lint, onnx_file

    if exhibit.path.suffixes != [".onnx"]:
        return []
    model = onnx_file.read(exhibit.path)
    found = lint.lint(model, lint.placement_of(model))
    return [f"{item.rule} at {item.module or 'the graph'}: {item.sentence}" for item in found[:NAMED]]


# What is asked of every file beside its answers; each gives sentences, none where there is nothing to say.
CHECKS: dict[str, Callable[[Exhibit], list[str]]] = {
    "alike": _alike,
    "consistent": _consistent,
    "certified": _certified,
    "scaled": _scaled,
    "linted": _linted,
}
