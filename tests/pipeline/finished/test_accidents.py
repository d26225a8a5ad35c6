"""Every accident that may happen to the directory of a build is named by check; what happens to honest ones is not."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from accidents import (
    ACCIDENTS,
    ALSO_RUN_AGAIN,
    ANSWERS,
    Accident,
    all_of,
    answers,
    ended_at,
    of_so_many_db,
    only,
    read,
    reseal,
    row,
    without,
    write,
)
from checking import cases
from checking import check as cli_check
from conftest import TINY
from junitparser import Failure
from safetensors.numpy import load_file, save_file

from pipeline import workspace
from pipeline.finished import check, report_json
from pipeline.finished.claims import NOTHING_CENTRED
from pipeline.report import page

if TYPE_CHECKING:
    from accidents import Happens
    from conftest import Cli

    from pipeline.finished.check import Checked
    from pipeline.finished.findings import Finding


# What version 0.1 kept of its answers.
FIRST_KEPT = ("labels", "reference", "top1", "sqnr_db")


def failing(checked: Checked) -> list[Finding]:
    return [finding for finding in checked.findings if finding.verdict == "fail"]


def named(checked: Checked, accident: Accident) -> bool:
    """Whether the finding is there, and the reasons of a stage tell it too."""
    reasons = [reason for stage in checked.report["stages"] for reason in stage["reasons"]]
    found = [
        finding.message
        for finding in checked.findings
        if (finding.stage, finding.rule, finding.verdict) == (accident.stage, accident.rule, "fail")
    ]
    return any(accident.words in message for message in found) and any(accident.words in reason for reason in reasons)


def happened(accident: Accident, directory: Path, other: Path) -> Path:
    accident.happens(directory, other)
    if accident.sealed:
        reseal(directory)
    return directory


@pytest.mark.parametrize("accident", ACCIDENTS.values(), ids=ACCIDENTS)
def test_an_accident_is_named(copy: Path, worse: Path, accident: Accident) -> None:
    checked = check.check(happened(accident, copy, worse))
    assert checked.report["verdict"] == "fail"
    assert named(checked, accident), failing(checked)


@pytest.mark.parametrize("accident", ALSO_RUN_AGAIN.values(), ids=ALSO_RUN_AGAIN)
def test_an_accident_is_named_where_every_file_runs_again(copy: Path, worse: Path, accident: Accident) -> None:
    checked = check.check(happened(accident, copy, worse), rerun=True)
    assert checked.report["verdict"] == "fail"
    assert named(checked, accident), failing(checked)


# What stands beside the engines that were asked for: of a build for TensorRT-RTX as well.
BESIDE = {
    "fp16 gone": (without("fp16"), "fp16", "fp16 is missing: the recipe asks for it"),
    "its engine gone": (
        without("fp16_engine_tensorrt_rtx"),
        "fp16_engine_tensorrt_rtx",
        "fp16_engine_tensorrt_rtx is missing: the recipe asks for it",
    ),
    "all of it gone": (
        without("fp16", "fp16_engine_tensorrt_rtx"),
        "fp16",
        "fp16 is missing: the recipe asks for it",
    ),
    "all for elsewhere gone": (
        without("engine_tensorrt_rtx", "fp16", "fp16_engine_tensorrt_rtx"),
        "engine_tensorrt_rtx",
        "engine_tensorrt_rtx is missing: the recipe asks for it",
    ),
    "of another backend": (
        row("engine_tensorrt_rtx", details__backend="nobody"),
        "engine_tensorrt_rtx",
        "it was made by nobody, and the recipe asks for tensorrt-rtx",
    ),
    "answers that nothing here gives": (
        row("engine_tensorrt_rtx", provider="TensorRT"),
        "engine_tensorrt_rtx",
        "it has answers by TensorRT, and tensorrt-rtx runs nothing here",
    ),
    "the engine made for elsewhere": (
        row("engine", details__backend="tensorrt-rtx", provider=None),
        "engine",
        "it was made by tensorrt-rtx, and the recipe asks for onnxruntime",
    ),
}


@pytest.mark.parametrize(("happens", "stage", "words"), BESIDE.values(), ids=BESIDE)
def test_what_stands_beside_is_whole(mixed: Path, tmp_path: Path, happens: Happens, stage: str, words: str) -> None:
    pytest.importorskip("tensorrt_rtx")
    copy = Path(shutil.copytree(mixed, tmp_path / "mixed"))
    assert check.check(copy).report["verdict"] == "pass"
    accident = Accident(happens, stage, "P011", words)
    checked = check.check(happened(accident, copy, copy))
    assert checked.report["verdict"] == "fail"
    assert named(checked, accident), failing(checked)


def test_what_stands_beside_may_fail_to_be_made(mixed: Path, tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx")
    copy = Path(shutil.copytree(mixed, tmp_path / "mixed"))
    names = [stage["name"] for stage in read(copy)["stages"]]
    ended_at(copy, names.index("fp16"), "stage fp16 could not make 09-fp16.onnx: no memory", beside=True)
    checked = check.check(copy)
    assert checked.report["verdict"] == "pass"
    assert [(each.stage, each.rule) for each in failing(checked)] == [("fp16", "P001")]


def test_a_report_without_rows_lacks_all_of_them(copy: Path, worse: Path) -> None:
    checked = check.check(happened(Accident(only(), "", "", ""), copy, worse))
    assert checked.report["verdict"] == "fail"
    missing = [finding.stage for finding in failing(checked) if "is missing: the recipe asks for it" in finding.message]
    assert missing == ["freeze", "export", "simplify", "fold_batchnorm", "int8", "engine"]


def test_answers_that_no_file_gives_are_found_by_running_it(copy: Path, worse: Path) -> None:
    """Answers and figures that fit together, and no file that gives them."""
    forged = Accident(
        all_of(
            row("int8", drift__sqnr_db=20.0, spread__worst_db=20.0),
            row("engine", before__sqnr_db=20.0),
            answers(of_so_many_db("int8", 20)),
        ),
        "int8",
        "P012",
        "run again",
    )
    happened(forged, copy, worse)
    assert check.check(copy).report["verdict"] == "pass"
    checked = check.check(copy, rerun=True)
    assert named(checked, replace(forged, words="run again its median SQNR is 3")), failing(checked)


def test_labels_that_no_image_has_are_found_by_looking_at_the_images(copy: Path, worse: Path) -> None:
    """Where the network was wrong anyhow another wrong label changes no figure."""

    def another_wrong_one(tensors: dict[str, Any]) -> None:
        top1 = tensors["reference"].argmax(1)
        place = np.flatnonzero((top1 != tensors["labels"]) & (top1 == tensors["top1.int8"]))[0]
        tensors["labels"][place] = next(c for c in range(10) if c not in (top1[place], tensors["labels"][place]))

    exchanged = Accident(
        answers(another_wrong_one), "report", "P012", "the saved labels are not those of the 900 images"
    )
    happened(exchanged, copy, worse)
    assert named(check.check(copy, rerun=True), exchanged)


def test_honest_directories_stay_honest(cli: Cli, copy: Path) -> None:
    """Another layout, another place, another page of the same report, none at all, and the same build once more."""
    assert not failing(check.check(copy))
    write(copy, read(copy), indent=4)
    assert not failing(check.check(copy))
    moved = Path(shutil.move(copy, copy.with_name("elsewhere")))
    (moved / report_json.PAGE).unlink()
    assert not failing(check.check(moved))
    (moved / report_json.PAGE).write_text(page.html(moved))
    assert not failing(check.check(moved))
    cli.report(*TINY, "-o", moved)
    assert not failing(check.check(moved))


def test_a_build_that_ended_early_lists_what_it_did_not_reach(cli: Cli, weights: Path, tmp_path: Path) -> None:
    dark = np.random.default_rng(0).random((32, 1, 32, 32)).astype(np.float32) * 40
    np.save(tmp_path / "dark.npy", dark)
    output = tmp_path / "out"
    cli.report(*TINY, "--weights", weights, "--calib-data", tmp_path / "dark.npy", "-o", output, expect=1)
    checked = check.check(output)
    assert checked.report["verdict"] == "fail"
    derived = {"P001", "P002", "P011", "P012", "P013", "P014", "P015"}
    assert {finding.stage for finding in failing(checked)} == {"int8"}
    assert not derived & {finding.rule for finding in failing(checked)}
    reseal_without = Accident(without("engine"), "engine", "P011", "engine is missing: the recipe asks for it")
    assert named(check.check(happened(reseal_without, output, output)), reseal_without)


def test_a_directory_of_an_older_version_is_judged_and_what_it_lacks_is_said(copy: Path) -> None:
    told = read(copy)
    for key in ("content", "notes", "evidence", "groups", "subsets"):
        del told[key]
    for stage in told["stages"]:
        for key in ("role", "precision", "spread", "subsets", "before", "agreement"):
            del stage[key]
    without_centred(told)
    write(copy, told)
    tensors = load_file(copy / ANSWERS)
    kept = {name: values for name, values in tensors.items() if name.split(".")[0] in FIRST_KEPT}
    save_file(kept, copy / ANSWERS)
    write(copy, {**told, "answers": workspace.sha256(copy / ANSWERS)})
    (copy / report_json.PAGE).unlink()
    (copy / report_json.EVIDENCE).unlink()
    checked = check.check(copy)
    assert not failing(checked)
    assert checked.report["verdict"] == "pass"
    lacks = [sentence for sentence in checked.report["not_proven"] if "of a version that kept" in sentence]
    assert len(lacks) == 2
    row("int8", drift__sqnr_db=50.0)(copy, copy)
    assert "its drift.sqnr_db is 50 in the report" in failing(check.check(copy))[0].message
    write(copy, {**read(copy), "stages": told["stages"][:4]})
    assert {finding.stage for finding in failing(check.check(copy))} >= {"int8", "engine"}


def without_centred(told: dict[str, Any]) -> None:
    for stage in told["stages"]:
        for distance in (stage["drift"], stage["step"]):
            if distance is not None:
                del distance["centred_db"]


def test_a_directory_of_version_0_2_is_judged_as_whole(copy: Path) -> None:
    """It counted no agreement on its own and kept nothing of the centred logits; all the rest is asked of it."""
    told = read(copy)
    for stage in told["stages"]:
        del stage["before"], stage["agreement"]
    without_centred(told)
    tensors = load_file(copy / ANSWERS)
    kept = {name: values for name, values in tensors.items() if "centred_db." not in name}
    assert len(kept) < len(tensors)
    save_file(kept, copy / ANSWERS)
    write(copy, {**told, "answers": workspace.sha256(copy / ANSWERS)})
    reseal(copy)
    checked = check.check(copy)
    assert not failing(checked)
    assert checked.report["verdict"] == "pass"
    lacks = [sentence for sentence in checked.report["not_proven"] if "of a version that kept" in sentence]
    assert lacks == [NOTHING_CENTRED]
    judged = {stage["name"]: stage for stage in checked.report["stages"]}
    assert judged["engine"]["before"] == {"sqnr_db": judged["int8"]["drift"]["sqnr_db"], "centred_db": None}
    assert judged["engine"]["agreement"]["n"] == 900
    row("int8", drift__sqnr_db=50.0)(copy, copy)
    reseal(copy)
    assert any("its drift.sqnr_db is 50 in the report" in finding.message for finding in failing(check.check(copy)))


@pytest.mark.parametrize(
    ("stage", "figure", "words"),
    [
        ("int8", {"drift__centred_db": 50.0}, "its drift.centred_db is 50 in the report"),
        ("engine", {"before__sqnr_db": 12.0}, "its before.sqnr_db is 12 in the report"),
        ("engine", {"agreement__same": 900, "agreement__n": 901}, "its agreement.n is 901 in the report"),
    ],
)
def test_what_bounds_follow_from_is_derived_again(copy: Path, stage: str, figure: dict[str, float], words: str) -> None:
    row(stage, **figure)(copy, copy)
    reseal(copy)
    found = [finding for finding in failing(check.check(copy)) if words in finding.message]
    assert [(finding.stage, finding.rule) for finding in found] == [(stage, "P012")]


def test_ci_is_told_by_name(copy: Path, worse: Path, tmp_path: Path) -> None:
    happened(ACCIDENTS["only freeze left"], copy, worse)
    done = cli_check(copy, "--junit", tmp_path / "junit.xml", "--sarif", tmp_path / "all.sarif")
    assert done.returncode == 1
    assert "int8: int8 is missing: the recipe asks for it" in done.stdout
    assert "int8 asked" in cases(tmp_path / "junit.xml", Failure)
    (run,) = json.loads((tmp_path / "all.sarif").read_text())["runs"]
    assert "P011" in {result["ruleId"] for result in run["results"]}
