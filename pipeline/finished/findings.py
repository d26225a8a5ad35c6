"""Each check of each stage with its verdict, from a report: what JUnit, SARIF and GitHub are told."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.parity.judge import weigh
from pipeline.stage import Drift, Drop, Tolerance

if TYPE_CHECKING:
    from collections.abc import Iterator

# The rule of each check: its id never changes and is never given to another. docs/ci.md has the table.
RULES = {
    "made": ("P001", "the stage made its file"),
    "intact": ("P002", "the files are there, and are those that were judged"),
    "refuted": ("P003", "nothing disproves the file: certificate, agreement with itself, scales, Q/DQ pairs"),
    "drift": ("P004", "the logits are close enough to those of the PyTorch network"),
    "step": ("P005", "the logits are close enough to those of the file before"),
    "agreement": ("P006", "enough images get the same top-1 answer as from the PyTorch network"),
    "accuracy": ("P007", "top-1 fell by less than the margin against the PyTorch network"),
    "baseline-judged": ("B001", "an engine that was judged in the baseline is judged here too"),
    "baseline-accuracy": ("B002", "top-1 fell by less than the margin against the baseline, on the same images"),
    "baseline-drift": ("B003", "the SQNR against the PyTorch network fell by less than the margin"),
    "baseline-size": ("B004", "the file grew by less than the margin"),
    "baseline-latency": ("B005", "the engine takes less than the margin longer than the baseline's, side by side"),
}


@dataclass(frozen=True)
class Finding:
    """What one check says of one stage; ``verdict`` is pass, fail, undecided or not_run, ``message`` a sentence.

    ``file`` is its path, where it has one, and ``figures`` are those behind the verdict.
    """

    stage: str
    check: str
    verdict: str
    message: str = ""
    file: str | None = None
    figures: dict[str, Any] = field(default_factory=dict)

    @property
    def rule(self) -> str:
        """The stable id of the check."""
        return RULES[self.check][0]


def findings(report: dict[str, Any], directory: Path) -> list[Finding]:
    """Every check of every stage of the build in ``directory``, whose verdicts were computed anew.

    Raises KeyError, TypeError or AttributeError where the report lacks what it should hold.
    """
    found: list[Finding] = []
    error = report["error"]
    for row in report["stages"]:
        if row["file"] is None:
            verdict = "fail" if error or row["reasons"] else "not_run"
            said = error or "; ".join(row["reasons"]) or "not reached: a stage before it failed"
            found.append(Finding(row["name"], "made", verdict, said))
            error = None  # of the first stage without a file: those behind it were never tried
        else:
            path = str(directory / Path(row["file"]).name)
            found += [Finding(row["name"], *each, path) for each in _of_a_file(row)]
    return found


def _of_a_file(row: dict[str, Any]) -> Iterator[tuple[str, str, str]]:
    """Check, verdict and sentence."""
    yield "made", "pass", str(row["work"])
    judged = row["drift"] is not None and row["drop"] is not None
    checks = _weighed(row) if judged else {}
    told = [*row["refuted"], *(reason for _, reasons in checks.values() for reason in reasons)]
    if broken := [reason for reason in row["reasons"] if reason not in told]:
        yield "intact", "fail", "; ".join(broken)
        yield from ((check, "not_run", "not asked of a file that is another") for check in checks)
        return
    yield "intact", "pass", ""
    if judged:
        yield from ((check, verdict, "; ".join(reasons)) for check, (verdict, reasons) in checks.items())
    elif row["refuted"]:
        yield "refuted", "fail", "; ".join(row["refuted"])
    else:
        yield "drift", "not_run", "built, not run here"


def _weighed(row: dict[str, Any]) -> dict[str, tuple[str, list[str]]]:
    return weigh(
        Tolerance(**row["tolerance"]),
        Drift(**row["drift"]),
        Drift(**row["step"]),
        Drop(**row["drop"]),
        row["accuracy"]["n"],
        row["refuted"],
    )


def failed(found: list[Finding]) -> Iterator[Finding]:
    """Those that are no pass: refuted, or undecided."""
    return (each for each in found if each.verdict in {"fail", "undecided"})
