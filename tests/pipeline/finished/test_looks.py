"""A build directory remembers every verdict that was asked of it, and its looks share the error."""

from __future__ import annotations

import json
import resource
import shutil
import subprocess
import sys
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from checking import check, refused
from conftest import ROOT, TINY

from pipeline.finished import looks
from pipeline.finished.finished_build import FinishedBuild
from pipeline.finished.looks import Asked, Looks, Question
from pipeline.finished.regressions import CHECKS, Comparison, Margins
from pipeline.parity.looks import confidence_of, share
from pipeline.parity.paired import bounds

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import Cli

FIRST = Asked(
    look=1,
    day="2026-11-30",
    command="build",
    n=360,
    margin=0.01,
    confidence=0.95,
    verdict="undecided",
    answers="a",
    images="i",
    network="n",
)


def asked(directory: Path) -> list[dict[str, Any]]:
    kept: list[dict[str, Any]] = json.loads((directory / looks.FILE).read_text())["asked"]
    return kept


def numbers(directory: Path) -> list[int]:
    return [each["look"] for each in asked(directory)]


def judged(report: dict[str, Any]) -> dict[str, Any]:
    """The row of the engine."""
    (row,) = (row for row in report["stages"] if row["name"] == "engine")
    return dict(row)


def test_the_same_answers_are_the_same_look_for_ever_and_others_are_another() -> None:
    second = replace(FIRST, look=2, answers="b")
    of_another_network = replace(FIRST, network="m")
    known = Looks((FIRST, second, of_another_network))
    network = Question("n")
    assert known.number(network, "a") == 1
    assert known.number(network, "b") == 2
    assert known.number(network, "c") == known.next(network) == 3
    assert known.number(Question("m"), "b") == 2
    assert known.number(Question("n", baseline="o"), "a") == 1
    assert Looks().next(network) == 1


def test_every_part_of_a_look_tells_it_from_others() -> None:
    parts: list[Any] = [np.array([0, 1, 2]), np.array([0, 1, 1]), np.array([0, 0, 1]), "images"]
    others: list[Any] = [np.array([0, 1, 3]), np.array([0, 1, 2]), np.array([0, 1, 1]), "others"]
    first = looks.identity(*parts)
    assert looks.identity(*[part.astype(np.int32) if part is not parts[3] else part for part in parts]) == first
    for place in range(4):
        changed = [*parts]
        changed[place] = others[place]
        assert looks.identity(*changed) != first


@pytest.fixture(scope="module")
def looked(cli: Cli, built: Path, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """Three builds in one directory: one, another of the same network, and the first again; last the directory."""
    assert built  # has trained the weights
    output = tmp_path_factory.mktemp("looked") / "int8"
    samples = ("--test-samples", 400, "-o", output)
    reports = [cli.report(*TINY, *samples)]
    done = cli(*TINY, *samples, "--calib-samples", 2, "--json")
    reports.append(json.loads(done.stdout))
    reports.append(cli.report(*TINY, *samples))
    return [*reports, {"directory": output, "kept": asked(output)}]


def test_another_build_of_the_network_is_another_look_and_pays_for_it(looked: list[dict[str, Any]]) -> None:
    first, second, again, _ = looked
    assert first["looks"] | {"upper": 0, "upper_at_first_look": 0} == {
        "look": 1,
        "of_this_network": 1,
        "at_these_images": 1,
        "share": share(1),
        "confidence_of_this_look": confidence_of(1, 0.95),
        "upper": 0,
        "upper_at_first_look": 0,
        "earlier": [],
    }
    for report, look in ((first, 1), (second, 2), (again, 1)):
        row = judged(report)
        assert (row["tolerance"]["confidence"], row["tolerance"]["look"]) == (0.95, look)
        drop = row["drop"]
        spent = bounds(drop["lost"], drop["gained"], 400, confidence_of(look, 0.95))
        assert (drop["lower"], drop["upper"]) == pytest.approx(spent)
    told = second["looks"]
    assert (told["look"], told["of_this_network"], told["at_these_images"]) == (2, 2, 2)
    assert [each["look"] for each in told["earlier"]] == [1]
    assert told["upper"] > told["upper_at_first_look"]


def test_the_same_build_again_has_its_old_number_and_its_old_verdict(looked: list[dict[str, Any]]) -> None:
    first, _, again, after = looked
    assert again["looks"]["look"] == 1
    assert again["looks"]["of_this_network"] == 2
    assert judged(again)["drop"] == judged(first)["drop"]
    assert again["verdict"] == first["verdict"]
    assert [each["look"] for each in after["kept"]] == [1, 2]  # the third says nothing that is not there


def test_another_margin_is_no_new_look_and_is_remembered(looked: list[dict[str, Any]], tmp_path: Path) -> None:
    copy = shutil.copytree(looked[3]["directory"], tmp_path / "copy")
    for flags in (("--max-drop", 0.03), ("--confidence", 0.9), ("--max-drop", 0.03), ("--rerun",)):
        check(copy, *flags)
    kept = asked(copy)[2:]
    assert [(each["look"], each["command"], each["margin"], each["confidence"]) for each in kept] == [
        (1, "check", 0.03, 0.95),
        (1, "check", 0.01, 0.9),
        (1, "check", 0.01, 0.95),
    ]
    assert kept[0]["verdict"] == "pass"


def test_a_person_is_told_which_look_it_is_only_from_the_second_on(
    cli: Cli, looked: list[dict[str, Any]], tmp_path: Path
) -> None:
    copy = shutil.copytree(looked[3]["directory"], tmp_path / "copy")
    assert "look " not in check(copy).stdout
    done = cli(*TINY, "--test-samples", 400, "--calib-samples", 2, "-o", copy)
    assert "look 2 at this network" in done.stdout
    assert "2 looks were at these images" in done.stdout
    page = (copy / "report.html").read_text()
    assert "Look 2 at this network" in page


def test_answers_of_a_rerun_that_are_others_are_another_look(looked: list[dict[str, Any]], tmp_path: Path) -> None:
    copy = shutil.copytree(looked[3]["directory"], tmp_path / "copy")
    # As if other answers had been seen before: those of the files are new then.
    others = [each | {"answers": f"other {each['look']}"} for each in asked(copy)]
    (copy / looks.FILE).write_text(json.dumps({"schema": 1, "asked": others}))
    report = json.loads(check(copy, "--rerun", "--json").stdout)
    assert report["looks"]["look"] == 3
    assert judged(report)["tolerance"]["look"] == 3
    assert numbers(copy) == [1, 2, 3]


def test_a_copy_without_its_memory_is_the_look_that_its_report_says(
    cli: Cli, looked: list[dict[str, Any]], tmp_path: Path
) -> None:
    copy = shutil.copytree(looked[3]["directory"], tmp_path / "copy")
    cli(*TINY, "--test-samples", 400, "--calib-samples", 2, "-o", copy)
    kept = asked(copy)
    (copy / looks.FILE).unlink()
    for _ in range(2):
        assert "look 2 at this network, the last one of 400 images on " in check(copy).stdout
    assert asked(copy)[0] == kept[0]
    assert numbers(copy) == [1, 2]


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[]",
        "null",
        "[" * 100_000,
        '{"schema": 2, "asked": []}',
        '{"asked": []}',
        '{"schema": 1}',
        '{"schema": 1, "asked": {}}',
        '{"schema": 1, "asked": [1]}',
        json.dumps({"schema": 1, "asked": [asdict(FIRST) | {"look": 0}]}),
        json.dumps({"schema": 1, "asked": [asdict(FIRST) | {"look": "1"}]}),
        json.dumps({"schema": 1, "asked": [asdict(FIRST) | {"verdict": "good"}]}),
        json.dumps({"schema": 1, "asked": [asdict(FIRST) | {"margin": float("nan")}]}),
        json.dumps({"schema": 1, "asked": [{"look": 1}]}),
        '{"schema": 1, "asked": "\ud800"}'.encode("utf-8", "surrogatepass"),
    ],
    ids=range(16),
)
def test_a_damaged_memory_is_a_sentence_and_never_forgotten(content: str | bytes, built: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(built, tmp_path / "copy")
    path = copy / looks.FILE
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    before = path.read_bytes()
    sentence = refused(copy)
    assert str(path) in sentence
    assert "restore it, or build into a new directory" in sentence
    assert path.read_bytes() == before


def test_a_build_is_refused_before_any_work_where_the_memory_is_damaged(cli: Cli, built: Path, tmp_path: Path) -> None:
    assert built
    (tmp_path / looks.FILE).mkdir()
    for flags in ((), ("--dry-run",)):
        done = cli(*TINY, "-o", tmp_path, *flags)
        assert done.returncode == 2
        assert "looks cannot be counted" in done.stderr.splitlines()[-1]
        assert "Traceback" not in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == [looks.FILE]


def test_a_directory_that_takes_no_file_is_judged_all_the_same(copy: Path) -> None:
    def limited() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))

    before = (copy / looks.FILE).read_bytes()
    command = [sys.executable, "-m", "pipeline", "check", str(copy), "--max-drop", "0.02"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, preexec_fn=limited)
    assert done.returncode == 0, done.stderr
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"this look was not noted in {copy / looks.FILE} (")
    assert (copy / looks.FILE).read_bytes() == before
    assert not list(copy.glob(".unfinished*"))


def test_a_build_of_a_version_that_counted_no_looks_is_judged_as_the_first_and_says_so(copy: Path) -> None:
    (copy / looks.FILE).unlink()
    report = json.loads((copy / "report.json").read_text())
    # It kept no hashes either, and its page named none.
    for key in ("looks", "content", "evidence", "notes"):
        del report[key]
    (copy / "report.html").unlink()
    del report["stages"][-1]["tolerance"]["look"]
    (copy / "report.json").write_text(json.dumps(report))
    checked = json.loads(check(copy, "--json").stdout)
    assert checked["verdict"] == "pass"
    assert checked["looks"]["look"] == 1
    assert "counted no looks" in " ".join(checked["not_proven"])
    assert numbers(copy) == [1]


def test_answers_that_are_not_those_of_the_build_are_no_look(copy: Path) -> None:
    import safetensors.numpy

    before = (copy / looks.FILE).read_bytes()
    tensors = safetensors.numpy.load_file(copy / "answers.safetensors")
    tensors["top1.engine"][:] = 0
    safetensors.numpy.save_file(tensors, copy / "answers.safetensors")
    assert check(copy).returncode == 1
    assert (copy / looks.FILE).read_bytes() == before


def test_a_build_that_judges_no_margin_has_no_look(cli: Cli, built: Path, tmp_path: Path) -> None:
    assert built
    report = cli.report("--arch", "resnext_tiny", "--engine", "onnxruntime", "-o", tmp_path)
    assert report["looks"] is None
    assert not (tmp_path / looks.FILE).exists()
    assert json.loads(check(tmp_path, "--json").stdout)["looks"] is None


@pytest.mark.parametrize("n", [100, 360])
def test_a_build_next_to_itself_passes_whatever_the_number_of_images(
    cli: Cli, built: Path, tmp_path: Path, n: int
) -> None:
    assert built
    report = json.loads(cli(*TINY, "--test-samples", n, "-o", tmp_path / "x", "--json").stdout)
    done = check(tmp_path / "x", "--baseline", tmp_path / "x", "--json")
    checked = json.loads(done.stdout)
    against = {each["verdict"] for each in checked["findings"] if each["check"].startswith("baseline")}
    assert against == {"pass"}
    # What it is worth by itself is another question.
    assert checked["verdict"] == report["verdict"]
    assert "whoever keeps the better" not in " ".join(checked["not_proven"])
    assert {each["baseline"] for each in asked(tmp_path / "x")} == {None}


def test_the_same_file_needs_no_answers_of_the_baseline(copy: Path, tmp_path: Path) -> None:
    alone = tmp_path / "alone"
    alone.mkdir()
    shutil.copy(copy / "report.json", alone)
    checked = json.loads(check(copy, "--baseline", alone / "report.json", "--json").stdout)
    accuracy = [each for each in checked["findings"] if each["check"] == "baseline-accuracy"]
    assert {each["verdict"] for each in accuracy} == {"pass"}
    assert {each["figures"]["upper"] for each in accuracy} == {0.0}


def test_looks_at_a_baseline_are_counted_by_themselves_and_the_choice_is_said(
    worse: Path, built: Path, tmp_path: Path
) -> None:
    copy = shutil.copytree(worse, tmp_path / "copy")
    for _ in range(2):
        checked = json.loads(check(copy, "--baseline", built, "--json").stdout)
        assert "whoever keeps the better of the two" in " ".join(checked["not_proven"])
    against = [each for each in asked(copy) if each["baseline"] is not None]
    assert [each["look"] for each in against] == [1]

    # Another answer was held against it before: this one is the second.
    others = [each | {"answers": "others"} if each["baseline"] else each for each in asked(copy)]
    (copy / looks.FILE).write_text(json.dumps({"schema": 1, "asked": others}))
    again = json.loads(check(copy, "--baseline", built, "--json").stdout)
    upper = {
        each["stage"]: each["figures"]["upper"] for each in again["findings"] if each["check"] == "baseline-accuracy"
    }
    first = {
        each["stage"]: each["figures"]["upper"] for each in checked["findings"] if each["check"] == "baseline-accuracy"
    }
    assert upper["engine"] > first["engine"]
    assert again["looks"]["look"] == 1


def test_too_few_images_are_said_before_the_build_and_enough_are_not(cli: Cli, built: Path, tmp_path: Path) -> None:
    assert built
    few = cli(*TINY, "--test-samples", 200, "-o", tmp_path, "--dry-run")
    line = next(line for line in few.stdout.splitlines() if "cannot prove" in line)
    assert line.startswith("200 images cannot prove --max-drop 0.01, even if none is lost; ")
    needed = int(line.split("; ")[1].split()[0])
    assert bounds(0, 0, needed, confidence_of(1, 0.95))[1] < 0.01 <= bounds(0, 0, needed - 1, confidence_of(1, 0.95))[1]
    enough = cli(*TINY, "--test-samples", needed, "-o", tmp_path, "--dry-run")
    assert "cannot prove" not in enough.stdout
    # A float network has no margin to prove.
    assert "cannot prove" not in cli("--arch", "resnext_tiny", "--test-samples", 200, "--dry-run").stdout


@pytest.mark.parametrize(
    ("lost", "same_file", "verdict"), [(5, True, "pass"), (5, False, "undecided"), (40, True, "fail")]
)
def test_the_same_file_with_other_answers_is_not_undecided_and_can_still_be_convicted(
    built: Path, lost: int, same_file: bool, verdict: str
) -> None:
    build = FinishedBuild.open(built)
    then = build.saved_answers()
    right = np.flatnonzero(then.top1["engine"] == then.labels)
    worse = then.top1["engine"].copy()
    worse[right[:lost]] = (worse[right[:lost]] + 1) % 10
    now = replace(then, per_image={**then.per_image, "engine": {**then.per_image["engine"], "top1": worse}})
    row = build.stage("engine")
    row_now = row if same_file else replace(row, sha256="0" * 64)
    comparison = Comparison(row_now, row, now, then, Margins(0.01, 0.95), same_network=True)
    change = CHECKS["baseline-accuracy"](comparison)
    assert change is not None
    assert change.verdict == verdict


def test_copies_of_an_image_are_not_counted_against_a_baseline(built: Path) -> None:
    build = FinishedBuild.open(built)
    then = build.saved_answers()
    right = np.flatnonzero(then.top1["engine"] == then.labels)
    worse = then.top1["engine"].copy()
    worse[right[:40]] = (worse[right[:40]] + 1) % 10
    distinct = np.ones(len(worse), np.bool_)
    distinct[right[1:40]] = False
    per_image = {**then.per_image, "engine": {**then.per_image["engine"], "top1": worse}}
    now = replace(then, per_image=per_image, distinct=distinct)
    row = replace(build.stage("engine"), sha256="0" * 64)
    comparison = Comparison(row, build.stage("engine"), now, then, Margins(0.01, 0.95), same_network=True)
    change = CHECKS["baseline-accuracy"](comparison)
    assert change is not None
    assert change.figures["value"] == pytest.approx(1 / (len(worse) - 39))
    assert change.verdict == "pass"
