"""A network that is code of the user's own: built, judged, and never run by who did not name it."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest
import torch

from exporters import export, reference, simplify, uint8_input
from exporters.certify import certify
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

def shares(classes, channels):
    return nn.Sequential(Net(classes, channels), nn.Softmax(1))

def frozen_norm(classes, channels):
    network = Net(classes, channels)
    network.norm = nn.BatchNorm2d(16, affine=False)
    return network

def scalars(classes, channels):
    class Scalars(Net):
        def forward(self, x):
            return super().forward((x - self.mean) / self.deviation) * self.gain_of_all
    network = Scalars(classes, channels)
    network.register_buffer("mean", torch.tensor(0.2))
    network.register_buffer("deviation", torch.tensor(0.7))
    network.gain_of_all = nn.Parameter(torch.tensor(1.5))
    return network

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


def exported(function: str, mean: float, std: float, tmp_path: Path) -> tuple[Path, Path]:
    """The frozen file and the graph of a function of the module, with weights of their own."""
    name, spec = specs.find(function)
    record = {"channels": 1, "mean": [mean], "std": [std]}
    description = frozen.NetworkDescription(name, spec, tuple("0123456789"), record)
    network = description.network().eval()
    frozen.write(network, description, tmp_path / "w.safetensors")
    metadata = {"classes": json.dumps(description.classes), "preprocessing": json.dumps(record)}
    export.export(frozen.read(tmp_path / "w.safetensors")[0], tmp_path / "a.onnx", (1, 24, 24), metadata)
    return tmp_path / "w.safetensors", tmp_path / "a.onnx"


# As torchvision has them, Caffe's, dlib's, and the pixels as they are: of the last two simplifiers leave nothing.
@pytest.mark.parametrize(("mean", "std"), [(0.3, 0.3), (123 / 255, 1 / 255), (0.5, 256 / 255), (0, 1), (0, 1 / 255)])
@pytest.mark.parametrize("function", ["net", "scalars"])
def test_its_own_normalisation_stands_behind_ours(
    module: str, function: str, mean: float, std: float, tmp_path: Path
) -> None:
    weights, graph = exported(f"{module}:{function}", mean, std, tmp_path)
    certificate = certify_weights(weights, graph)
    assert (certificate.proven, certificate.noted) == (True, []), certificate
    plain = getattr(sys.modules[module], function)(10, 1).eval()
    plain.load_state_dict(checkpoint.read(weights), strict=False)
    images = torch.randint(0, 256, (3, 1, 24, 24)).float()
    with torch.inference_mode():
        expected = plain((images / 255 - mean) / std).numpy()

    simplified, as_bytes = tmp_path / "b.onnx", tmp_path / "c.onnx"
    assert simplify.simplify(graph, simplified).unproven is None
    uint8_input.uint8_input(simplified, as_bytes)
    assert certify(simplified, as_bytes, stage="uint8_input").proven
    for path, pixels in ((graph, images.numpy()), (simplified, images.numpy()), (as_bytes, images.byte().numpy())):
        answers = reference.session(path).run(None, {"images": pixels})[0]
        torch.testing.assert_close(answers, expected, rtol=0, atol=1e-5 * abs(expected).max())


def test_a_wrong_number_of_its_own_normalisation_is_refuted(module: str, tmp_path: Path) -> None:
    weights, graph = exported(f"{module}:scalars", 0.3, 0.3, tmp_path)
    model = onnx.load(graph)
    (tensor,) = [tensor for tensor in model.graph.initializer if tensor.name == "mean"]
    tensor.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(tensor) + np.float32(0.01), "mean"))
    onnx.save(model, graph)
    (refuted,) = certify_weights(weights, graph).refuted
    assert refuted.found.startswith("mean[] is 0.21")


def test_a_batchnorm_without_numbers_of_its_own_is_proven_to_have_none(module: str, tmp_path: Path) -> None:
    weights, graph = exported(f"{module}:frozen_norm", 0.3, 0.3, tmp_path)
    certificate = certify_weights(weights, graph)
    assert (certificate.proven, certificate.noted) == (True, [])
    model = onnx.load(graph)
    (norm,) = [node for node in model.graph.node if node.op_type == "BatchNormalization"]
    twice = onnx.numpy_helper.from_array(np.full(16, 2, np.float32), "twice")
    model.graph.initializer.append(twice)
    norm.input[1] = "twice"
    onnx.save(model, graph)
    (refuted,) = certify_weights(weights, graph).refuted
    assert refuted.found == "norm.weight[0] is 2, it was 1"


def test_shares_are_told_from_logits(module: str) -> None:
    for function, are_shares in (("shares", True), ("net", False)):
        network = getattr(sys.modules.get(module) or importlib.import_module(module), function)(10, 1)
        assert user_network.ends_in_softmax(network, (1, 24, 24)) is are_shares


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


def test_a_softmax_of_its_own_is_said_and_no_threshold_is_taken(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(CODE)
    flags = ("--arch", "mine:shares", "-o", "out", "--dry-run")
    said = cli(*flags, cwd=tmp_path)
    assert said.returncode == 0
    assert "--arch mine:shares answers shares that sum to 1" in said.stderr
    asked = cli(*flags, "--threshold", 0.9, cwd=tmp_path)
    assert asked.returncode == 2
    assert "--threshold reads the softmax of logits; leave the last Softmax out" in asked.stderr
    assert "shares" not in cli("--arch", "mine:net", "-o", "out", "--dry-run", cwd=tmp_path).stderr
