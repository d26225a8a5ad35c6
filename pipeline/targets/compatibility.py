"""Whether a precision, a TensorRT and a DLA can be had on a device: each rule answers, and says why."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, cast

from exporters.portable import device_rules
from pipeline.precisions import PRECISIONS
from pipeline.targets import table

if TYPE_CHECKING:
    from collections.abc import Callable

    from pipeline.precisions import Precision
    from pipeline.targets.table import TableRow, Target, Version

# From best to worst. One JetPack is as good as its worst answer, a device as good as its best JetPack.
ORDER = ("go", "unknown", "refused")


def form(precision: str, tensorrt: Version) -> str:
    """The graph that ``precision`` is written as for this TensorRT.

    With strong typing all that is not INT8 is computed in the type of the scales, and with weak typing the weights are
    read in float32 only.
    """
    known = table.tensorrt(tensorrt)
    if known is None:
        return precision
    wanted = PRECISIONS[precision]
    if known["typing"] == "weak":
        return wanted.weak_form or precision
    return wanted.strong_form or precision


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
    precision: Precision | None = None
    dla: bool = False

    @property
    def tensorrt_row(self) -> TableRow | None:
        """What is known of this TensorRT."""
        if self.tensorrt is None:
            return None
        return table.tensorrt(self.tensorrt)

    @property
    def shipped(self) -> str | None:
        """The TensorRT that the JetPack brings, None where nobody knows."""
        if self.jetpack is None:
            return None
        return cast("str | None", self.jetpack["tensorrt"])

    @property
    def precision_name(self) -> str | None:
        """The precision in question by its name."""
        if self.precision is None:
            return None
        return self.precision.name

    @property
    def tensorrt_text(self) -> str:
        """The TensorRT in question as it is written, as in 10.3.0."""
        return _dotted(self.tensorrt or ())


def ask(target: Target, tensorrt: Version | None, precision: str | None, dla: bool = False) -> list[Answer]:  # noqa: FBT002
    """All answers for the release that was named, or for the one of the module where the most can be had."""
    wanted = PRECISIONS[precision] if precision is not None else None
    if target.release is not None:
        return _answers(target.module, target.release, tensorrt, wanted, dla)

    # The newest first: among equally good ones min takes the first.
    releases = [table.version(row.name) for row in reversed(table.jetpacks(target.module))]
    answers_by_release = [_answers(target.module, release, tensorrt, wanted, dla) for release in releases]
    return min(answers_by_release, key=lambda answers: ORDER.index(worst(answers)))


def worst(answers: list[Answer]) -> str:
    """The verdict over all of them."""
    return max((answer.verdict for answer in answers), key=ORDER.index)


def _answers(
    module: TableRow, release: Version, tensorrt: Version | None, precision: Precision | None, dla: bool
) -> list[Answer]:
    question = Question(module, release, table.jetpack(release), tensorrt, precision, dla)
    # Where no TensorRT was named, the one that the JetPack brings is in question.
    if tensorrt is None and question.shipped is not None:
        question = replace(question, tensorrt=table.version(question.shipped))
    answers = []
    for rule in RULES:
        answer = rule(question)
        if answer is not None:
            answers.append(answer)
    return answers


def _runs(question: Question) -> Answer:
    """Whether the JetPack runs on the module."""
    name = question.module.name
    release = _dotted(question.release)
    jetpack = question.jetpack
    if jetpack is None:
        return Answer("unknown", f"nothing is known of JetPack {release}", "")

    source = jetpack.source("modules")
    if name in jetpack["modules"]:
        return Answer("go", f"JetPack {release} runs on {name}", source)
    others = ", ".join(row.name for row in table.jetpacks(question.module))
    # Of some releases the sources list some modules only, and a module that they leave out may run all the same.
    if jetpack["partial"]:
        return Answer("unknown", f"JetPack {release} is not said to run on {name}; these do: {others}", source)
    return Answer("refused", f"JetPack {release} does not run on {name}; these do: {others}", source)


def _comes(question: Question) -> Answer:
    """Whether this TensorRT can be had on the JetPack."""
    release = _dotted(question.release)
    if question.tensorrt is None:
        return Answer("unknown", f"nothing is known of the TensorRT of JetPack {release}; name one by --tensorrt", "")

    jetpack = question.jetpack
    shipped = question.shipped
    # A person names 10.3 and means the 10.3.0 that is brought.
    if (
        jetpack is not None
        and shipped is not None
        and device_rules.is_build_of(table.version(shipped), question.tensorrt)
    ):
        return Answer("go", f"JetPack {release} brings TensorRT {shipped}", jetpack.source("tensorrt"))

    known = device_rules.combination(table.data(), question.module.name, question.release, question.tensorrt)
    if known is not None:
        return Answer(known["answer"], known["why"], table.cited(known["source"]))
    sentence = f"nothing is known of TensorRT {question.tensorrt_text} on JetPack {release}, which brings {shipped}"
    return Answer("unknown", sentence, "")


def _computes(question: Question) -> Answer | None:
    """Whether the module has units for the precision."""
    if question.precision is None:
        return None
    module = question.module
    verdict = "refused"
    if device_rules.computes_in(module.cells, question.precision.computes_in):
        verdict = "go"
    sentence = f"{module.name} computes in {', '.join(module['precisions'])}"
    return Answer(verdict, sentence, module.source("precisions"))


def _reads(question: Question) -> Answer | None:
    """Whether the parser reads the graph of the precision, and keeps its types."""
    row = question.tensorrt_row
    precision = question.precision
    if precision is None or row is None:
        return None

    version = question.tensorrt_text
    if not device_rules.keeps_types(row.cells, precision.typing):
        return _loses_types(precision, version, row)
    if not device_rules.reads_opset(row.cells, precision.opset):
        sentence = f"TensorRT {version} reads opset {row['opset']} and {precision.name} is written with"
        return Answer("refused", f"{sentence} {precision.opset}", row.source("opset"))
    sentence = f"TensorRT {version} reads opset {row['opset']}, {precision.opset} is needed"
    return Answer("go", sentence, row.source("opset"))


def _loses_types(precision: Precision, version: str, row: TableRow) -> Answer:
    """Why a TensorRT with weak typing does not keep this precision, and what to take there."""
    # Those of PRECISIONS that weak typing keeps by its flags.
    cure = "take fp16 or int8-trt8"
    if precision.scales == "float16":
        sentence = f"TensorRT {version} has no strong typing, without which a graph of {precision.name} is not kept"
        return Answer("refused", f"{sentence}; {cure}", row.source("typing"))
    # All in float32 and INT8: weak typing would keep that, but the parser does not read it.
    sentence = (
        f"TensorRT {version} reads weights behind Q/DQ pairs in float32 only, and {precision.name} stores them in INT8"
    )
    return Answer("refused", f"{sentence}; {cure}", table.cited("guide"))


def _offloads(question: Question) -> Answer | None:
    """Whether the DLA takes it: the first of DLA that applies."""
    if not question.dla:
        return None
    module = question.module
    row = question.tensorrt_row
    # A module without a DLA has none, whatever the TensorRT.
    if module["dla"] and row is None:
        return Answer("unknown", "nothing is known of the DLA without a known TensorRT", "")

    clause = next(clause for clause in DLA if clause.applies(question, row))
    sentence = clause.sentence.format(
        module=module.name,
        tensorrt=question.tensorrt_text,
        precision=question.precision_name,
        cores=module["dla"],
    )
    return Answer(clause.verdict, sentence, table.cited(clause.source))


@dataclass(frozen=True)
class Clause:
    """An answer about the DLA, and when it is the one."""

    applies: Callable[[Question, Any], bool]
    verdict: str
    sentence: str
    source: str = "dla"


def _no_unit_of_a_dla(question: Question, _: Any) -> bool:
    """Whether the graph has types that a DLA does not compute: float16 around INT8 is neither one."""
    precision = question.precision
    if precision is None:
        return False
    return precision.computes_in not in {"fp16", "int8"} or precision.scales == "float16"


def _pairs_in_strong_types(question: Question, row: Any) -> bool:
    """Whether Q/DQ pairs in a graph for strong typing go to a TensorRT that has no other."""
    precision = question.precision
    if precision is None or not precision.calibrated:
        return False
    return precision.typing == "strong" and row["typing"] == "strong"


def _pairs(question: Question, _: Any) -> bool:
    """Whether the graph is quantised by Q/DQ pairs."""
    return question.precision is not None and question.precision.calibrated


# In this order: each relies on those before it not to apply.
DLA = (
    Clause(lambda question, _: not question.module["dla"], "refused", "{module} has no DLA", "benchmarks"),
    Clause(lambda _, row: not row["dla"], "refused", "TensorRT {tensorrt} has no DLA"),
    Clause(
        lambda question, row: row["typing"] == "strong" and question.module.name != "jetson-agx-orin",
        "refused",
        "TensorRT {tensorrt} has the DLA of jetson-agx-orin only",
    ),
    Clause(_no_unit_of_a_dla, "refused", "a DLA computes in fp16 and int8, not {precision}"),
    Clause(
        _pairs_in_strong_types,
        "unknown",
        "nothing is known of Q/DQ pairs on the DLA with TensorRT {tensorrt}; fp16 runs there",
    ),
    Clause(
        _pairs,
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
