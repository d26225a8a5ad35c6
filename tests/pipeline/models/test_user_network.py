"""A network that is code of the user's own: built, judged, and never run by who did not name it."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
import torch

from exporters import export
from exporters.certify_weights import certify_weights
from pipeline import Recipe
from pipeline.errors import BadRequest
from pipeline.models import checkpoint, frozen, networks, specs, user_network
from pipeline.models.weights import given

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import Cli

CODE = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, classes, channels):
        super().__init__()
        self.first = nn.Conv2d(channels, 16, 3, 2, 1, bias=False)
        self.norm = nn.BatchNorm2d(16)
        self.slope = nn.PReLU(16)
        self.squeeze = nn.Conv2d(16, 4, 1)
        self.excite = nn.Conv2d(4, 16, 1)
        self.gain = nn.Parameter(torch.full((16, 1, 1), 1.5))
        self.head = nn.Linear(16, classes)

    def forward(self, x):
        x = self.slope(self.norm(self.first(x))) * self.gain
        x = x * torch.sigmoid(self.excite(torch.relu(self.squeeze(x.mean((2, 3), keepdim=True)))))
        return self.head(x.mean((2, 3)))

def net(classes, channels):
    print("making it")
    return Net(classes, channels)

def branch(classes, channels):
    class Branch(Net):
        def forward(self, x):
            return super().forward(x if x.sum() > 0 else -x)
    return Branch(classes, channels)

def pairs(classes, channels):
    class Pairs(Net):
        def forward(self, x):
            return super().forward(x).reshape(2, -1)
    return Pairs(classes, channels)

def wide(classes, channels):
    return Net(classes + 1, channels)

def taken(classes, channels):
    network = Net(classes, channels)
    network.pixel_mean = 0
    return network

def number(classes, channels):
    return 7

def lazy():
    return None

constant = 7
"""
RECORD = {"channels": 1, "mean": [0.3], "std": [0.3]}


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a module with this code, new for each test."""
    name = f"own_{tmp_path.name}"
    (tmp_path / f"{name}.py").write_text(CODE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(user_network, "TRUSTED", set())
    return name


def test_its_own_checkpoints_load_out_of_their_wrappers(module: str, tmp_path: Path) -> None:
    name, spec = specs.find(f"{module}:net")
    description = frozen.NetworkDescription(name, spec, tuple("0123456789"), RECORD)
    plain = checkpoint.parameters(description.network())
    for prefix in ("", "module.", "model._orig_mod."):
        torch.save({"state_dict": {f"{prefix}{key}": value for key, value in plain.items()}}, tmp_path / "w.ckpt")
        network_and_origin = given(Recipe(arch=name, weights=tmp_path / "w.ckpt"), description)
        assert network_and_origin is not None
        assert checkpoint.parameters(network_and_origin[0])["gain"].equal(plain["gain"])
        assert network_and_origin[1].endswith(f"its state_dict{prefix and f', without {prefix}'}")


def test_it_sees_normalised_images_and_every_weight_is_certified(module: str, tmp_path: Path) -> None:
    name, spec = specs.find(f"{module}:net")
    description = frozen.NetworkDescription(name, spec, tuple("0123456789"), RECORD)
    network = description.network().eval()
    user_network.refuse(network, name, 10, (1, 24, 24), 19)
    frozen.write(network, description, tmp_path / "w.safetensors")
    weights = checkpoint.read(tmp_path / "w.safetensors")
    assert {"first.weight", "slope.weight", "gain", "head.bias"} < set(weights)
    plain = sys.modules[module].Net(10, 1).eval()
    plain.load_state_dict(weights, strict=False)
    images = torch.randint(0, 256, (3, 1, 24, 24)).float()
    again = frozen.read(tmp_path / "w.safetensors")[0]
    with torch.inference_mode():
        torch.testing.assert_close(again(images), plain((images / 255 - 0.3) / 0.3))
    export.export(again, tmp_path / "a.onnx", (1, 24, 24), {})
    assert certify_weights(tmp_path / "w.safetensors", tmp_path / "a.onnx").proven
    with torch.no_grad():
        again.gain[3] += 1  # type: ignore[operator,union-attr]
    export.export(again, tmp_path / "b.onnx", (1, 24, 24), {})
    (refuted,) = certify_weights(tmp_path / "w.safetensors", tmp_path / "b.onnx").refuted
    assert refuted.found.startswith("gain[3, 0, 0] is 2.5, it was 1.5")


@pytest.mark.parametrize(
    ("function", "sentence"),
    [
        ("branch", "torch.export cannot freeze it for images"),
        ("pairs", "torch.export cannot freeze it for images"),
        ("wide", r"answers torch.float32 \(2, 11\) to 2 images, and must answer float32 \(2, 10\)"),
        ("taken", "the name pixel_mean is taken"),
        ("number", "answers a int; it takes classes and channels"),
        ("lazy", "raised TypeError"),
        ("constant", "has no callable constant"),
        ("none", "has no none"),
        ("", "is not module:function"),
    ],
)
def test_what_is_no_network_is_refused_in_a_sentence(module: str, function: str, sentence: str) -> None:
    with pytest.raises(BadRequest, match=sentence):
        user_network.refuse(
            networks.build(user_network.named(f"{module}:{function}"), 10, 1, (0.3,), (0.3,)),
            function,
            10,
            (1, 24, 24),
            19,
        )


def test_a_frozen_file_runs_no_code_that_nobody_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "trap.py").write_text(f"open({str(tmp_path / 'sprung')!r}, 'w')\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(BadRequest, match="add --trust trap:net if you know it"):
        networks.build(user_network.UserSpec("trap:net", ""), 10, 1, (0.3,), (0.3,))
    assert not (tmp_path / "sprung").exists()


def test_a_file_that_changed_is_refused(module: str, tmp_path: Path) -> None:
    spec = user_network.named(f"{module}:net")
    (tmp_path / f"{module}.py").write_text(CODE + "\n")
    with pytest.raises(BadRequest, match="its file changed since it was frozen"):
        networks.build(spec, 10, 1, (0.3,), (0.3,))


def test_a_build_of_it_is_judged_again_only_where_it_is_named(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(CODE)
    flags = ("--arch", "mine:net", "--engine", "onnxruntime", "--epochs", 1, "-o", "out", "--json")
    done = cli(*flags, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["recipe"]["arch"] == "mine:net"

    def check(*more: str) -> subprocess.CompletedProcess[str]:
        line = [sys.executable, "-m", "pipeline", "check", "out", "--rerun", *more]
        return subprocess.run(line, cwd=tmp_path, env=cli.environment, capture_output=True, text=True, check=False)

    unnamed = check()
    named = check("--trust", "mine:net")
    assert (unnamed.returncode, named.returncode) == (2, 0), named.stderr
    assert "add --trust mine:net" in unnamed.stderr
