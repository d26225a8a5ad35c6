"""Each check of each stage with its verdict, from a report: what JUnit, SARIF and GitHub are told."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

from pipeline.finished import report_json
from pipeline.finished.report_json import measured
from pipeline.parity.judge import weigh
from pipeline.stage import CLASSES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pipeline.finished.finished_build import FinishedBuild
    from pipeline.stage import Family, StageRow

# The rule of each check: its id never changes and is never given to another. docs/ci.md has the table.
RULES = {
    "made": ("P001", "the stage made its file"),
    "intact": ("P002", "the files are there, and are those that were judged"),
    "refuted": ("P003", "nothing disproves the file: certificate, agreement with itself, scales, Q/DQ pairs"),
    "drift": ("P004", "the logits are close enough to those of the PyTorch network"),
    "step": ("P005", "the logits are close enough to those of the file before"),
    "agreement": ("P006", "enough images get the same top-1 answer as from the PyTorch network"),
    "accuracy": ("P007", "top-1 fell by less than the margin against the PyTorch network"),
    "classes": ("P008", "no class is proven to have lost more than it may"),
    "groups": ("P009", "no group of images is proven to have lost more than it may"),
    "threshold": ("P010", "few enough images cross the softmax threshold"),
    "asked": ("P011", "the rows are those that the recipe asks for, each made from the right one by the right backend"),
    "figures": ("P012", "what the report says of the answers is what the saved answers give"),
    "network": ("P013", "the classes and the preprocessing of every file are those of the frozen network"),
    "proof": (
        "P014",
        "the file has the certificate of its kind, proven, and Q/DQ pairs where it is quantised",
    ),
    "same-build": ("P015", "the report, its notes, evidence and page, and the answers are of one build"),
    "baseline-judged": ("B001", "an engine that was judged in the baseline is judged here too"),
    "baseline-accuracy": ("B002", "top-1 fell by less than the margin against the baseline, on the same images"),
    "baseline-drift": ("B003", "the SQNR against the PyTorch network fell by less than the margin"),
    "baseline-size": ("B004", "the file grew by less than the margin"),
    "baseline-latency": ("B005", "the engine takes less than the margin longer than the baseline's, side by side"),
}


# In place of a stage, of what belongs to none.
REPORT = "report"


@dataclass(frozen=True)
class Finding:
    """What one check says of one stage; ``verdict`` is pass, fail, undecided or not_run, ``message`` a sentence.

    ``file`` is its path, where it has one, and ``figures`` are those behind the verdict. One ``beside`` is of a stage
    that leads to no engine that was asked for: it decides nothing.
    """

    stage: str
    check: str
    verdict: str
    message: str = ""
    file: str | None = None
    figures: dict[str, Any] = field(default_factory=dict)
    beside: bool = False

    @property
    def told(self) -> str:
        """Its sentence; of one beside also that it decides nothing."""
        return f"beside, not shipped: {self.verdict}: {self.message}" if self.beside and self.message else self.message

    @property
    def rule(self) -> str:
        """The stable id of the check."""
        return RULES[self.check][0]


# The checks that hold a report against what it follows from: of every stage, and of what belongs to no stage.
DERIVED = ("asked", "figures", "network", "proof", "same-build")
OF_NO_STAGE = ("figures", "same-build")


def findings(build: FinishedBuild) -> list[Finding]:
    """Every check of every stage of ``build``, whose verdicts were computed anew."""
    every_finding = _of_the_report(build)
    error = build.error
    for row in build.stages:
        beside = row.stands_beside(build.precision)
        if row.file is None:
            made = _not_made(build, row, error)
            every_finding += _failed(build, row)
            if made is not None:
                every_finding.append(replace(made, beside=beside))
                error = None  # of the first stage without a file: those behind it were never tried
            continue
        path = str(build.path(row))
        for check, verdict, message in _of_a_file(build, row):
            figures = FIGURES[check](row) if check in FIGURES else {}
            # That what stands beside is whole, and of this build, is not its own affair.
            decides = not beside or check in (*DERIVED, "intact")
            every_finding.append(Finding(row.name, check, verdict, message, path, figures, not decides))
    return every_finding


def _of_the_report(build: FinishedBuild) -> list[Finding]:
    """Of all that belongs to no stage."""
    path = str(build.directory / report_json.FILE)
    return [_derived(build, None, check, path) for check in OF_NO_STAGE]


def _failed(build: FinishedBuild, row: StageRow) -> list[Finding]:
    """What is wrong with a row that has no file."""
    every_finding = [_derived(build, row.name, check, None) for check in ("made", *DERIVED)]
    return [finding for finding in every_finding if finding.verdict == "fail"]


def _derived(build: FinishedBuild, stage: str | None, check: str, path: str | None) -> Finding:
    sentences = [item.sentence for item in build.mismatches if (item.stage, item.check) == (stage, check)]
    return Finding(stage or REPORT, check, "fail" if sentences else "pass", "; ".join(sentences), path)


def _own_reasons(build: FinishedBuild, row: StageRow) -> list[str]:
    """Why ``row`` has its verdict, mismatches aside."""
    told = {item.sentence for item in build.mismatches}
    return [reason for reason in row.reasons if reason not in told]


def _not_made(build: FinishedBuild, row: StageRow, error: str | None) -> Finding | None:
    """``error``: why the stage could not make its file, where it was tried; None where a mismatch tells why."""
    reasons = "; ".join(_own_reasons(build, row))
    if error or reasons:
        return Finding(row.name, "made", "fail", error or reasons)
    if row.verdict == "fail":
        return None
    return Finding(row.name, "made", "not_run", "not reached: a stage before it failed")


def _of_a_file(build: FinishedBuild, row: StageRow) -> Iterator[tuple[str, str, str]]:
    """Check, verdict and sentence."""
    yield "made", "pass", str(row.work)
    for check in DERIVED:
        finding = _derived(build, row.name, check, None)
        yield check, finding.verdict, finding.message

    checks = _weighed(row)
    of_its_checks = list(row.refuted)
    for _, reasons in checks.values():
        of_its_checks += reasons

    # A reason that no check of its answers gave: the file itself is gone, another, or does not run.
    broken = [item.sentence for item in build.mismatches if (item.stage, item.check) == (row.name, "intact")]
    broken += [reason for reason in _own_reasons(build, row) if reason not in of_its_checks]
    if broken:
        yield "intact", "fail", "; ".join(broken)
        for check in checks:
            yield check, "not_run", "not asked of a file that is another"
        return

    yield "intact", "pass", ""
    if checks:
        for check, (verdict, reasons) in checks.items():
            yield check, verdict, "; ".join(reasons)
    elif row.refuted:
        yield "refuted", "fail", "; ".join(row.refuted)
    else:
        yield "drift", "not_run", "built, not run here" if row.provider is None else "its answers cannot be judged"


def _weighed(row: StageRow) -> dict[str, tuple[str, list[str]]]:
    """The verdict and the reasons of each check of its answers; empty where there are none."""
    return {} if measured(row) is None else weigh(row)


def _classes(row: StageRow) -> dict[str, Any]:
    return _of_family(row.subsets[CLASSES]) if CLASSES in row.subsets else {}


def _groups(row: StageRow) -> dict[str, Any]:
    return {column: _of_family(family) for column, family in row.subsets.items() if column != CLASSES}


def _threshold(row: StageRow) -> dict[str, Any]:
    if row.spread is None or row.spread.crossing is None:
        return {}
    return asdict(row.spread.crossing)


def _of_family(family: Family) -> dict[str, Any]:
    """The worst subset, what none lost more than, and from which loss on one would show."""
    return {
        "worst": asdict(family.worst),
        "at_most": family.at_most,
        "shows": family.shows,
        "allowed": family.allowed,
        "count": family.count,
    }


# The figures behind the verdict of a check, where it is not a sentence alone that holds them.
FIGURES: dict[str, Callable[[StageRow], dict[str, Any]]] = {
    "classes": _classes,
    "groups": _groups,
    "threshold": _threshold,
}


def failed(all_findings: list[Finding]) -> list[Finding]:
    """Those that are no pass: refuted, or undecided."""
    return [finding for finding in all_findings if finding.verdict in {"fail", "undecided"}]
