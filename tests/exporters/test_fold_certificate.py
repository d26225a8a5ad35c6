"""The certificate of a fold: every shape that a pair of layers can take, and every registered network."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest
import torch
from faults import array, neighbour
from torch import nn

from exporters import export, reference
from exporters.certify import certify
from exporters.fold_batchnorm import fold_batchnorm
from pipeline.models.resnet import ResNet
from pipeline.models.specs import ARCHITECTURES

if TYPE_CHECKING:
    from pathlib import Path

    from exporters.certify import Certificate


def restless(network: nn.Module) -> nn.Module:
    """Statistics as a training could leave them: every BatchNorm has a dead channel and one that hardly moves."""
    torch.manual_seed(0)
    for module in network.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            assert module.running_mean is not None
            assert module.running_var is not None
            nn.init.normal_(module.weight)
            nn.init.normal_(module.bias)
            module.running_mean.normal_()
            module.running_var.uniform_(0.01, 3)[0] = 0
            module.running_var[1] = 1e-12
    return network.eval()


class Net(nn.Sequential):
    """A network whose answers are ``(N, numbers)``."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return super().forward(images).flatten(1)


class ReadTwice(nn.Module):
    """The convolution's own answer is read as well, so nothing may be folded into it."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4, 8, 3)
        self.bn = nn.BatchNorm2d(8)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        out = self.conv(images)
        return (self.bn(out) + out).flatten(1)


class OneNormForTwo(nn.Module):
    """One BatchNorm behind two convolutions: its numbers are read twice, and either pair is folded."""

    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Conv2d(4, 8, 3, bias=False)
        self.other = nn.Conv2d(4, 8, 3)
        self.bn = nn.BatchNorm2d(8)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return (self.bn(self.one(images)) + self.bn(self.other(images))).flatten(1)


class Affine(nn.Module):
    """One factor and one offset for each channel, or numbers of another shape."""

    def __init__(self, *shape: int, offset: bool = True) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.rand(shape) + 0.5)
        self.offset = nn.Parameter(torch.rand(shape) - 0.5) if offset else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x * self.gain
        return x if self.offset is None else self.offset + x


def folded(network: nn.Module, directory: Path, shape: tuple[int, int, int]) -> tuple[Path, Path, Certificate]:
    before = directory / "a.onnx"
    after = directory / "b.onnx"
    export.export(restless(network), before, shape, {})
    fold_batchnorm(before, after)
    return before, after, certify(before, after)


PAIRS = {
    "plain": (Net(nn.Conv2d(4, 8, 3, bias=False), nn.BatchNorm2d(8)), 1, 0),
    "bias": (Net(nn.Conv2d(4, 8, 3), nn.BatchNorm2d(8)), 1, 0),
    "groups": (Net(nn.Conv2d(4, 8, 3, groups=2), nn.BatchNorm2d(8), nn.ReLU()), 1, 0),
    "depthwise": (Net(nn.Conv2d(4, 8, 3, groups=4, bias=False), nn.BatchNorm2d(8)), 1, 0),
    "tiny epsilon": (Net(nn.Conv2d(4, 8, 3), nn.BatchNorm2d(8, eps=1e-12)), 1, 0),
    "large epsilon": (Net(nn.Conv2d(4, 8, 3), nn.BatchNorm2d(8, eps=0.5)), 1, 0),
    "linear": (Net(nn.Flatten(), nn.Linear(4 * 36, 10), nn.BatchNorm1d(10)), 1, 0),
    "linear without bias": (Net(nn.Flatten(), nn.Linear(4 * 36, 10, bias=False), nn.BatchNorm1d(10)), 0, 1),
    "two in a row": (Net(nn.Conv2d(4, 8, 3), nn.BatchNorm2d(8), nn.BatchNorm2d(8)), 1, 1),
    "affine": (Net(nn.Conv2d(4, 8, 3, bias=False), Affine(8, 1, 1), nn.ReLU()), 0, 0),
    "a factor": (Net(nn.Conv2d(4, 8, 3, bias=False), Affine(1, 8, 1, 1, offset=False)), 0, 0),
    "numbers without dimensions": (Net(nn.Conv2d(4, 8, 3), Affine(), nn.ReLU()), 0, 0),
    "a norm and its affine": (Net(nn.Conv2d(4, 8, 3, bias=False), nn.BatchNorm2d(8), Affine(8, 1, 1)), 1, 0),
    "a factor and its norm": (Net(nn.Conv2d(4, 8, 3), Affine(offset=False), nn.BatchNorm2d(8)), 1, 0),
    "affine behind a linear layer": (Net(nn.Flatten(), nn.Linear(4 * 36, 10), Affine(10), nn.BatchNorm1d(10)), 1, 0),
    "a number for each pixel": (Net(nn.Conv2d(4, 8, 3), Affine(1, 4, 4), nn.BatchNorm2d(8)), 0, 1),
    "nothing before it": (Net(nn.BatchNorm2d(4), nn.Conv2d(4, 8, 3)), 0, 1),
    "a pool before it": (Net(nn.Conv2d(4, 8, 3), nn.MaxPool2d(2), nn.BatchNorm2d(8)), 0, 1),
    "read twice": (ReadTwice(), 0, 1),
    "one norm for two": (OneNormForTwo(), 2, 0),
    "nothing to fold": (Net(nn.Conv2d(4, 8, 3), nn.ReLU()), 0, 0),
}


@pytest.mark.parametrize("name", PAIRS)
def test_every_kind_of_pair_is_folded_or_left_with_its_reason_and_proven(tmp_path: Path, name: str) -> None:
    network, count, left = PAIRS[name]
    before, after, certificate = folded(network, tmp_path, (4, 6, 6))
    assert certificate.proven, certificate.refuted
    assert (certificate.folded, len(certificate.left)) == (count, left)
    assert all(certificate.left.values())
    images = np.random.default_rng(0).uniform(0, 255, (3, 4, 6, 6)).astype(np.float32)
    expected = reference.session(before).run(None, {"images": images})[0]
    answers = reference.session(after).run(None, {"images": images})[0]
    np.testing.assert_allclose(answers, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())


@pytest.mark.parametrize("name", ["affine", "a factor", "numbers without dimensions", "a norm and its affine"])
def test_nothing_is_left_of_what_scales_and_shifts(tmp_path: Path, name: str) -> None:
    _, after, _ = folded(PAIRS[name][0], tmp_path, (4, 6, 6))
    operators = [node.op_type for node in onnx.load(after).graph.node]
    assert operators in (["Conv", "Relu", "Flatten"], ["Conv", "Flatten"])


@pytest.mark.parametrize("name", [name for name, (_, count, _) in PAIRS.items() if count])
def test_a_weight_past_its_bound_is_refuted_and_located(tmp_path: Path, name: str) -> None:
    before, after, _ = folded(PAIRS[name][0], tmp_path, (4, 6, 6))
    model = onnx.load(after)
    weight = next(i for i in model.graph.initializer if i.name.endswith("weight") and len(i.dims) > 1)
    # The bound is half a step to the next number and hardly more: two steps away is always beyond it. What scales and
    # shifts besides a tool may compute in float32, with a rounding more for each.
    place = (len(onnx.numpy_helper.to_array(weight)) - 1,) + (0,) * (len(weight.dims) - 1)
    for _ in range(2 + 4 * ("affine" in name or "factor" in name)):
        array(weight.name, neighbour(place))(model)
    onnx.save(model, after)
    refuted = certify(before, after).refuted
    assert [refutation.module for refutation in refuted] == [weight.name.removesuffix(".weight")]
    assert f"weight{list(place)} is" in refuted[0].found


def test_a_variance_of_zero_without_epsilon_is_an_error_with_its_names(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="folding 1 into 0 gives weights that are no finite float32"):
        folded(Net(nn.Conv2d(4, 8, 3), nn.BatchNorm2d(8, eps=0.0)), tmp_path, (4, 6, 6))


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_every_registered_network_is_folded_and_proven(tmp_path: Path, arch: str) -> None:
    network = ResNet(ARCHITECTURES[arch], 10, 3, (0.5,) * 3, (0.25,) * 3)
    norms = sum(isinstance(module, nn.BatchNorm2d) for module in network.modules())
    certificate = folded(network, tmp_path, (3, 32, 32))[2]
    assert certificate.proven, certificate.refuted[:3]
    assert (certificate.folded, certificate.left) == (norms, {})
    assert 0.5 < certificate.largest <= 1  # the bound is as narrow as it can be


def spelt_otherwise(path: Path) -> None:
    """The numbers of the layer and of its normalisation behind other operators, none of which rounds."""
    model = onnx.load(path)
    (conv,) = [node for node in model.graph.node if node.op_type == "Conv"]
    (norm,) = [node for node in model.graph.node if node.op_type == "BatchNormalization"]
    stored = {tensor.name: tensor for tensor in model.graph.initializer}
    spelt = []
    for node, places in ((conv, [1]), (norm, [1, 2, 3, 4])):
        for place in places:
            name = node.input[place]
            spelt.append(onnx.helper.make_node("Constant", [], [f"{name}.stored"], value=stored[name]))
            spelt.append(onnx.helper.make_node("Identity", [f"{name}.stored"], [f"{name}.spelt"]))
            node.input[place] = f"{name}.spelt"
    nodes = [*spelt, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    onnx.save(model, path)


def test_numbers_in_another_spelling_are_folded_too_and_nothing_of_it_is_left(tmp_path: Path) -> None:
    plain, spelt = tmp_path / "plain.onnx", tmp_path / "spelt.onnx"
    export.export(restless(PAIRS["plain"][0]), plain, (4, 6, 6), {})
    spelt.write_bytes(plain.read_bytes())
    spelt_otherwise(spelt)
    for before in (plain, spelt):
        fold_batchnorm(before, before.with_suffix(".folded.onnx"))
    after = tmp_path / "spelt.folded.onnx"
    assert certify(spelt, after, stage="fold_batchnorm").folded == 1
    assert certify(tmp_path / "plain.folded.onnx", after).proven
    assert [node.op_type for node in onnx.load(after).graph.node] == ["Conv", "Flatten"]
