"""What `check` refuses, and says; what is hostile in a report stays text in every format."""

from __future__ import annotations

import hashlib
import json
import shutil
from typing import TYPE_CHECKING, Any

import jsonschema
import numpy as np
import pytest
import safetensors.numpy
from checking import SCHEMA, refused
from junitparser import JUnitXml

from pipeline.finished.check import Checked
from pipeline.finished.findings import Finding
from pipeline.report import github, junit, sarif

if TYPE_CHECKING:
    from pathlib import Path


def test_answers_that_are_no_numbers_are_no_baseline(built: Path, tmp_path: Path) -> None:
    kept = safetensors.numpy.load_file(built / "answers.safetensors")
    key = next(each for each in kept if each.startswith("sqnr_db."))
    content = safetensors.numpy.save({**kept, key: kept[key] * np.float32(np.nan)})
    (tmp_path / "answers.safetensors").write_bytes(content)
    report = json.loads((built / "report.json").read_text())
    (tmp_path / "report.json").write_text(json.dumps({**report, "answers": hashlib.sha256(content).hexdigest()}))
    assert "holds NaN" in refused(built, "--baseline", tmp_path, "--json")


def test_no_file_of_a_build_is_written_over(built: Path, tmp_path: Path) -> None:
    for name in ("report.json", "answers.safetensors", "06-engine.ort.onnx"):
        assert "is a file of the build there; name another" in refused(built, "--junit", built / name)
    one = tmp_path / "a"
    assert "is asked for another format too; name two files" in refused(built, "--junit", one, "--sarif", one)


def without(keys: dict[str, Any], *path: str) -> dict[str, Any]:
    found = keys
    for key in path[:-1]:
        found = found[key]
    del found[path[-1]]
    return keys


BAD: dict[str, tuple[Any, str]] = {
    "architecture": (
        lambda r: r["recipe"].update(arch="resnet50"),
        "the architecture is resnet50 there and resnext_ti",
    ),
    "data": (
        lambda r: (r["images"].update(test="0"), r["recipe"].update(data="cats")),
        "the data set is cats there and",
    ),
    "preprocessing": (
        lambda r: (r["images"].update(test="0"), r["preprocessing"].update(resize=40)),
        "the preprocessing is channels 1, convert False, exif ignore, input_size 32",
    ),
    "count": (
        lambda r: (r["images"].update(test="0"), r["stages"][0]["accuracy"].update(n=300)),
        "300 images judged it, and 900 judge this one",
    ),
    "order": (lambda r: r["images"].update(test="0"), "the images have another order there"),
    "classes": (lambda r: r["classes"].reverse(), "the images have another order there, or are others"),
    "answers": (lambda r: r.update(answers="0"), "answers.safetensors beside its report is not what that build wrote"),
    "schema": (lambda r: r.update(schema=7), "report.json is no report of schema 1"),
    "number": (lambda r: r["stages"][4].update(bytes=float("nan")), "it holds NaN, which is no number"),
    "zero": (lambda r: r["stages"][4].update(bytes=0), "its report is not whole"),
    "recipe": (lambda r: without(r, "recipe", "arch"), "its report is not whole (KeyError('arch'))"),
    "images": (lambda r: r.update(images=None), "its report is not whole"),
    "rows": (lambda r: r.update(stages=[3]), "its report is not whole"),
    "row": (lambda r: r["stages"][4].update(accuracy={}), "its report is not whole"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_baseline_that_cannot_be_compared_is_refused_and_says_why(built: Path, tmp_path: Path, case: str) -> None:
    change, sentence = BAD[case]
    old = tmp_path / "old"
    old.mkdir()
    shutil.copy(built / "answers.safetensors", old)
    report = json.loads((built / "report.json").read_text())
    change(report)
    (old / "report.json").write_text(json.dumps(report))
    assert sentence in refused(built, "--baseline", old, "--junit", tmp_path / "a.xml")
    assert not (tmp_path / "a.xml").exists()


@pytest.mark.parametrize("content", [b"", b"[" * 10**5, b"\xff\xfe", b"[]"])
def test_a_baseline_that_is_no_report_is_refused(built: Path, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "report.json").write_bytes(content)
    sentence = refused(built, "--baseline", tmp_path)
    assert sentence.startswith(f"--baseline {tmp_path}")
    assert sentence.endswith("give the directory of a finished build, or its report.json")


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["--junit", "/nowhere/a.xml"], "--junit /nowhere/a.xml: nothing can be written in /nowhere"),
        (["--sarif", "/proc/a.sarif"], "--sarif /proc/a.sarif: nothing can be written in /proc"),
        (["--junit", "/tmp"], "--junit /tmp is a folder; name a file"),
        (["--max-drift", "2"], "--max-drift 2 goes with --baseline"),
        (["--baseline", ".", "--max-growth", "-1"], "--max-growth -1: give a number from 0 on"),
        (["--baseline", ".", "--max-drift", "nan"], "--max-drift nan: give a number from 0 on"),
    ],
)
def test_what_cannot_be_is_refused_before_any_work(tmp_path: Path, flags: list[str], sentence: str) -> None:
    """There is no build in that directory, and nobody has looked yet."""
    assert sentence in refused(tmp_path, *flags)


def test_what_a_hostile_report_says_stays_text_in_every_format() -> None:
    evil = "\x00]]></testcase>\n::error::pwned | <script>alert(1)</script> 100%"
    found = [Finding("int8\n::stop-commands::x", "intact", "fail", evil, "../\n.onnx")]
    lists = {"proven": [evil], "proxy": [], "not_proven": []}
    checked = Checked("a\n::b", {"verdict": "fail", **lists}, found)
    (suite,) = JUnitXml.fromstring(junit.render(checked).encode())
    assert [str(case.result[0].message) for case in suite] == [evil.replace("\x00", "\ufffd").replace("\n", "\n")]
    jsonschema.Draft4Validator(json.loads(SCHEMA.read_text())).validate(json.loads(sarif.render(checked)))
    assert "<" not in github.render(checked)
    assert not any(line.startswith("::") for line in github.render(checked).splitlines())


def test_an_annotation_is_one_line(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GITHUB_STEP_SUMMARY", raising=False)
    found = [Finding("int8\n::stop-commands::x", "drift", "undecided", "50%\r\n::error::pwned")]
    github.tell(Checked("a", {"verdict": "undecided"}, found))
    told = "::warning title=P004 drift%3A a%2C int8%0A%3A%3Astop-commands%3A%3Ax::50%25%0D%0A::error::pwned\n"
    assert capsys.readouterr().err == told
