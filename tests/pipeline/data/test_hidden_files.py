"""Hidden files and what other programs keep in folders of images: left out at every depth, counted, named."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import numpy as np
import pytest
from pictures import data_set

from pipeline.data import folder, oddities, sampling
from pipeline.data.images import Images
from pipeline.data.preprocessing import Preprocessing
from pipeline.errors import BadRequest

if TYPE_CHECKING:
    from pathlib import Path

# Where a copy of an image is no image of the set, below the folder of a class.
HIDDEN = (
    "._0.png",
    ".hidden.png",
    ".ipynb_checkpoints/0-checkpoint.png",
    ".thumbnails/normal/0.png",
    "@eaDir/0.png/SYNOPHOTO_THUMB_M.png",
    "__MACOSX/._0.png",
    "deep/er/.git/0.png",
    "deep/er/._0.png",
    "$RECYCLE.BIN/0.png",
    ".a/b/c/d/0.png",
)
SMALL = Preprocessing(32, 32, "bilinear", 3, (0.5,) * 3, (0.5,) * 3)


def hide(place: Path, names: tuple[str, ...] = HIDDEN) -> None:
    image = place / "0.png"
    for name in names:
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(image, place / name)


@pytest.mark.parametrize("name", HIDDEN)
@pytest.mark.parametrize("part", ["train", "val"])
def test_what_is_hidden_in_a_class_is_no_image_of_it(tmp_path: Path, part: str, name: str) -> None:
    root = data_set(tmp_path / "set")
    hide(root / part / "cat", (name,))
    data = folder.read(root)
    assert (len(data.train), len(data.test)) == (8, 12)
    left_out = {"train": data.train, "val": data.test}[part].left_out
    assert left_out == (str(root / part / "cat" / name),)


@pytest.mark.parametrize("name", [".ipynb_checkpoints", "__MACOSX", "@eaDir", ".thumbnails"])
def test_a_hidden_folder_beside_the_classes_is_no_class(tmp_path: Path, name: str) -> None:
    root = data_set(tmp_path / "set")
    (root / "val" / name).mkdir()
    shutil.copy(root / "val/cat/0.png", root / "val" / name / "0.png")
    data = folder.read(root)
    assert data.classes == ("cat", "dog")
    assert data.test.left_out == (str(root / "val" / name / "0.png"),)


def test_a_class_may_have_the_name_of_what_is_seen(tmp_path: Path) -> None:
    root = data_set(tmp_path / "set")
    for part in ("train", "val"):
        (root / part / "cat").rename(root / part / "thumbs")
        (root / part / "dog").rename(root / part / "_dog")
    assert folder.read(root).classes == ("_dog", "thumbs")


def test_only_what_lies_below_the_folder_counts(tmp_path: Path) -> None:
    root = data_set(tmp_path / ".cache/__MACOSX/images")
    data = folder.read(root)
    assert (len(data.train), len(data.test)) == (8, 12)
    assert not data.test.left_out
    assert len(sampling.part(root / "val", "--calib-data")) == 12


def test_other_folders_of_images_leave_the_same_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What --calib-data and --images take."""
    root = data_set(tmp_path / "set") / "val"
    hide(root / "cat")
    hide(root, ())
    part = sampling.part(root, "--images")
    assert len(part) == 12
    assert len(part.left_out) == len(HIDDEN)
    sentence = capsys.readouterr().err
    assert sentence.count("\n") == 1
    assert f"{len(HIDDEN)} hidden images left out, such as {root / 'cat'}" in sentence
    # Two folders are two classes still.
    assert np.unique(part.labels).tolist() == [0, 1]


def test_hidden_arrays_are_left_out_too(tmp_path: Path) -> None:
    np.save(tmp_path / "some.npy", np.full((4, 3, 32, 32), 9.0))
    (tmp_path / "._some.npy").write_bytes(b"\0\5\x16\7")
    part = sampling.part(tmp_path, "--calib-data")
    assert len(part) == 4
    assert part.left_out == (str(tmp_path / "._some.npy"),)


def test_one_line_says_how_many_there_are(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = data_set(tmp_path / "set")
    hide(root / "train/cat")
    hide(root / "val/dog")
    data = folder.read(root)
    lines = capsys.readouterr().err.splitlines()
    assert lines == list(oddities.left_out(data.train, data.test))
    assert lines[0].startswith(f"{2 * len(HIDDEN)} hidden images left out, such as {root}")


def test_calibration_out_of_the_training_images_counts_them_once(tmp_path: Path) -> None:
    root = data_set(tmp_path / "set")
    hide(root / "train/cat")
    data = folder.read(root)
    some = sampling.some(Images(data.calibration, SMALL), 3)
    (sentence,) = oddities.left_out(data.train, some.part, data.test)
    assert sentence.startswith(f"{len(HIDDEN)} hidden images left out")


def test_a_folder_of_hidden_images_alone_is_refused(tmp_path: Path) -> None:
    root = data_set(tmp_path / "set")
    place = root / "val/cat"
    for path in list(place.iterdir()):
        path.rename(place / f".{path.name}")
    with pytest.raises(BadRequest, match=r"cat holds no images but 6 hidden ones \(.*/\.0\.png\)"):
        folder.read(root)
    with pytest.raises(BadRequest, match=r"--calib-data .*cat holds no images but 6 hidden ones"):
        sampling.part(place, "--calib-data")
    place.rename(root / "val/.cat")
    (root / "val/dog").rename(root / "val/.dog")
    with pytest.raises(BadRequest, match="val/ is empty"):
        folder.read(root)
