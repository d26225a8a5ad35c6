"""Whether the files of a finished build have the proofs that their kind has, and are what their rows tell of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.finished.mismatch import Mismatch

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from exporters.onnx_glance import Glance
    from pipeline.finished.finished_build import FinishedBuild
    from pipeline.stage import StageRow

CHECK = "proof"
# The operators of which a quantised graph has some.
PAIR = ("QuantizeLinear", "DequantizeLinear")


def mismatches(build: FinishedBuild, whole: list[StageRow], glances: Mapping[str, Glance]) -> Iterator[Mismatch]:
    """What is wrong with the proofs of ``build``.

    ``whole`` are the rows whose files are those that were judged, and ``glances`` those of the ONNX files, by stage.
    """
    for row in whole:
        sentences = [*_of_the_certificate(build, row), *_of_the_size(build, row)]
        if row.name in glances:
            sentences += _of_the_pairs(row, glances[row.name])
        for sentence in sentences:
            yield Mismatch(row.name, CHECK, sentence)


def _of_the_certificate(build: FinishedBuild, row: StageRow) -> Iterator[str]:
    certificate = row.certificate
    if certificate is None:
        # Every graph is certified, from the frozen weights or the graph before; the first versions did less.
        if build.content is not None and row.source is not None and row.role != "engine":
            yield f"it has no certificate, and a file made of {row.source} has one"
        return

    # What was refuted fails the row by itself.
    if row.refuted:
        return
    if certificate.get("proven") is not True:
        yield "its certificate is not proven, though it refutes nothing"
    if certificate.get("refuted") != []:
        yield "its certificate refutes something of which the row does not tell"
    # An input stage has the name of its branch before its own; earlier versions do not say which stage it is.
    stage = "uint8_input" if row.role == "input" else row.name
    if certificate.get("stage", stage) != stage:
        yield f"its certificate is that of {certificate['stage']}"


def _of_the_size(build: FinishedBuild, row: StageRow) -> Iterator[str]:
    path = build.path(row)
    if path.stat().st_size != row.bytes:
        yield f"{path.name} has {path.stat().st_size} bytes, and the report tells of {row.bytes}"


def _of_the_pairs(row: StageRow, glance: Glance) -> Iterator[str]:
    """Whether a graph that is told to be quantised holds any pair."""
    recovery = row.details.get("recovery")
    # A recovery may have put every layer back into float.
    back_in_float = isinstance(recovery, dict) and bool(recovery.get("in_float"))
    quantised = row.role == "quantised" and not back_in_float
    if not quantised and not row.int8_share:
        return
    # An engine has operators of its own.
    if row.role != "engine" and not any(glance.operators[operator] for operator in PAIR):
        yield f"{row.file} holds no Q/DQ pair, and the report tells of {row.precision}"
