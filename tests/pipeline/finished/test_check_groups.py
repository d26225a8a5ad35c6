"""A finished build is judged by groups that nobody named when it was built."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from checking import check, refused

from pipeline.data import digits

if TYPE_CHECKING:
    from pathlib import Path


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
