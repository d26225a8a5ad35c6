"""Findings that are no pass as SARIF 2.1.0 (OASIS, 2020), within what GitHub's code scanning reads of it."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline import __version__
from pipeline.finished.findings import RULES, Finding, failed

if TYPE_CHECKING:
    from pipeline.finished.check import Checked

SCHEMA = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
# Findings that pass or were not run are no results.
LEVELS = {"fail": "error", "undecided": "warning"}


def render(checked: Checked) -> str:
    """The whole file. The three lists of evidence are properties of the run, and its notifications."""
    rules = []
    for check, (identity, text) in RULES.items():
        rules.append({"id": identity, "name": check, "shortDescription": {"text": text}})
    run = {
        "tool": {"driver": {"name": "edge-resnet", "version": __version__, "rules": rules}},
        # The check itself ran to its end, whatever it found.
        "invocations": [{"executionSuccessful": True, "toolExecutionNotifications": _notifications(checked)}],
        "results": [_result(checked.name, finding) for finding in failed(checked.findings)],
        "properties": {"verdict": checked.report["verdict"], **checked.evidence},
    }
    content = {"$schema": SCHEMA, "version": "2.1.0", "runs": [run]}
    return json.dumps(content, indent=1, allow_nan=False) + "\n"


def _notifications(checked: Checked) -> list[dict[str, Any]]:
    """Each sentence of the three lists of evidence."""
    notifications = []
    for title, sentences in checked.evidence.items():
        for sentence in sentences:
            text = f"{title}: {sentence}"
            notifications.append({"level": "note", "message": {"text": text}})
    return notifications


def _result(build: str, finding: Finding) -> dict[str, Any]:
    # The same fault of the same build is the same alert in every run.
    fault = f"{build}/{finding.stage}/{finding.rule}"
    fingerprint = hashlib.sha256(fault.encode()).hexdigest()[:16]
    # GitHub's code scanning asks for a file and a line; an ONNX file has no lines, so it is the first.
    place = {
        "artifactLocation": {"uri": _uri(finding.file or build)},
        "region": {"startLine": 1},
    }
    return {
        "ruleId": finding.rule,
        "ruleIndex": list(RULES).index(finding.check),
        # What stands beside is told, and asks for nothing.
        "level": "note" if finding.beside else LEVELS[finding.verdict],
        "message": {"text": f"{finding.stage}: {finding.told}"},
        "locations": [
            {
                "physicalLocation": place,
                "logicalLocations": [{"name": finding.stage, "kind": "module"}],
            }
        ],
        "partialFingerprints": {"primaryLocationLineHash": fingerprint},
        "properties": finding.figures,
    }


def _uri(path: str) -> str:
    """Relative to where this runs, the root of the checkout in CI; a file that lies elsewhere keeps its whole URI."""
    real_path = Path(path).resolve()
    root = Path.cwd()
    if not real_path.is_relative_to(root):
        return real_path.as_uri()
    # Only an absolute path has a URI, which escapes what a URI may not hold: so one below / for a moment.
    relative = Path("/") / real_path.relative_to(root)
    return relative.as_uri().removeprefix("file:///")
