"""Flax itself saves checkpoints, in a process of its own; ours reads them without it, and takes one to INT8."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import msgpack
import numpy as np
import pytest
import torch
from conftest import ROOT
from test_dialects import close, frozen_answers, loaded

from pipeline.__main__ import main
from pipeline.data import fashion_mnist
from pipeline.data.images import Images
from pipeline.data.part import spread
from pipeline.errors import BadRequest
from pipeline.models import checkpoint

if TYPE_CHECKING:
    from conftest import Cli

SMALL = """
block = "basic"
depths = [1, 1]
widths = [16, 32]
bias = true
shortcut_norm = false
padding = "same"
"""
ARCHS = {"resnet18": "d2l_jax_resnet18", "resnext26": "d2l_jax_resnext26", "small": "small.toml"}


def run(folder: Path, *arguments: str) -> None:
    script = [sys.executable, str(Path(__file__).with_name("flax_networks.py")), str(folder), *arguments]
    done = subprocess.run(script, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with checkpoints and answers of Flax, and with the images that they are to."""
    folder = tmp_path_factory.mktemp("flax")
    data = fashion_mnist.read(None)
    images = Images(data.train, data.preprocessing)
    chosen = spread(data.train.labels, 6000, seed=0)
    pixels = images.select(chosen)
    rows = pixels.transpose(0, 2, 3, 1) / 255
    probe, train = (rows[:8] - 0.3) / 0.4, (rows - 0.286) / 0.353
    labels = data.train.labels[chosen]
    np.savez(folder / "images.npz", probe=probe.astype(np.float32), train=train.astype(np.float32), labels=labels)
    np.save(folder / "pixels.npy", pixels[:8])
    (folder / "small.toml").write_text(SMALL)
    run(folder)
    return folder


@pytest.mark.parametrize("kind", [".msgpack", "/3"])
@pytest.mark.parametrize("name", ARCHS)
def test_flax_and_our_frozen_file_answer_the_same(
    saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, kind: str
) -> None:
    monkeypatch.chdir(saved)
    ours, origin = loaded(f"{name}{kind}", ARCHS[name])
    assert "in the dialect of flax" in origin
    answers = frozen_answers(ours, torch.from_numpy(np.load("pixels.npy")), tmp_path, ARCHS[name], 1)
    close(answers, torch.from_numpy(np.load(f"{name}.npy")))


def test_every_form_of_orbax_holds_the_same(saved: Path) -> None:
    expected = checkpoint.read(saved / "small.msgpack")
    for folder in ("small/3", "small/3/default", "files", "zarr3"):
        weights = checkpoint.read(saved / folder)
        assert weights.keys() == expected.keys()
        assert all(value.equal(expected[key]) for key, value in weights.items())


def test_what_is_converted_to_flax_is_read_by_flax(saved: Path) -> None:
    arch = ("--arch", str(saved / "small.toml"))
    assert main(["convert", str(saved / "small.msgpack"), str(saved / "ours.safetensors"), *arch]) == 0
    assert main(["convert", str(saved / "ours.safetensors"), str(saved / "back.msgpack"), *arch, "--to", "flax"]) == 0
    run(saved, "restore")
    np.testing.assert_array_equal(np.load(saved / "back.npy"), np.load(saved / "small.npy"))
    assert main(["convert", str(saved / "back.msgpack"), str(saved / "f.safetensors"), *arch, "--to", "flax"]) == 0
    assert main(["convert", str(saved / "f.safetensors"), str(saved / "again.safetensors"), *arch]) == 0
    assert (saved / "again.safetensors").read_bytes() == (saved / "ours.safetensors").read_bytes()


def test_a_checkpoint_of_flax_becomes_a_judged_int8_engine(cli: Cli, saved: Path, tmp_path: Path) -> None:
    flags = ("--arch", saved / "small.toml", "--data", "fashion-mnist", "--precision", "int8")
    report = cli.report(*flags, "--weights", saved / "small.msgpack", "--engine", "onnxruntime", "-o", tmp_path)
    assert report["verdict"] == "pass"
    rows = {row["name"]: row for row in report["stages"]}
    assert rows["freeze"]["accuracy"]["top1"] > 0.75
    assert rows["engine"]["accuracy"]["n"] == 10_000
    assert rows["engine"]["int8_share"] > 0.5
    assert "small.msgpack (SHA-256 " in report["sources"]["weights"]


def refused(path: Path, arch: str) -> str:
    with pytest.raises(BadRequest) as raised:
        loaded(path, arch)
    return str(raised.value)


def test_without_batch_stats_nothing_is_built(saved: Path, tmp_path: Path) -> None:
    tree = msgpack.unpackb((saved / "small.msgpack").read_bytes())
    (tmp_path / "w.msgpack").write_bytes(msgpack.packb({"params": tree["params"]}))
    sentence = refused(tmp_path / "w.msgpack", str(saved / "small.toml"))
    assert "it has params and no batch_stats, without which BatchNorm has no mean and variance" in sentence
    assert "lacks" not in sentence


def test_flax_under_symmetric_padding_is_refused(saved: Path) -> None:
    sentence = refused(saved / "resnet18.msgpack", "d2l_resnet18")
    assert "networks have 'same' padding" in sentence
    assert sentence.endswith("take --arch d2l_jax_resnet18")
    assert "fits --arch d2l_jax_resnet18 with 10 classes" in refused(saved / "resnet18.msgpack", "d2l_jax_resnext26")


def test_damaged_and_odd_files_are_refused_in_a_sentence(saved: Path, tmp_path: Path) -> None:
    whole = (saved / "small.msgpack").read_bytes()
    kernel = msgpack.packb(([2, 2], "object", b"0" * 32))
    for content, sentence in (
        (whole[:5000], "truncated, corrupted or no MessagePack"),
        (b"these are no weights", "truncated, corrupted or no MessagePack"),
        (b"", "truncated, corrupted or no MessagePack"),
        (msgpack.packb({"params": {"net": 1}}), "no state_dict of tensors"),
        (msgpack.packb([1, 2]), "no state_dict of tensors"),
        (msgpack.packb({"params": {"kernel": msgpack.ExtType(1, kernel)}}), "truncated, corrupted or no MessagePack"),
        (msgpack.packb({"params": {"kernel": msgpack.ExtType(1, b"\xc1")}}), "truncated, corrupted or no MessagePack"),
    ):
        (tmp_path / "w.msgpack").write_bytes(content)
        assert sentence in refused(tmp_path / "w.msgpack", str(saved / "small.toml"))
    (tmp_path / "folder").mkdir()
    assert "is no single checkpoint of Orbax: it has nothing" in refused(tmp_path / "folder", "resnet18")
    assert "it has 3; give the folder of one" in refused(saved / "small", "resnet18")
    (tmp_path / "folder" / "_METADATA").write_text("{}")
    assert "holds no array" in refused(tmp_path / "folder", "resnet18")
    (tmp_path / "folder" / "manifest.ocdbt").write_bytes(b"\x00" * 64)
    assert "truncated or corrupted" in refused(tmp_path / "folder", "resnet18")


def test_flax_is_read_where_neither_jax_nor_flax_is(saved: Path) -> None:
    code = """
import sys
for name in ("jax", "flax", "orbax"):
    sys.modules[name] = None
from pathlib import Path
from pipeline.models import checkpoint
print([len(checkpoint.read(Path(path))) for path in sys.argv[1:]])
for name in ("msgpack", "tensorstore"):
    sys.modules[name] = None
from pipeline.__main__ import main
for path in sys.argv[1:]:
    main(["convert", path, "x.pth", "--arch", "resnet18"])
"""
    line = [sys.executable, "-c", code, str(saved / "small.msgpack"), str(saved / "small" / "3")]
    done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, check=False)
    assert json.loads(done.stdout) == [34, 34]
    for module in ("msgpack", "tensorstore"):
        assert f"{module} is needed and not installed; run: pip install 'edge-resnet[flax]'" in done.stderr
