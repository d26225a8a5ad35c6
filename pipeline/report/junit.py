"""Findings as JUnit XML: one test case a stage and check."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pipeline.finished.check import Checked
    from pipeline.finished.findings import Finding

# Undecided is an error and no failure, as JUnit has it: the test itself could not tell.
TAGS = {"fail": "failure", "undecided": "error", "not_run": "skipped"}
# What XML 1.0 cannot hold, not even escaped.
FORBIDDEN = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def render(checked: Checked) -> str:
    """The whole file. The three lists of evidence are properties of the suite."""
    counts = _counts(checked.findings)
    suites = ET.Element("testsuites", counts)
    suite = ET.SubElement(suites, "testsuite", {"name": _text(checked.name), **counts})
    properties = ET.SubElement(suite, "properties")
    for name, sentences in checked.evidence.items():
        for sentence in sentences:
            ET.SubElement(properties, "property", {"name": name, "value": _text(sentence)})
    for finding in checked.findings:
        _add_case(suite, checked.name, finding)
    ET.indent(suites)
    return ET.tostring(suites, encoding="unicode", xml_declaration=True) + "\n"


def _counts(findings: Sequence[Finding]) -> dict[str, str]:
    """How many test cases there are, and of each result but a pass."""
    verdicts = [_verdict(finding) for finding in findings]
    return {
        "tests": str(len(verdicts)),
        "failures": str(verdicts.count("fail")),
        "errors": str(verdicts.count("undecided")),
        "skipped": str(verdicts.count("not_run")),
    }


def _add_case(suite: ET.Element, build: str, finding: Finding) -> None:
    classname = f"{_text(build)}.{_text(finding.stage)}"
    case = ET.SubElement(suite, "testcase", {"classname": classname, "name": finding.check})
    verdict = _verdict(finding)
    if verdict not in TAGS:
        return
    attributes = {"message": _text(finding.told)}
    # A test that was skipped has no type in JUnit.
    if verdict != "not_run":
        attributes["type"] = finding.rule
    ET.SubElement(case, TAGS[verdict], attributes)


def _verdict(finding: Finding) -> str:
    """That of ``finding``; what stands beside is no test of what is shipped, and counts as left out."""
    return "not_run" if finding.beside and finding.verdict != "pass" else finding.verdict


def _text(text: str) -> str:
    """``text`` with a replacement character for each that XML cannot hold."""
    return FORBIDDEN.sub("\ufffd", text)
