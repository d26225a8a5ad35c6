"""A CSV file of groups: who is in which, and every file that does not say it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from pipeline.data import groups
from pipeline.data.part import Part, part_of
from pipeline.errors import BadRequest

if TYPE_CHECKING:
    from pathlib import Path

NAMES = ["data/val/cat/1.jpg", "data/val/cat/2.jpg", "data/val/dog/1.jpg", "data/val/dog/3.jpg"]


def part(names: list[str]) -> Part:
    return Part(np.zeros(len(names), np.int64), lambda index: index, lambda index: names[index])


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "groups.csv"
    path.write_text(text, encoding="utf-8")
    return path


def lines(*keys: str) -> str:
    return "image,camera\n" + "".join(f"{key},{'north' if place % 2 else 'south'}\n" for place, key in enumerate(keys))


@pytest.mark.parametrize(
    "keys",
    [
        NAMES,
        ["val/cat/1.jpg", "val/cat/2.jpg", "val/dog/1.jpg", "val/dog/3.jpg"],
        ["cat/1.jpg", "2.jpg", "./dog/1.jpg", "3.jpg"],
        ["val/dog/9.jpg", "cat/1.jpg", "cat/2.jpg", "dog/1.jpg", "dog/3.jpg"],
    ],
)
def test_an_image_goes_by_its_path_or_the_end_of_it(tmp_path: Path, keys: list[str]) -> None:
    found = groups.read(written(tmp_path, lines(*keys)), part(NAMES))
    assert list(found) == ["camera"]
    assert list(found["camera"].names) == ["north", "south"]
    place = {key.removeprefix("./"): number % 2 for number, key in enumerate(keys)}
    for name, code in zip(NAMES, found["camera"].codes, strict=True):
        key = next(key for key in place if name.endswith(key))
        assert found["camera"].names[code] == ("north" if place[key] else "south")


def test_several_columns_a_mark_in_front_and_text_of_any_kind(tmp_path: Path) -> None:
    text = '\ufeffimage, light ,site\r\nval/cat/1.jpg,day,"Köln, <b>Süd</b>"\r\ncat/2.jpg,night,x\r\n'
    text += "dog/1.jpg,day,x\r\ndog/3.jpg,night,x\r\n"
    found = groups.read(written(tmp_path, text), part(NAMES))
    assert {column: list(each.names) for column, each in found.items()} == {
        "light": ["day", "night"],
        "site": ["Köln, <b>Süd</b>", "x"],
    }


def test_images_of_a_data_set_go_by_their_number(tmp_path: Path) -> None:
    images = part_of(np.zeros((3, 4, 4), np.uint8), np.arange(3), "digits")
    found = groups.read(written(tmp_path, "image,half\n0,a\n1,a\n2,b\n"), images)
    assert found["half"].codes.tolist() == [0, 0, 1]


def test_fifty_thousand_groups(tmp_path: Path) -> None:
    names = [f"val/c/{number}.jpg" for number in range(50_000)]
    text = "image,serial\n" + "".join(f"{name},{place}\n" for place, name in enumerate(names))
    found = groups.read(written(tmp_path, text), part(names))
    assert len(found["serial"].names) == 50_000


WELL = "cat/1.jpg,a\ncat/2.jpg,b\ndog/1.jpg,a\ndog/3.jpg,b\n"


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "starts with ''; it has a first line such as image,camera"),
        ("name,camera\n" + WELL, "starts with 'name,camera'"),
        ("image\ncat/1.jpg\n", "starts with 'image'"),
        ("image,camera,camera\n" + WELL, "in columns of different names"),
        ("image,classes\n" + WELL, "in columns of different names"),
        ("image,\n" + WELL, "starts with 'image,'"),
        ("image,camera\ncat/1.jpg\n", "line 2 does not fill its 2 columns"),
        ("image,camera\ncat/1.jpg,a\ncat/2.jpg,\n", "line 3 does not fill its 2 columns"),
        ("image,camera\ncat/1.jpg,a\ncat/2.jpg,b\ndog/1.jpg,a\n", "has no line for the test image data/val/dog/3.jpg"),
        ("image,camera\n1.jpg,a\n2.jpg,b\n3.jpg,b\n", "1.jpg is the end of data/val/cat/1.jpg and of data/val/dog/1"),
        ("image,camera\ncat/1.jpg,b\n" + WELL, "has two lines for cat/1.jpg that differ"),
        ("image,camera\n" + WELL.replace(",b", ",a"), "all images have the same camera, 'a'"),
        ('image,camera\n"cat/1.jpg,a\n', "cannot be read"),
    ],
)
def test_what_is_refused(tmp_path: Path, text: str, sentence: str) -> None:
    with pytest.raises(BadRequest) as raised:
        groups.read(written(tmp_path, text), part(NAMES))
    assert sentence in str(raised.value)


def test_a_file_that_is_not_there_or_no_text(tmp_path: Path) -> None:
    with pytest.raises(BadRequest, match="cannot be read"):
        groups.read(tmp_path / "none.csv", part(NAMES))
    (tmp_path / "bytes.csv").write_bytes(b"image,camera\n\xff\xfe\x00,a\n")
    with pytest.raises(BadRequest, match="cannot be read"):
        groups.read(tmp_path / "bytes.csv", part(NAMES))


def test_lines_of_other_images_are_said_and_cost_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As of a file for all images, where some judge."""
    text = "image,camera\n" + WELL + "".join(f"train/{number}.jpg,c\n" for number in range(9))
    found = groups.read(written(tmp_path, text), part(NAMES))
    assert list(found["camera"].names) == ["a", "b"]
    said = capsys.readouterr().err
    assert "9 of the 13 lines are of no image that judges here, such as train/0.jpg" in said
