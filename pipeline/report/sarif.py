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
LEVELS = {"fail": "error", "undecided": "warning"}


def render(checked: Checked) -> str:
    """The whole file. The three lists of evidence are properties of the run, and its notifications."""
    rules = [
        {"id": identity, "name": check, "shortDescription": {"text": text}} for check, (identity, text) in RULES.items()
    ]
    told = [
        {"level": "note", "message": {"text": f"{title}: {sentence}"}}
        for title, sentences in checked.evidence.items()
        for sentence in sentences
    ]
    run = {
        "tool": {"driver": {"name": "edge-resnet", "version": __version__, "rules": rules}},
        "invocations": [{"executionSuccessful": True, "toolExecutionNotifications": told}],
        "results": [_result(checked.name, each) for each in failed(checked.findings)],
        "properties": {"verdict": checked.report["verdict"], **checked.evidence},
    }
    content = {"$schema": SCHEMA, "version": "2.1.0", "runs": [run]}
    return json.dumps(content, indent=1, allow_nan=False) + "\n"


def _result(build: str, each: Finding) -> dict[str, Any]:
    # The same fault of the same build is the same alert in every run.
    identity = hashlib.sha256(f"{build}/{each.stage}/{each.rule}".encode()).hexdigest()[:16]
    return {
        "ruleId": each.rule,
        "ruleIndex": list(RULES).index(each.check),
        "level": LEVELS[each.verdict],
        "message": {"text": f"{each.stage}: {each.message}"},
        "locations": [
            {
                "physicalLocation": {
                    "artifactLocation": {"uri": _uri(each.file or build)},
                    "region": {"startLine": 1},
                },
                "logicalLocations": [{"name": each.stage, "kind": "module"}],
            }
        ],
        "partialFingerprints": {"primaryLocationLineHash": identity},
        "properties": each.figures,
    }


def _uri(path: str) -> str:
    """Relative to where this runs, the root of the checkout in CI; a file that lies elsewhere keeps its whole URI."""
    whole, here = Path(path).resolve(), Path.cwd()
    if not whole.is_relative_to(here):
        return whole.as_uri()
    return (Path("/") / whole.relative_to(here)).as_uri().removeprefix("file:///")
