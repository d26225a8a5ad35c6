"""A build held against an earlier one: what got worse is named by stage, in every format, and nothing else is."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from typing import TYPE_CHECKING

import jsonschema
import numpy as np
import pytest
from accidents import ended_at
from checking import SCHEMA, alone, cases, check, refused
from conftest import ROOT
from junitparser import Error, Failure, JUnitXml, Skipped

from pipeline.finished import baseline as baselines
from pipeline.finished import check as checks
from pipeline.finished import race, regressions
from pipeline.finished.findings import RULES
from pipeline.finished.finished_build import FinishedBuild
from pipeline.parity.paired import counted_bounds, median_bounds, paired_drop, unpaired_bounds

if TYPE_CHECKING:
    from pathlib import Path


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
    told = "SQNR fell, in the median over the images, by "
    assert annotation.startswith(f"::error title=B003 baseline-drift%3A int8%2C int8::{told}")
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
        found = checks.check(built, built, margins={"confidence": confidence}, slowdown=0.5).findings[-1]
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
    build = FinishedBuild.of(built, report)
    found = regressions.compare(build, old.answers, old, regressions.Margins(0.01, 0.95), files)
    assert [each.check for each in found if each.verdict == "undecided"] == ["baseline-judged"]


def test_an_fp16_engine_that_is_not_judged_any_more_is_undecided_too(built: Path) -> None:
    report = json.loads((built / "report.json").read_text())
    engine = next(row for row in report["stages"] if row["name"] == "engine")
    beside = {**engine, "name": "fp16_engine_x", "precision": "fp16"}
    there = replace(
        baselines.read(built), build=FinishedBuild.of(built, {**report, "stages": [*report["stages"], beside]})
    )
    assert there.answers is not None
    build = FinishedBuild.of(built, report)
    found = regressions.compare(build, there.answers, there, regressions.Margins(0.01, 0.95), {})
    assert [each.stage for each in found if each.verdict == "undecided"] == ["fp16_engine_x"]


def test_a_file_that_was_touched_fails_alone(built: Path, tmp_path: Path) -> None:
    shutil.copytree(built, tmp_path / "copy")
    with (tmp_path / "copy" / "06-engine.ort.onnx").open("ab") as file:
        file.write(b" ")
    done = check(tmp_path / "copy", "--baseline", built, "--junit", tmp_path / "a.xml")
    assert done.returncode == 1
    assert list(cases(tmp_path / "a.xml", Failure)) == ["engine intact"]
    assert "engine drift" in cases(tmp_path / "a.xml", Skipped)


def test_a_stage_that_could_not_make_its_file_is_the_one_that_fails(built: Path, tmp_path: Path) -> None:
    shutil.copytree(built, tmp_path / "copy")
    ended_at(tmp_path / "copy", 4, "stage int8 could not: no memory")
    done = check(tmp_path / "copy", "--junit", tmp_path / "a.xml")
    assert done.returncode == 1
    assert cases(tmp_path / "a.xml", Failure) == {"int8 made": "stage int8 could not: no memory"}
    assert list(cases(tmp_path / "a.xml", Skipped)) == ["engine made"]


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
        lower, upper = counted_bounds(int(then.sum()) - int(now.sum()), most, 400, 0.95)
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


def test_too_few_values_bound_no_median() -> None:
    assert median_bounds(np.arange(5.0), 0.05) == (0, 4)
    nothing = median_bounds(np.arange(4.0), 0.05)
    assert nothing == (-np.inf, np.inf)
    change = regressions.weigh("it fell", 1, "dB", 3, 5, *nothing)
    assert change.verdict == "undecided"
    assert change.message == "it fell by 5.00 dB (so few images give no bounds), not to be told from 3"
    assert change.figures == {"value": 5, "lower": None, "upper": None, "margin": 3}


@pytest.mark.parametrize(
    ("change", "verdict"), [((1, 0, 2), "undecided"), ((0, -1, 1), "pass"), ((2, 1.1, 3), "fail"), ((1, 1, 1), "pass")]
)
def test_a_change_is_judged_by_its_bounds(change: tuple[float, float, float], verdict: str) -> None:
    assert regressions.weigh("it fell", 1, "dB", 1, *change).verdict == verdict
    assert regressions.weigh("it fell", 1, "dB", 1, *[float("nan")] * 3).verdict == "undecided"
