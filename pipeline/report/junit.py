"""Findings as JUnit XML: one test case a stage and check."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

if TYPE_CHECKING:
    from pipeline.finished.check import Checked

# Undecided is an error and no failure, as JUnit has it: the test itself could not tell.
TAGS = {"fail": "failure", "undecided": "error", "not_run": "skipped"}
# What XML 1.0 cannot hold, not even escaped.
FORBIDDEN = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def render(checked: Checked) -> str:
    """The whole file. The three lists of evidence are properties of the suite."""
    verdicts = [each.verdict for each in checked.findings]
    counts = {"tests": str(len(verdicts))} | {
        name: str(verdicts.count(verdict))
        for name, verdict in (("failures", "fail"), ("errors", "undecided"), ("skipped", "not_run"))
    }
    top = ET.Element("testsuites", counts)
    suite = ET.SubElement(top, "testsuite", {"name": _text(checked.name), **counts})
    properties = ET.SubElement(suite, "properties")
    for name, sentences in checked.evidence.items():
        for sentence in sentences:
            ET.SubElement(properties, "property", {"name": name, "value": _text(sentence)})
    for each in checked.findings:
        about = {"classname": f"{_text(checked.name)}.{_text(each.stage)}", "name": each.check}
        case = ET.SubElement(suite, "testcase", about)
        if each.verdict in TAGS:
            told = {"message": _text(each.message)}
            if each.verdict != "not_run":
                told["type"] = each.rule
            ET.SubElement(case, TAGS[each.verdict], told)
    ET.indent(top)
    return ET.tostring(top, encoding="unicode", xml_declaration=True) + "\n"


def _text(text: str) -> str:
    return FORBIDDEN.sub("\ufffd", text)
