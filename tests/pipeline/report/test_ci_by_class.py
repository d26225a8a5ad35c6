"""What CI is told of classes, groups, thresholds, and of what stands beside."""

from __future__ import annotations

import hashlib
import json
import shutil
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import safetensors.numpy
from conftest import ROOT, TINY
from junitparser import JUnitXml
from pages import change, read
from synthetic import Made, directory

from pipeline.__main__ import main
from pipeline.finished.check import Checked
from pipeline.finished.findings import Finding, findings
from pipeline.finished.finished_build import FinishedBuild
from pipeline.report import evidence, github, junit, sarif

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from conftest import Cli

    Arrays = dict[str, np.ndarray[Any, Any]]


@pytest.fixture(scope="module")
def grouped(cli: Cli, built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same build with groups of its images: those of even numbers are of the north."""
    assert built
    folder = tmp_path_factory.mktemp("grouped")
    lines = [f"{number},{('north', 'south')[number % 2]}\n" for number in range(1797)]
    (folder / "groups.csv").write_text("image,camera\n" + "".join(lines))
    cli.report(*TINY, "--groups", folder / "groups.csv", "-o", folder / "int8")
    return folder / "int8"


def spoilt(build: Path, tmp_path: Path, spoil: Callable[[Arrays], None]) -> Path:
    """A copy of ``build`` whose kept answers of the engine are others, as the build would have kept them."""
    copy = shutil.copytree(build, tmp_path / "spoilt")
    path = copy / "answers.safetensors"
    arrays = safetensors.numpy.load_file(path)
    spoil(arrays)
    kept = safetensors.numpy.save(arrays)
    path.write_bytes(kept)
    for name in ("report.json", evidence.FILE):
        change(copy / name, answers=hashlib.sha256(kept).hexdigest())
    return copy


def wrong(chosen: Callable[[Arrays], Any]) -> Callable[[Arrays], None]:
    """All answers of the engine to these images are wrong."""

    def spoil(arrays: Arrays) -> None:
        images = chosen(arrays)
        arrays["top1.engine"][images] = (arrays["labels"][images] + 1) % 10

    return spoil


def told(
    build: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *flags: object, code: int = 1
) -> tuple[dict[str, str], dict[str, Any], str]:
    """Of one check the messages of JUnit and the results of SARIF, by rule, and the summary for GitHub."""
    summary = tmp_path / "summary.md"
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(summary))
    files = ("--junit", tmp_path / "a.xml", "--sarif", tmp_path / "a.sarif", "--github")
    assert main(["check", *map(str, (build, *files, *flags))]) == code
    messages = {}
    (suite,) = JUnitXml.fromfile(str(tmp_path / "a.xml"))
    for case in suite:
        for result in case.result:
            messages[f"{str(case.classname).rpartition('.')[2]} {case.name}"] = str(result.message)
    (run,) = json.loads((tmp_path / "a.sarif").read_text())["runs"]
    results = {result["ruleId"]: result for result in run["results"]}
    return messages, results, summary.read_text()


def test_the_class_that_was_lost_is_named(built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    build = spoilt(built, tmp_path, wrong(lambda arrays: arrays["labels"] == 3))
    messages, results, summary = told(build, tmp_path, monkeypatch)
    assert messages["engine classes"].startswith("class 3 fell by 98.91 points (between ")
    assert results["P008"]["message"]["text"].startswith("engine: class 3 fell by 98.91 points (between ")
    figures = results["P008"]["properties"]
    worst = figures["worst"]
    assert (worst["name"], worst["n"], worst["lost"], worst["gained"]) == ("3", 92, 91, 0)
    assert worst["lower"] <= worst["value"] <= figures["at_most"]
    assert 0 < figures["shows"] < 1
    assert "- worst class: 3 lost 98.91 points, at least " in summary
    assert "images a class: only losses above " in summary


def test_the_group_that_was_lost_is_named(grouped: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    north = read(grouped / "report.json")["groups"]["camera"].index("north")
    build = spoilt(grouped, tmp_path, wrong(lambda arrays: arrays["group.camera"] == north))
    messages, results, summary = told(build, tmp_path, monkeypatch)
    assert messages["engine groups"].startswith("camera north fell by ")
    assert results["P009"]["message"]["text"].startswith("engine: camera north fell by ")
    assert results["P009"]["properties"]["camera"]["worst"]["name"] == "north"
    assert "- worst camera: north lost " in summary


def test_who_crosses_the_threshold_is_counted(built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def less_sure(arrays: Arrays) -> None:
        arrays["probability.engine"] = arrays["probability.engine"] * np.float32(0.5)

    build = spoilt(built, tmp_path, less_sure)
    messages, results, _ = told(build, tmp_path, monkeypatch, "--threshold", 0.6, "--max-crossed", 0.02)
    assert " % of the images cross the softmax threshold of 0.6 (between " in messages["engine threshold"]
    figures = results["P010"]["properties"]
    assert figures["threshold"] == 0.6
    assert figures["lower"] <= figures["share"] <= figures["upper"]
    assert figures["share"] == pytest.approx((figures["lost"] + figures["gained"]) / 900)


def test_a_pass_has_its_figures_too(built: Path) -> None:
    passed = {finding.check: finding for finding in findings(FinishedBuild.open(built)) if finding.stage == "engine"}
    assert passed["classes"].verdict == "pass"
    assert passed["classes"].figures["worst"]["n"] in range(80, 100)
    assert passed["drift"].figures == {}


def test_what_stands_beside_is_told_and_counts_for_nothing(tmp_path: Path) -> None:
    directory(tmp_path / "build", Made(10, 100, beside=0.2))
    found = findings(FinishedBuild.open(tmp_path / "build"))
    bad = [finding for finding in found if finding.verdict == "fail"]
    assert {finding.stage for finding in bad} == {"fp16_engine"}
    assert {finding.stage for finding in found if finding.beside} == {"fp16_engine"}

    checked = Checked("build", {"verdict": "pass", "proven": [], "proxy": [], "not_proven": []}, found)
    (suite,) = JUnitXml.fromstring(junit.render(checked).encode())
    assert (suite.failures, suite.errors, suite.skipped) == (0, 0, len(bad))
    said = [str(result.message) for case in suite for result in case.result]
    assert all(message.startswith("beside, not shipped: fail: median SQNR") for message in said)
    (run,) = json.loads(sarif.render(checked))["runs"]
    assert {result["level"] for result in run["results"]} == {"note"}
    assert "beside, not shipped: fail: median SQNR" in github.render(checked)


def test_an_annotation_of_what_stands_beside_is_a_notice(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("GITHUB_STEP_SUMMARY", raising=False)
    found = [Finding("fp16_engine", "drift", "fail", "too far", beside=True), Finding("engine", "drift", "fail", "far")]
    github.tell(Checked("a", {"verdict": "fail"}, found))
    notice, error = capsys.readouterr().err.splitlines()
    assert notice == "::notice title=P004 drift%3A a%2C fp16_engine::beside, not shipped: fail: too far"
    assert error == "::error title=P004 drift%3A a%2C engine::far"


def test_every_rule_has_its_line_in_the_docs() -> None:
    from pipeline.finished.findings import RULES

    text = (ROOT / "docs" / "ci.md").read_text()
    for check, (identity, holds) in RULES.items():
        assert f"| {identity} | {check} | {holds} |" in text
