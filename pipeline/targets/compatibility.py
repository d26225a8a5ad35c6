"""Whether a precision, a TensorRT and a DLA can be had on a device: each rule answers, and says why."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pipeline.targets import table

if TYPE_CHECKING:
    from collections.abc import Callable

    from pipeline.targets.table import TableRow, Target, Version

# From best to worst: one JetPack is as good as its worst answer, a device as good as its best JetPack.
ORDER = ("go", "unknown", "refused")
# The opset that the graph of each precision is written with: float16 scales and FP8 need 19.
OPSETS = {"fp32": 17, "fp16": 17, "int8": 17, "int8-trt8": 17, "int8-fp16": 19, "fp8": 19}
STRONG = ("int8-fp16", "fp8")  # graphs whose types only strong typing keeps
UNITS = {"int8-trt8": "int8"}  # what computes them, where it goes by another name


def form(precision: str, tensorrt: Version) -> str:
    """The graph that ``precision`` is written as for this TensorRT.

    With strong typing all that is not INT8 is computed in the type of the scales, and with weak typing the weights are
    read in float32 only.
    """
    row = table.tensorrt(tensorrt)
    if precision != "int8" or row is None:
        return precision
    return "int8-trt8" if row["typing"] == "weak" else "int8-fp16"


@dataclass(frozen=True)
class Answer:
    """One of ORDER, a sentence, and where it was read."""

    verdict: str
    sentence: str
    source: str


@dataclass(frozen=True)
class Question:
    """What is asked of one device: the JetPack ``release`` as named, its row, and the TensorRT in question."""

    module: TableRow
    release: Version
    jetpack: TableRow | None
    tensorrt: Version | None
    precision: str | None = None
    dla: bool = False

    @property
    def version(self) -> TableRow | None:
        """What is known of this TensorRT."""
        return None if self.tensorrt is None else table.tensorrt(self.tensorrt)


def ask(target: Target, tensorrt: Version | None, precision: str | None, dla: bool = False) -> list[Answer]:  # noqa: FBT002
    """All answers for the release that was named, or for the one of the module where the most can be had."""
    rows = table.jetpacks(target.module)
    if target.release is not None:
        return _answers(target.module, target.release, tensorrt, precision, dla)
    found = [_answers(target.module, table.version(row.name), tensorrt, precision, dla) for row in reversed(rows)]
    return min(found, key=lambda answers: ORDER.index(worst(answers)))


def worst(answers: list[Answer]) -> str:
    """The verdict over all of them."""
    return max((answer.verdict for answer in answers), key=ORDER.index)


def _answers(
    module: TableRow, release: Version, tensorrt: Version | None, precision: str | None, dla: bool
) -> list[Answer]:
    jetpack = table.jetpack(release)
    shipped = jetpack["tensorrt"] if jetpack else None
    known = tensorrt or (table.version(shipped) if shipped else None)
    question = Question(module, release, jetpack, known, precision, dla)
    answers = [rule(question) for rule in RULES]
    return [answer for answer in answers if answer is not None]


def _runs(question: Question) -> Answer:
    name, release = question.module.name, _dotted(question.release)
    if question.jetpack is None:
        return Answer("unknown", f"nothing is known of JetPack {release}", "")
    if name not in question.jetpack["modules"]:
        others = ", ".join(row.name for row in table.jetpacks(question.module))
        verdict, verb = ("unknown", "is not said to") if question.jetpack["partial"] else ("refused", "does not")
        sentence = f"JetPack {release} {verb} run on {name}; these do: {others}"
        return Answer(verdict, sentence, question.jetpack.source("modules"))
    return Answer("go", f"JetPack {release} runs on {name}", question.jetpack.source("modules"))


def _comes(question: Question) -> Answer:
    """Whether this TensorRT can be had on the JetPack."""
    release, row = _dotted(question.release), question.jetpack
    if question.tensorrt is None:
        return Answer("unknown", f"nothing is known of the TensorRT of JetPack {release}; name one by --tensorrt", "")
    asked, shipped = _dotted(question.tensorrt), row["tensorrt"] if row else None
    if (
        row is not None
        and shipped is not None
        and question.tensorrt == table.version(shipped)[: len(question.tensorrt)]
    ):
        return Answer("go", f"JetPack {release} brings TensorRT {shipped}", row.source("tensorrt"))
    for cells in table.data()["combination"]:
        first, last = map(table.version, cells["tensorrt"])
        oldest, newest = map(table.version, cells["jetpack"])
        named = question.module.name in cells.get("modules", [question.module.name])
        # 11.4.0.5 is a build of 11.4.0.
        within = first <= question.tensorrt and question.tensorrt[: len(last)] <= last
        if named and within and oldest <= question.release <= newest:
            return Answer(cells["answer"], cells["why"], table.said(cells["source"]))
    return Answer("unknown", f"nothing is known of TensorRT {asked} on JetPack {release}, which brings {shipped}", "")


def _computes(question: Question) -> Answer | None:
    """Whether the module has units for the precision."""
    if question.precision is None:
        return None
    name, can = question.module.name, question.module["precisions"]
    verdict = "go" if UNITS.get(question.precision, question.precision) in can else "refused"
    return Answer(verdict, f"{name} computes in {', '.join(can)}", question.module.source("precisions"))


def _reads(question: Question) -> Answer | None:
    """Whether the parser reads the graph of the precision, and keeps its types."""
    row = question.version
    if question.precision is None or row is None:
        return None
    needed, asked = OPSETS[question.precision], _dotted(question.tensorrt or ())
    cure = "take fp16 or int8-trt8"
    if row["typing"] == "weak" and question.precision in STRONG:
        sentence = f"TensorRT {asked} has no strong typing, without which a graph of {question.precision} is not kept"
        return Answer("refused", f"{sentence}; {cure}", row.source("typing"))
    if row["typing"] == "weak" and question.precision == "int8":
        sentence = f"TensorRT {asked} reads weights behind Q/DQ pairs in float32 only, and int8 stores them in INT8"
        return Answer("refused", f"{sentence}; {cure}", table.said("guide"))
    if row["opset"] < needed:
        sentence = f"TensorRT {asked} reads opset {row['opset']} and {question.precision} is written with {needed}"
        return Answer("refused", sentence, row.source("opset"))
    return Answer("go", f"TensorRT {asked} reads opset {row['opset']}, {needed} is needed", row.source("opset"))


def _offloads(question: Question) -> Answer | None:
    """Whether the DLA takes it: the first of DLA that applies."""
    if not question.dla:
        return None
    module, row = question.module, question.version
    if module["dla"] and row is None:
        return Answer("unknown", "nothing is known of the DLA without a known TensorRT", "")
    found = next(each for each in DLA if each.applies(question, row))
    words = {"module": module.name, "tensorrt": _dotted(question.tensorrt or ()), "precision": question.precision}
    return Answer(found.verdict, found.sentence.format(**words, cores=module["dla"]), table.said(found.source))


@dataclass(frozen=True)
class Clause:
    """An answer about the DLA, and when it is the one."""

    applies: Callable[[Question, Any], bool]
    verdict: str
    sentence: str
    source: str = "dla"


DLA = (
    Clause(lambda question, _: not question.module["dla"], "refused", "{module} has no DLA", "benchmarks"),
    Clause(lambda _, row: not row["dla"], "refused", "TensorRT {tensorrt} has no DLA"),
    Clause(
        lambda question, row: row["typing"] == "strong" and question.module.name != "jetson-agx-orin",
        "refused",
        "TensorRT {tensorrt} has the DLA of jetson-agx-orin only",
    ),
    Clause(
        lambda question, _: question.precision not in {None, "fp16", "int8", "int8-trt8"},
        "refused",
        "a DLA computes in fp16 and int8, not {precision}",
    ),
    Clause(
        lambda question, row: question.precision == "int8" and row["typing"] == "strong",
        "unknown",
        "nothing is known of Q/DQ pairs on the DLA with TensorRT {tensorrt}; fp16 runs there",
    ),
    Clause(
        lambda question, _: question.precision in {"int8", "int8-trt8"},
        "refused",
        "the DLA takes INT8 from a calibration table, not from Q/DQ pairs; --calib-cache writes one, or take fp16",
        "implicit",
    ),
    Clause(lambda *_: True, "go", "{module} has {cores} DLA cores, and TensorRT {tensorrt} uses them"),
)
# What is looked at, in this order.
RULES: tuple[Callable[[Question], Answer | None], ...] = (_runs, _comes, _computes, _reads, _offloads)


def _dotted(version: Version) -> str:
    return ".".join(map(str, version))
