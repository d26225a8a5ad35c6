"""Weights that are no weights, or others: exit code and sentence; no code of theirs is run."""

from __future__ import annotations

import os
import pickle
from typing import TYPE_CHECKING

import pytest
import torch
from conftest import TINY, Cli
from safetensors.torch import load_file, save_file

if TYPE_CHECKING:
    from pathlib import Path


def test_weights_of_another_architecture(cli: Cli, weights: Path, tmp_path: Path) -> None:
    sentence = cli.refused("--arch", "resnet18", "--weights", weights, "-o", tmp_path)
    assert "conv1.weight has shape (64, 1, 7, 7) in the network and has shape (16, 1, 7, 7) in the file" in sentence
    assert "fits --arch resnext_tiny" in sentence


def test_weights_of_another_class_count(cli: Cli, weights: Path, tmp_path: Path) -> None:
    tensors = load_file(weights)
    tensors["fc.weight"] = torch.zeros(1000, tensors["fc.weight"].shape[1])
    save_file(tensors, tmp_path / "w.safetensors")
    sentence = cli.refused("--arch", "resnext_tiny", "--weights", tmp_path / "w.safetensors", "-o", tmp_path / "out")
    assert "fc.weight" in sentence
    assert "knows 1000 classes and the data set 10" in sentence


def test_colour_weights_on_grey_images(cli: Cli, weights: Path, tmp_path: Path) -> None:
    tensors = load_file(weights)
    tensors["conv1.weight"] = tensors["conv1.weight"].repeat(1, 3, 1, 1)
    save_file(tensors, tmp_path / "w.safetensors")
    sentence = cli.refused("--arch", "resnext_tiny", "--weights", tmp_path / "w.safetensors", "-o", tmp_path / "out")
    assert "ask for --channels 3" in sentence


def test_truncated_safetensors(cli: Cli, weights: Path, tmp_path: Path) -> None:
    (tmp_path / "w.safetensors").write_bytes(weights.read_bytes()[:5000])
    sentence = cli.refused("--arch", "resnext_tiny", "--weights", tmp_path / "w.safetensors", "-o", tmp_path / "out")
    assert "truncated or corrupted" in sentence


def test_corrupted_pth(cli: Cli, weights: Path, tmp_path: Path) -> None:
    torch.save(load_file(weights), tmp_path / "whole.pth")
    (tmp_path / "w.pth").write_bytes((tmp_path / "whole.pth").read_bytes()[:9000])
    sentence = cli.refused("--arch", "resnext_tiny", "--weights", tmp_path / "w.pth", "-o", tmp_path / "out")
    assert "truncated or corrupted" in sentence


class Bomb:
    """Unpickled, it runs a command."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, ("touch executed",)


@pytest.mark.parametrize("plain", [True, False])
def test_a_pickle_that_carries_code_is_not_executed(cli: Cli, tmp_path: Path, plain: bool) -> None:
    path = tmp_path / "w.pth"
    if plain:
        path.write_bytes(pickle.dumps({"conv1.weight": Bomb()}))
    else:
        torch.save({"conv1.weight": Bomb()}, path)
    sentence = cli.refused("--arch", "resnext_tiny", "--weights", path, "-o", tmp_path / "out", cwd=tmp_path)
    assert "was not executed" in sentence
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize(
    "content", [[1, 2, 3], {0: torch.zeros(3)}, {"a": torch.zeros(3, dtype=torch.complex64)}, {"a": 1}]
)
def test_weights_that_are_no_state_dict(cli: Cli, tmp_path: Path, content: object) -> None:
    torch.save(content, tmp_path / "w.pth")
    assert "no state_dict" in cli.refused("--arch", "resnext_tiny", "--weights", tmp_path / "w.pth")


def test_a_flipped_bit_in_pth(cli: Cli, weights: Path, tmp_path: Path) -> None:
    torch.save(load_file(weights), tmp_path / "w.pth")
    content = bytearray((tmp_path / "w.pth").read_bytes())
    content[len(content) // 2] ^= 1
    (tmp_path / "w.pth").write_bytes(content)
    assert "truncated or corrupted" in cli.refused("--arch", "resnext_tiny", "--weights", tmp_path / "w.pth")


def test_a_text_file_called_pth(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "w.pth").write_text("these are no weights\n" * 100)
    assert "truncated or corrupted" in cli.refused("--arch", "resnext_tiny", "--weights", tmp_path / "w.pth")


def test_kept_weights_that_were_changed_are_not_used(tmp_path: Path) -> None:
    cli = Cli(tmp_path / "cache")
    flags = ("--arch", "resnet_tiny", "--epochs", "1", "--engine", "onnxruntime", "-o", tmp_path / "out")
    cli(*flags)
    kept = next((tmp_path / "cache").rglob("*.safetensors"))
    content = bytearray(kept.read_bytes())
    content[-100] ^= 1
    kept.write_bytes(content)
    assert f"the weights kept in {kept} are damaged" in cli.refused(*flags)


def test_a_cache_that_cannot_be_used(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert "point XDG_CACHE_HOME elsewhere" in Cli(tmp_path / "file").refused(
        "--arch", "resnet_tiny", "-o", tmp_path / "out"
    )


def test_weights_that_do_not_exist_or_have_another_format(cli: Cli, tmp_path: Path) -> None:
    assert "no such file" in cli.refused("--arch", "resnext_tiny", "--weights", tmp_path / "w.pth")
    (tmp_path / "w.h5").write_bytes(b"")
    assert "only .safetensors" in cli.refused("--arch", "resnext_tiny", "--weights", tmp_path / "w.h5")


def test_a_checkpoint_in_pth_gives_the_same_build(cli: Cli, built: Path, weights: Path, tmp_path: Path) -> None:
    torch.save({**load_file(weights), "bn1.num_batches_tracked": torch.tensor(7)}, tmp_path / "w.pth")
    report = cli.report(*TINY, "--weights", tmp_path / "w.pth", "-o", tmp_path / "out")
    assert (tmp_path / "out" / "05-int8.onnx").read_bytes() == (built / "05-int8.onnx").read_bytes()
    assert str(tmp_path / "w.pth") in report["sources"]["weights"]


def test_nan_in_weights(cli: Cli, weights: Path, tmp_path: Path) -> None:
    tensors = load_file(weights)
    tensors["layer2.0.conv1.weight"][0, 0] = float("nan")
    save_file(tensors, tmp_path / "w.safetensors")
    sentence = cli.refused("--arch", "resnext_tiny", "--weights", tmp_path / "w.safetensors", "-o", tmp_path / "out")
    assert "layer2.0.conv1.weight holds NaN" in sentence
