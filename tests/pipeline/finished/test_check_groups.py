"""A finished build is judged by groups that nobody named when it was built."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING

import pytest
from checking import check, refused
from safetensors.numpy import load_file, save_file

from pipeline.data import digits
from pipeline.workspace import sha256

if TYPE_CHECKING:
    from pathlib import Path

FIRST_KEPT = {"labels", "reference", "top1", "sqnr_db"}


@pytest.fixture
def cameras(tmp_path: Path) -> Path:
    part = digits.read().test
    lines = ["image,camera"]
    for place in range(len(part)):
        number = part.name(place).rpartition(" ")[2]
        lines.append(f"{number},{'south' if place % 7 == 0 else 'north'}")
    path = tmp_path / "cameras.csv"
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.mark.parametrize("flags", [[], ["--rerun"]])
def test_groups_are_judged_as_classes_are(built: Path, cameras: Path, flags: list[str]) -> None:
    done = check(built, "--groups", cameras, "--json", *flags)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    engine = next(row for row in report["stages"] if row["role"] == "engine")
    family = engine["subsets"]["camera"]
    assert (family["count"], family["least"], family["most"]) == (2, 129, 771)
    assert report["groups"] == {"camera": ["north", "south"]}
    assert ("engine", "groups", "pass") in [
        (each["stage"], each["check"], each["verdict"]) for each in report["findings"]
    ]


def test_a_group_too_small_for_its_margin_is_undecided(built: Path, cameras: Path) -> None:
    done = check(built, "--groups", cameras, "--max-class-drop", "0.0015")
    assert done.returncode == 4, done.stdout
    assert "camera losses are proven to be at most" in done.stdout


def test_groups_that_name_no_test_image_are_refused(built: Path, tmp_path: Path) -> None:
    path = tmp_path / "other.csv"
    path.write_text("image,camera\nval/cat/1.jpg,north\n")
    assert "has no line for the test image digits image" in refused(built, "--groups", path)


def test_a_share_that_may_cross_goes_with_a_threshold(built: Path) -> None:
    assert refused(built, "--max-crossed", "0.01") == "--max-crossed goes with --threshold"


def test_where_no_softmax_was_kept_a_threshold_is_undecided(built: Path, tmp_path: Path) -> None:
    """A directory as version 0.1 left it."""
    copy = tmp_path / "copy"
    shutil.copytree(built, copy)
    answers = load_file(copy / "answers.safetensors")
    kept = {name: values for name, values in answers.items() if name.split(".")[0] in FIRST_KEPT}
    save_file(kept, copy / "answers.safetensors")

    report = json.loads((copy / "report.json").read_text())
    report["answers"] = sha256(copy / "answers.safetensors")
    for key in ("content", "evidence", "notes", "subsets", "looks", "groups", "warnings"):
        report.pop(key)
    for row in report["stages"]:
        row.pop("spread")
        row.pop("subsets")
    (copy / "report.json").write_text(json.dumps(report))
    (copy / "report.html").unlink()
    (copy / "evidence.json").unlink()

    assert check(copy).returncode == 0
    done = check(copy, "--threshold", "0.9", "--max-crossed", "0.05")
    assert done.returncode == 4, done.stdout
    assert "engine: the softmax of its answers was not kept" in done.stdout
