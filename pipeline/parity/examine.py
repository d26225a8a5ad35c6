"""Looks at one file from every side: at its answers to the test images, and at what can be disproved without them."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import numpy as np

from pipeline import workspace
from pipeline.errors import PipelineError, StageFailed
from pipeline.parity import answers, figures
from pipeline.parity.consistency import contradictions, sample
from pipeline.parity.fault import excess_noise_on
from pipeline.parity.judge import judge
from pipeline.parity.own_noise import step_bound
from pipeline.parity.per_image import per_image
from pipeline.parity.proof import certify
from pipeline.stage import SAME_BITS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from pipeline.data.images import Images
    from pipeline.parity.figures import TestSet
    from pipeline.parity.per_image import PerImage
    from pipeline.stage import StageRow

# Two answers of one file to one image count as the same from the step bound of the file on, kept within these; where
# the file makes more noise than the least of them, two roundings of it lie as far apart as that.
LEAST_CONSISTENT_DB = 30.0
MOST_CONSISTENT_DB = 90.0
# Of one check no more sentences than this are shown.
MOST_NAMED = 3
# Images on which the noise of Q/DQ pairs is measured. So few do not show how far a rare tail reaches: pairs that look
# suspect there are looked into on more.
NOISE_IMAGES = 32
MORE_NOISE_IMAGES = 512
SUSPECT_DB = 10.0
# Noise of a Q/DQ pair in dB over what 8 bits need there; honest methods take 12 over a heavy tail (docs/bounds.md).
GROSS_EXCESS_DB = 15.0
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


@dataclass(frozen=True)
class Examined:
    """The ``logits`` (N, classes) of a file, and what is kept of them."""

    logits: NDArray[np.float32]
    kept: PerImage


def examine(
    row: StageRow,
    path: Path,
    source: Path | None,
    images: Images,
    test_set: TestSet,
    logits_before: NDArray[np.float32] | None,
    kept_before: PerImage | None,
) -> Examined | None:
    """Fill ``row`` with all that the file shows, and its verdict; returns its answers, or None where they are unusable.

    ``logits_before`` and ``kept_before`` are those of ``source``; None: those of the frozen network. Raises StageFailed
    where the file cannot be run.
    """
    assert row.tolerance is not None
    exhibit = _run(row, path, source, images)
    before = test_set.reference if logits_before is None else logits_before
    try:
        kept = per_image(exhibit.logits, test_set.labels, test_set.reference, before)
    except ValueError as error:
        # Answers of another shape or without numbers have no figures; that the graph is honest can still be refuted.
        row.verdict = "fail"
        row.refuted = [str(error), *_refuted(exhibit, "certified")]
        row.reasons = row.refuted
        return None

    figures.fill(row, test_set, kept, kept_before)
    row.refuted = list(_refuted(exhibit, *CHECKS))
    row.verdict, row.reasons = judge(row)
    return Examined(exhibit.logits, kept)


def _run(row: StageRow, path: Path, source: Path | None, images: Images) -> Exhibit:
    """Load the file afresh and let it answer all images."""
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
    """The sentences of the checks with these ``names``."""
    for name in names:
        try:
            yield from CHECKS[name](exhibit)
        except Exception as error:  # noqa: BLE001
            # Whatever it is that cannot be looked into: the file is not proven.
            yield f"the check {name!r} could not be made: {workspace.explain(error)}"


def _alike(exhibit: Exhibit) -> list[str]:
    """Whether the answers depend on the images at all."""
    # Copies of one image rightly get one answer.
    logits = exhibit.logits[exhibit.images.distinct]
    # Of each logit, by how much it differs between the images at most.
    largest_change = np.ptp(logits.astype(np.float64), axis=0).max()
    if len(logits) > 1 and largest_change <= ALIKE * np.abs(logits).max():
        return [f"all {len(logits)} images get the same answer, whatever they show"]
    return []


def _consistent(exhibit: Exhibit) -> list[str]:
    """Whether the file agrees with itself."""
    assert exhibit.row.tolerance is not None
    step_bound_db = exhibit.row.tolerance.step_sqnr_db
    least_db = max(LEAST_CONSISTENT_DB, min(step_bound_db, MOST_CONSISTENT_DB))
    own_db = None if exhibit.row.drift is None else exhibit.row.drift.sqnr_db
    if step_bound_db < SAME_BITS:
        least_db = step_bound(least_db, own_db).db
    try:
        sentences = contradictions(exhibit.run, sample(exhibit.images), least_db)
    except Exception as error:  # noqa: BLE001
        # Each runtime has errors of its own for a batch size that it does not take.
        sentences = [f"it does not run on every batch size: {workspace.explain(error)}"]
    return [f"it contradicts itself: {sentence}" for sentence in sentences]


def _certified(exhibit: Exhibit) -> list[str]:
    """Whether it is the honest successor of the graph, or the weights, before."""
    source = exhibit.source
    if source is None or not _is_plain_onnx(exhibit.path):
        return []
    if not _is_plain_onnx(source) and source.suffixes != [".safetensors"]:
        return []
    row = exhibit.row
    assert row.tolerance is not None
    # An input stage has the name of its branch before its own; what took a failed stage's place changed nothing.
    stage = "uint8_input" if row.role == "input" else row.name
    certificate = certify(source, exhibit.path, stage=stage, retrained=row.tolerance.retrained)
    exhibit.row.certificate = {"proven": certificate.proven, **asdict(certificate)}
    return [f"refuted at {item.module or 'the graph'}: {item.found}" for item in certificate.refuted[:MOST_NAMED]]


def _scaled(exhibit: Exhibit) -> list[str]:
    """Whether its Q/DQ pairs make no more noise than 8 bits need; asked behind :func:`_certified`."""
    source = exhibit.source
    if source is None or not _is_plain_onnx(exhibit.path) or not _is_plain_onnx(source):
        return []
    certificate = exhibit.row.certificate
    # Without a certificate it is not known whether there are pairs.
    if certificate is not None and "DequantizeLinear" not in certificate["operators"]:
        return []
    from pipeline.data import sampling

    few = sampling.some(exhibit.images, NOISE_IMAGES)
    suspects = [noise for noise in excess_noise_on(source, exhibit.path, few) if noise.suspect_db > SUSPECT_DB]
    if not suspects:
        return []
    more = sampling.some(exhibit.images, MORE_NOISE_IMAGES)
    activations = {noise.activation for noise in suspects if noise.activation is not None}
    noises = excess_noise_on(source, exhibit.path, more, only=activations)
    gross = [noise for noise in noises if noise.excess_db > GROSS_EXCESS_DB]
    return [f"at {noise.module}: {noise.sentence}" for noise in gross[:MOST_NAMED]]


def _linted(exhibit: Exhibit) -> list[str]:
    """Whether its Q/DQ pairs stand where their runtime takes them, and lets layers fuse."""
    from exporters import lint, onnx_file

    if not _is_plain_onnx(exhibit.path):
        return []
    model = onnx_file.read(exhibit.path)
    # Without pairs it is no file for any one runtime yet: which engines come of it, their own builders judge.
    if not onnx_file.count(model, "QuantizeLinear", "DequantizeLinear"):
        return []
    findings = lint.lint(model, lint.placement_of(model))
    return [f"{item.rule} at {item.module or 'the graph'}: {item.sentence}" for item in findings[:MOST_NAMED]]


def _is_plain_onnx(path: Path) -> bool:
    """Whether it is a graph of ONNX operators, and none that a runtime compiled for itself (``.ort.onnx``)."""
    return path.suffixes == [".onnx"]


# What is asked of every file beside its answers; each gives sentences, none where there is nothing to say.
CHECKS: dict[str, Callable[[Exhibit], list[str]]] = {
    "alike": _alike,
    "consistent": _consistent,
    "certified": _certified,
    "scaled": _scaled,
    "linted": _linted,
}
