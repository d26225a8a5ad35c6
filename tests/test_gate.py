"""A build held against an earlier one: what got worse is named by stage, in every format, and nothing else is."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import jsonschema
import numpy as np
import pytest
import safetensors.numpy
from conftest import ROOT
from junitparser import Error, Failure, JUnitXml, Skipped

from pipeline import race
from pipeline.__main__ import parser
from pipeline.errors import BadRequest
from pipeline.gate import baseline as baselines
from pipeline.gate import gate
from pipeline.gate.findings import RULES, Finding
from pipeline.gate.gate import Checked
from pipeline.parity.paired import bounds, median_bounds, paired_drop, unpaired_bounds
from pipeline.report import github, junit, sarif

if TYPE_CHECKING:
    from pathlib import Path

# As published by the OASIS committee; from the npm package @microsoft/jest-sarif 1.0.0-beta.0 (MIT).
SCHEMA = ROOT / "tests" / "data" / "sarif-2.1.0-rtm.5.json"


def check(*arguments: object, **variables: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pipeline", "check", *map(str, arguments)]
    environment = {key: value for key, value in os.environ.items() if not key.startswith("GITHUB_")}
    return subprocess.run(
        command, cwd=ROOT, env={**environment, **variables}, capture_output=True, text=True, check=False
    )


def refused(*arguments: object) -> str:
    """The sentence of a check that is refused."""
    asked = parser()[0].parse_args(["check", *map(str, arguments)])
    with pytest.raises(BadRequest) as raised:
        asked.run(asked)
    return str(raised.value)


def cases(path: Path, kind: type) -> dict[str, str]:
    """Stage and check of every test case with such a result, and its message, as junitparser reads the file."""
    (suite,) = JUnitXml.fromfile(str(path))
    found = {}
    for case in suite:
        stage = str(case.classname).rpartition(".")[2]
        found.update({f"{stage} {case.name}": str(each.message) for each in case.result if isinstance(each, kind)})
    return found


def alone(directory: Path, tmp_path: Path, **keys: Any) -> Path:
    """The report of a build without its answers, with some keys replaced."""
    path = tmp_path / "alone" / "report.json"
    path.parent.mkdir()
    path.write_text(json.dumps({**json.loads((directory / "report.json").read_text()), **keys}))
    return path


def test_a_worse_build_fails_at_the_stage_that_made_it_worse_and_every_format_says_so(
    built: Path, worse: Path, tmp_path: Path
) -> None:
    assert check(worse).returncode == 0  # its own bounds do not see it
    summary = tmp_path / "summary.md"
    summary.write_text("what an earlier step said\n")
    done = check(
        *(
            worse,
            "--baseline",
            built,
            "--max-drift",
            1,
            "--junit",
            tmp_path / "a.xml",
            "--sarif",
            tmp_path / "a.sarif",
            "--json",
        ),
        GITHUB_ACTIONS="true",
        GITHUB_STEP_SUMMARY=str(summary),
    )
    assert done.returncode == 1, done.stderr
    assert list(cases(tmp_path / "a.xml", Failure)) == ["int8 baseline-drift"]
    assert list(cases(tmp_path / "a.xml", Skipped)) == ["engine baseline-drift"]
    assert not cases(tmp_path / "a.xml", Error)

    content = json.loads((tmp_path / "a.sarif").read_text())
    jsonschema.Draft4Validator(json.loads(SCHEMA.read_text())).validate(content)
    (run,) = content["runs"]
    (result,) = run["results"]
    assert (result["ruleId"], result["level"]) == ("B003", "error")
    assert run["tool"]["driver"]["rules"][result["ruleIndex"]]["id"] == "B003"
    assert result["properties"]["lower"] > 1

    (annotation,) = (line for line in done.stderr.splitlines() if line.startswith("::"))
    assert annotation.startswith("::error title=B003 baseline-drift%3A int8%2C int8::the median SQNR fell by ")
    text = summary.read_text()
    assert text.startswith("what an earlier step said\n### edge-resnet: int8: FAIL")
    assert "| int8 | pass |" in text

    report = json.loads(done.stdout)
    assert report["verdict"] == "fail"
    for title in ("proven", "proxy", "not_proven"):
        name = title.replace("_", " ")
        (suite,) = JUnitXml.fromfile(str(tmp_path / "a.xml"))
        assert [each.value for each in suite.properties() if each.name == name] == report[title] != []
        assert run["properties"][name] == report[title]
        assert f"**{name}**" in text
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.sarif", "a.xml", "summary.md"]


def test_a_build_is_no_worse_than_itself_and_no_slower(built: Path) -> None:
    done = check(built, "--baseline", built, "--max-drift", 0, "--max-growth", 0, "--max-slowdown", 0.5)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "against the baseline: 20 of 20 checks pass" in done.stdout
    assert done.stderr == ""


def test_a_slower_and_a_larger_engine_are_told_by_timing_both_here(built: Path, mixed: Path, tmp_path: Path) -> None:
    """Float16 around INT8 is converted to and fro on a CPU."""
    done = check(mixed, "--baseline", built, "--max-slowdown", 0.2, "--junit", tmp_path / "a.xml")
    assert done.returncode == 1, done.stderr
    found = cases(tmp_path / "a.xml", Failure)
    assert list(found) == ["engine baseline-size", "engine baseline-latency"]
    assert "more than 20" in found["engine baseline-latency"]


def test_the_bounds_of_the_time_hold_with_the_confidence_asked_for(
    built: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """4 of 20 rounds were twice as slow: within a margin of a half by bounds of 95 %, and not by those of 99.9 %."""
    asked = []

    def raced(*_: object, **options: object) -> tuple[list[race.Timing], bool]:
        asked.append(options["confidence"])
        return [race.Timing(rounds=[1.0] * 20), race.Timing(rounds=[1.0] * 16 + [2.0] * 4)], True

    monkeypatch.setattr(race, "race", raced)
    for confidence, verdict in ((0.95, "pass"), (0.999, "undecided")):
        found = gate.check(built, built, confidence=confidence, slowdown=0.5).findings[-1]
        assert (found.check, found.verdict) == ("baseline-latency", verdict)
    assert asked == [0.95, 0.999]


def test_a_report_alone_is_compared_by_counts_and_the_output_says_so(built: Path, worse: Path, tmp_path: Path) -> None:
    old = alone(built, tmp_path)
    assert check(built, "--baseline", old).returncode == 0
    done = check(worse, "--baseline", old, "--max-drift", 1)
    assert done.returncode == 1
    assert "not proven: The baseline kept no answers: its top-1 is compared by counts" in done.stdout
    assert "int8: baseline-drift: fail: the median SQNR fell by " in done.stdout
    assert "--max-slowdown times two engines side by side" in refused(worse, "--baseline", old, "--max-slowdown", 1)


def test_counts_of_other_weights_cannot_tell_one_point_on_900_images(built: Path, tmp_path: Path) -> None:
    stages = json.loads((built / "report.json").read_text())["stages"]
    stages[0]["sha256"] = "0" * 64
    done = check(built, "--baseline", alone(built, tmp_path, stages=stages), "--junit", tmp_path / "a.xml")
    assert done.returncode == 4, done.stdout
    assert "proxy: The baseline has other weights" in done.stdout
    open_ = cases(tmp_path / "a.xml", Error)
    assert {name.split()[1] for name in open_} == {"baseline-accuracy"}
    assert "not to be told from 1" in open_["engine baseline-accuracy"]


def test_an_engine_that_is_not_judged_any_more_is_undecided(built: Path) -> None:
    report = json.loads((built / "report.json").read_text())
    old = baselines.read(built)
    for row in report["stages"]:
        if row["name"] == "engine":
            row.update(provider=None, accuracy=None, drift=None, step=None, drop=None, verdict="not_run")
    assert old.answers is not None
    files = {row["name"]: row["file"] for row in report["stages"]}
    found = baselines.compare(report, old.answers, old, baselines.Margins(0.01, 0.95), files)
    assert [each.check for each in found if each.verdict == "undecided"] == ["baseline-judged"]


def test_an_fp16_engine_that_is_not_judged_any_more_is_undecided_too(built: Path) -> None:
    report = json.loads((built / "report.json").read_text())
    engine = next(row for row in report["stages"] if row["name"] == "engine")
    there = replace(
        baselines.read(built), report={**report, "stages": [*report["stages"], {**engine, "name": "fp16_engine_x"}]}
    )
    assert there.answers is not None
    found = baselines.compare(report, there.answers, there, baselines.Margins(0.01, 0.95), {})
    assert [each.stage for each in found if each.verdict == "undecided"] == ["fp16_engine_x"]


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


def test_a_file_that_was_touched_fails_alone(built: Path, tmp_path: Path) -> None:
    shutil.copytree(built, tmp_path / "copy")
    with (tmp_path / "copy" / "06-engine.ort.onnx").open("ab") as file:
        file.write(b" ")
    done = check(tmp_path / "copy", "--baseline", built, "--junit", tmp_path / "a.xml")
    assert done.returncode == 1
    assert list(cases(tmp_path / "a.xml", Failure)) == ["engine intact"]
    assert "engine drift" in cases(tmp_path / "a.xml", Skipped)


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
        "the preprocessing is channels 1, convert False, input_size 32",
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


def test_a_stage_that_could_not_make_its_file_is_the_one_that_fails(built: Path, tmp_path: Path) -> None:
    shutil.copytree(built, tmp_path / "copy")
    report = json.loads((built / "report.json").read_text())
    empty = {
        "file": None,
        "sha256": None,
        "provider": None,
        "accuracy": None,
        "drift": None,
        "drop": None,
        "step": None,
    }
    report["stages"][4:] = [row | empty for row in report["stages"][4:]]
    (tmp_path / "copy" / "report.json").write_text(json.dumps({**report, "error": "stage int8 could not: no memory"}))
    done = check(tmp_path / "copy", "--junit", tmp_path / "a.xml")
    assert done.returncode == 1
    assert cases(tmp_path / "a.xml", Failure) == {"int8 made": "stage int8 could not: no memory"}
    assert list(cases(tmp_path / "a.xml", Skipped)) == ["engine made"]


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


def test_ids_are_documented_and_no_two_checks_share_one() -> None:
    page = (ROOT / "docs" / "ci.md").read_text()
    assert len({identity for identity, _ in RULES.values()}) == len(RULES)
    for name, (identity, text) in RULES.items():
        assert f"| {identity} | {name} | {text} |" in page


def test_bounds_from_counts_hold_those_of_the_same_images() -> None:
    """Counts against one reference bound what may have changed between two builds of it."""
    random = np.random.default_rng(0)
    for _ in range(50):
        right = random.random(400) < 0.9
        then, now = (right ^ (random.random(400) < share) for share in (0.02, 0.03))
        drop = paired_drop(then, now, 0.95)
        (lost, gained), (lost_then, gained_then) = (
            (int((right & ~each).sum()), int((~right & each).sum())) for each in (now, then)
        )
        most = gained_then + lost
        lower, upper = bounds(most, most - (int(then.sum()) - int(now.sum())), 400, 0.95)
        assert most - (int(then.sum()) - int(now.sum())) == lost_then + gained
        assert lower <= drop.lower <= drop.upper <= upper
        wide = unpaired_bounds(int(then.sum()), int(now.sum()), 400, 0.95)
        assert wide[0] <= drop.value <= wide[1]


def test_bounds_hold_as_often_as_they_say() -> None:
    random, low, high, far = np.random.default_rng(0), 0, 0, 0
    for _ in range(1000):
        lower, upper = median_bounds(random.exponential(size=60), 0.05)
        low, high = low + (lower <= np.log(2)), high + (upper >= np.log(2))
        then, now = random.binomial(300, 0.9), random.binomial(300, 0.85)
        far += unpaired_bounds(then, now, 300, 0.95)[1] >= 0.05
    assert min(low, high, far) / 1000 > 0.93


@pytest.mark.parametrize(
    ("change", "verdict"), [((1, 0, 2), "undecided"), ((0, -1, 1), "pass"), ((2, 1.1, 3), "fail"), ((1, 1, 1), "pass")]
)
def test_a_change_is_judged_by_its_bounds(change: tuple[float, float, float], verdict: str) -> None:
    assert baselines.weigh("it fell", 1, "dB", 1, *change)[0] == verdict
    assert baselines.weigh("it fell", 1, "dB", 1, *[float("nan")] * 3)[0] == "undecided"
