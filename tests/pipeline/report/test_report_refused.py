"""What is hostile in a report stays text, what is damaged is refused, and what is missing is told."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from pages import Page, change, change_answers, png, read, refusal, refused

from pipeline.report import evidence, page

if TYPE_CHECKING:
    from pathlib import Path


def test_names_of_classes_and_folders_are_text(copy: Path) -> None:
    bad = '"><script>alert(1)</script><img src=x onerror=alert(1)>{{ 7*7 }}'
    told = read(copy / "report.json")
    told["classes"] = [bad] * 10
    told["error"] = told["not_proven"][0] = told["sources"]["data"] = told["recipe"]["arch"] = bad
    told["stages"][3] |= {"work": bad, "reasons": [bad], "file": bad}
    (copy / "report.json").write_text(json.dumps(told))
    change_answers(copy)
    kept = read(copy / evidence.FILE)
    kept["depth"]["steps"][3]["module"] = kept["engines"][0]["file"] = bad
    kept["flips"] = [{"name": bad, "label": 3, "before": 3, "after": 8, "png": png()}]
    kept["engines"][0]["layers"][3] |= {"name": bad, "modules": [bad], "kind": bad}
    (copy / evidence.FILE).write_text(json.dumps(kept))
    shown = Page(page.html(copy))
    assert not shown.all("script")
    assert len(shown.all("img")) == 1
    assert not [name for _, attributes in shown.elements for name in attributes if name.startswith("on")]
    assert shown.text.count("<script>alert(1)</script>") > 20
    assert "{{ 7*7 }}" in shown.text


@pytest.mark.parametrize("content", ["", "{", "[]", "\x00\x01", '{"schema": 1}', '{"schema": 2}'])
def test_a_damaged_report_is_refused(copy: Path, content: str) -> None:
    (copy / "report.json").write_text(content)
    assert str(copy) in refusal(copy)


def test_where_it_is_refused_the_page_stays(copy: Path) -> None:
    (copy / "report.json").write_text("{")
    before = (copy / page.FILE).read_bytes()
    assert "report.json is damaged" in refused(copy)
    assert (copy / page.FILE).read_bytes() == before
    assert not list(copy.glob(".unfinished*"))


@pytest.mark.parametrize(
    "keys",
    [
        {"stages": 3},
        {"verdict": None},
        {"verdict": "great"},
        {"recipe": []},
        {"classes": ["0"]},
        {"speed": {"value": "x"}},
        {"environment": {}},
    ],
    ids=str,
)
def test_a_report_that_makes_no_sense_is_refused(copy: Path, keys: dict[str, Any]) -> None:
    change(copy / "report.json", **keys)
    if "classes" in keys:
        change_answers(copy)
    assert "is not whole" in refusal(copy)


def test_answers_that_were_touched_are_refused(copy: Path) -> None:
    (copy / "answers.safetensors").write_bytes(b"0" * 64)
    assert "is not what this build wrote" in refusal(copy)
    (copy / "answers.safetensors").unlink()
    assert "cannot be read" in refusal(copy)


def test_evidence_that_is_gone_or_anothers_is_told_and_a_damaged_one_refused(copy: Path) -> None:
    change(copy / evidence.FILE, answers="0" * 64)
    assert "Not measured: evidence.json is that of another build" in Page(page.html(copy)).text
    (copy / evidence.FILE).write_text("{")
    assert "evidence.json is damaged" in refusal(copy)
    (copy / evidence.FILE).unlink()
    shown = Page(page.html(copy))
    assert "Not measured: there is no evidence.json" in shown.text
    assert shown.of_class("histogram")


@pytest.mark.parametrize("png", ["PHN2Zz48L3N2Zz4=", "no base64", ""])
def test_an_image_that_is_none_is_refused(copy: Path, png: str) -> None:
    change(copy / evidence.FILE, flips=[{"name": "a", "label": 1, "before": 1, "after": 2, "png": png}])
    assert "build again" in refusal(copy)
