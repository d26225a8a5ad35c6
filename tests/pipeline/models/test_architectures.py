"""Every variation of the network against plain functions written from its description, and through every stage."""

from __future__ import annotations

import json
import re
import tomllib
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
import safetensors.torch
import torch
from conftest import ROOT
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.real import open_nsfw
from calibration import observe, qdq
from calibration.histogram import Peak
from exporters import export, fold_batchnorm, reference, simplify
from exporters.certify import certify
from exporters.certify_weights import certify_weights
from exporters.engines import tensorrt_rtx
from pipeline.models import checkpoint, frozen, specs
from pipeline.models.resnet import ResNet
from pipeline.models.resnet_spec import ResNetSpec
from pipeline.models.specs import ARCHITECTURES

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import Cli

BASIC = ResNetSpec("basic", (1, 2), widths=(16, 32))
DEEP = replace(BASIC, block="bottleneck")
D2L = replace(BASIC, bias=True, shortcut_norm=False)
LABML = replace(BASIC, strides=(2, 1), stem_activation=False, max_pool=False, bias=True, first_kernel_size=3)
INNER = {"expansion": 1, "bottlenecks": (16, 32)}
TINY = {
    "stride in the 1x1": replace(DEEP, stride_in="1x1"),
    "ResNet-D": replace(DEEP, groups=4, stem="deep", shortcut_pool=True, max_pool=False),
    "CIFAR": replace(BASIC, first_kernel_size=3, first_stride=1, max_pool=False),
    "d2l": D2L,
    "d2l, grouped": replace(DEEP, groups=4, bias=True, **INNER),
    "d2l in JAX": replace(D2L, padding="same"),
    "d2l in JAX, grouped": replace(DEEP, groups=4, bias=True, padding="same", **INNER),
    "Caffe, folded": replace(
        DEEP, widths=(8, 16), stem_width=12, stride_in="1x1", pool_padding="end", norm=False, bias=True
    ),
    "no norm in basic blocks": replace(BASIC, norm=False, bias=True, stem_width=24),
    "labml": LABML,
    "labml, bottlenecks": replace(LABML, block="bottleneck", **INNER),
}


def trained(spec: ResNetSpec, channels: int = 1) -> ResNet:
    """A network whose statistics are those of no fresh one."""
    torch.manual_seed(0)
    network = ResNet(spec, 10, channels, (0.3,) * channels, (0.3,) * channels).eval()
    for module in network.modules():
        if isinstance(module, nn.Conv2d) and not module.weight.any():
            nn.init.kaiming_normal_(module.weight)
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None
            assert module.running_var is not None
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, 0, 0.3)
            nn.init.normal_(module.running_mean, 0, 0.3)
            nn.init.uniform_(module.running_var, 0.5, 2)
    return network


class Plain:
    """Layers by name, out of the weights of a network."""

    def __init__(self, weights: dict[str, Tensor]) -> None:
        self.weights = weights

    def conv(self, name: str, x: Tensor, stride: int, before: int, after: int, groups: int = 1) -> Tensor:
        weight = self.weights[f"{name}.weight"]
        bias = self.weights.get(f"{name}.bias")
        return functional.conv2d(functional.pad(x, (before, after) * 2), weight, bias, stride, groups=groups)

    def norm(self, name: str, x: Tensor) -> Tensor:
        names = ("running_mean", "running_var", "weight", "bias")
        return functional.batch_norm(x, *(self.weights[f"{name}.{parameter}"] for parameter in names))

    def chain(self, block: str, x: Tensor, *layers: tuple[int, int, int, int]) -> Tensor:
        """Convolution, normalisation and ReLU in turns, the last without ReLU: (stride, before, after, groups)."""
        for number, layer in enumerate(layers, start=1):
            x = x if number == 1 else x.relu()
            x = self.norm(f"{block}.bn{number}", self.conv(f"{block}.conv{number}", x, *layer))
        return x

    def head(self, x: Tensor) -> Tensor:
        return x.mean((2, 3)) @ self.weights["fc.weight"].T + self.weights["fc.bias"]


ONE, THREE = (1, 0, 0, 1), (1, 1, 1, 1)


def first_paper(net: Plain, x: Tensor) -> Tensor:
    """The stride in the first 1x1 convolution (arXiv 1512.03385)."""
    x = functional.max_pool2d(net.norm("bn1", net.conv("conv1", x, 2, 3, 3)).relu(), 3, 2, 1)
    for block, first in (("layer1.0", 1), ("layer2.0", 2)):
        short = net.norm(f"{block}.downsample.1", net.conv(f"{block}.downsample.0", x, first, 0, 0))
        x = (net.chain(block, x, (first, 0, 0, 1), THREE, ONE) + short).relu()
    return net.head((net.chain("layer2.1", x, ONE, THREE, ONE) + x).relu())


def resnet_d(net: Plain, x: Tensor) -> Tensor:
    """Three 3x3 in the stem; a shortcut averages what is there of each 2x2 (arXiv 1812.01187, figure 2)."""
    x = net.norm("conv1.1", net.conv("conv1.0", x, 2, 1, 1)).relu()
    x = net.norm("conv1.4", net.conv("conv1.3", x, 1, 1, 1)).relu()
    x = net.norm("bn1", net.conv("conv1.6", x, 1, 1, 1)).relu()
    for block, first in (("layer1.0", 1), ("layer2.0", 2)):
        odd = x.shape[-1] % 2
        short = x if first == 1 else functional.avg_pool2d(functional.pad(x, (0, odd) * 2, mode="replicate"), 2)
        short = net.norm(f"{block}.downsample.2", net.conv(f"{block}.downsample.1", short, 1, 0, 0))
        x = (net.chain(block, x, ONE, (first, 1, 1, 4), ONE) + short).relu()
    return net.head((net.chain("layer2.1", x, ONE, (1, 1, 1, 4), ONE) + x).relu())


def cifar(net: Plain, x: Tensor) -> Tensor:
    """A 3x3 stem that keeps the size (arXiv 1512.03385, section 4.2)."""
    x = net.norm("bn1", net.conv("conv1", x, 1, 1, 1)).relu()
    x = (net.chain("layer1.0", x, THREE, THREE) + x).relu()
    short = net.norm("layer2.0.downsample.1", net.conv("layer2.0.downsample.0", x, 2, 0, 0))
    x = (net.chain("layer2.0", x, (2, 1, 1, 1), THREE) + short).relu()
    return net.head((net.chain("layer2.1", x, THREE, THREE) + x).relu())


def d2l(net: Plain, x: Tensor) -> Tensor:
    """Biases; where the size changes a 1x1 convolution alone in the shortcut."""
    x = functional.max_pool2d(net.norm("bn1", net.conv("conv1", x, 2, 3, 3)).relu(), 3, 2, 1)
    x = (net.chain("layer1.0", x, THREE, THREE) + x).relu()
    short = net.conv("layer2.0.downsample.0", x, 2, 0, 0)
    x = (net.chain("layer2.0", x, (2, 1, 1, 1), THREE) + short).relu()
    return net.head((net.chain("layer2.1", x, THREE, THREE) + x).relu())


def d2l_in_jax(net: Plain, x: Tensor) -> Tensor:
    """The same padded as Flax does: at stride 2 and even size the odd pixel comes last."""
    even = x.shape[-1] % 2 == 0
    x = net.norm("bn1", net.conv("conv1", x, 2, 2 if even else 3, 3)).relu()
    before = int(x.shape[-1] % 2)
    x = functional.max_pool2d(functional.pad(x, (before, 1) * 2, value=-torch.inf), 3, 2)
    x = (net.chain("layer1.0", x, THREE, THREE) + x).relu()
    short = net.conv("layer2.0.downsample.0", x, 2, 0, 0)
    x = (net.chain("layer2.0", x, (2, int(x.shape[-1] % 2), 1, 1), THREE) + short).relu()
    return net.head((net.chain("layer2.1", x, THREE, THREE) + x).relu())


def d2l_grouped(net: Plain, x: Tensor) -> Tensor:
    """1x1, grouped 3x3 with the stride, 1x1; the shortcut has its normalisation."""
    x = functional.max_pool2d(net.norm("bn1", net.conv("conv1", x, 2, 3, 3)).relu(), 3, 2, 1)
    x = (net.chain("layer1.0", x, ONE, (1, 1, 1, 4), ONE) + x).relu()
    short = net.norm("layer2.0.downsample.1", net.conv("layer2.0.downsample.0", x, 2, 0, 0))
    x = (net.chain("layer2.0", x, ONE, (2, 1, 1, 4), ONE) + short).relu()
    return net.head((net.chain("layer2.1", x, ONE, (1, 1, 1, 4), ONE) + x).relu())


def labml(net: Plain, x: Tensor) -> Tensor:
    """No activation behind the stem, no max-pool, and a stride in the very first block alone."""
    x = net.norm("bn1", net.conv("conv1", x, 2, 1, 1))
    for block, first in (("layer1.0", 2), ("layer2.0", 1)):
        short = net.norm(f"{block}.downsample.1", net.conv(f"{block}.downsample.0", x, first, 0, 0))
        x = (net.chain(block, x, (first, 1, 1, 1), THREE) + short).relu()
    return net.head((net.chain("layer2.1", x, THREE, THREE) + x).relu())


def caffe(net: Plain, x: Tensor) -> Tensor:
    """A stem wider than the first stage, a pool that rounds up over the end, no normalisation."""
    x = functional.max_pool2d(functional.pad(net.conv("conv1", x, 2, 3, 3).relu(), (0, 1, 0, 1)), 3, 2)
    for block, first in (("layer1.0", 1), ("layer2.0", 2), ("layer2.1", 1)):
        y = net.conv(f"{block}.conv1", x, first, 0, 0).relu()
        y = net.conv(f"{block}.conv3", net.conv(f"{block}.conv2", y, 1, 1, 1).relu(), 1, 0, 0)
        short = x if block == "layer2.1" else net.conv(f"{block}.downsample.0", x, first, 0, 0)
        x = (y + short).relu()
    return net.head(x)


DESCRIBED = {
    "Caffe, folded": caffe,
    "stride in the 1x1": first_paper,
    "ResNet-D": resnet_d,
    "CIFAR": cifar,
    "d2l": d2l,
    "d2l, grouped": d2l_grouped,
    "d2l in JAX": d2l_in_jax,
    "labml": labml,
}


@pytest.mark.parametrize("size", [37, 38, 40, 48])
@pytest.mark.parametrize("name", DESCRIBED)
def test_a_variation_answers_as_its_description(name: str, size: int) -> None:
    network = trained(TINY[name], channels=3)
    images = torch.randint(0, 256, (2, 3, size, size)).float()
    with torch.inference_mode():
        expected = DESCRIBED[name](Plain(network.state_dict()), (images / 255 - 0.3) / 0.3)
        torch.testing.assert_close(network(images), expected, rtol=0, atol=1e-5 * expected.abs().max().item())


def test_under_the_wrong_padding_the_same_weights_answer_something_else() -> None:
    right, wrong = trained(TINY["d2l in JAX"]), trained(TINY["d2l"])
    images = torch.randint(0, 256, (2, 1, 40, 40)).float()
    with torch.inference_mode():
        assert (right(images) - wrong(images)).abs().max() > 0.1 * right(images).abs().max()


@pytest.mark.parametrize("name", [name for name in TINY if name not in {"d2l", "d2l, grouped", "labml"}])
def test_a_variation_goes_through_every_stage_and_is_proven(tmp_path: Path, name: str) -> None:
    network, size = trained(TINY[name]), 38
    images = np.random.default_rng(0).integers(0, 256, (4, 1, size, size)).astype(np.float32)
    record = {"channels": 1, "mean": [0.3], "std": [0.3]}
    description = frozen.NetworkDescription(name, TINY[name], tuple("0123456789"), record)
    frozen.write(network, description, tmp_path / "w.safetensors")
    raw, tidy, folded, int8 = (tmp_path / f"{number}.onnx" for number in range(4))
    export.export(frozen.read(tmp_path / "w.safetensors")[0], raw, (1, size, size), {})
    simplify.simplify(raw, tidy)
    fold_batchnorm.fold_batchnorm(tidy, folded)
    observer = observe.Observer(folded, list(qdq.tensors(folded)), Peak)
    observer.take([images])
    qdq.quantise(folded, int8, {name: peak.amax for name, peak in observer.seen.items()})
    proofs = [certify_weights(tmp_path / "w.safetensors", raw), certify(raw, tidy), certify(tidy, folded)]
    for proof in (*proofs, certify(folded, int8)):
        assert proof.proven, proof.refuted
    with torch.inference_mode():
        expected = network(torch.from_numpy(images)).numpy()
    for path, error in ((raw, 1e-6), (tidy, 1e-6), (folded, 2e-6), (int8, 0.05)):
        answers = reference.session(path).run(None, {"images": images})[0]
        np.testing.assert_allclose(answers, expected, rtol=0, atol=error * np.abs(expected).max())
    built = tensorrt_rtx.BACKEND.build(int8, tmp_path / "x.engine")
    convolutions = sum(isinstance(module, nn.Conv2d) for module in network.modules())
    assert (built.convolutions, built.eight_bit_convolutions) == (convolutions, convolutions)


def test_the_block_that_one_notebook_prints_cannot_be_added() -> None:
    x = torch.zeros(4, 3, 6, 6)
    twice = nn.Sequential(nn.Conv2d(3, 6, 3, 2, 1), nn.Conv2d(6, 6, 3, 2, 1))(x)
    assert (twice.shape, nn.Conv2d(3, 6, 1, 2)(x).shape) == ((4, 6, 2, 2), (4, 6, 3, 3))
    ours = ResNet(D2L, 10, 3, (0.0,) * 3, (1.0,) * 3).layer2[0]  # type: ignore[index]
    assert (ours.conv1.stride, ours.conv2.stride) == ((2, 2), (1, 1))


def test_the_docs_describe_open_nsfw() -> None:
    """The .toml of the docs answers as the module that the converted weights of open_nsfw are read into."""
    (fields,) = re.findall(r"```toml\n([^`]*pool_padding[^`]*)```", (ROOT / "docs" / "architectures.md").read_text())
    spec = ResNetSpec.from_json(tomllib.loads(fields))
    mean = [123 / 255, 117 / 255, 104 / 255]
    torch.manual_seed(0)
    ours = ResNet(spec, 2, 3, mean, [1 / 255] * 3).eval()
    for module in ours.modules():
        if isinstance(module, nn.Conv2d) and not module.weight.any():
            nn.init.kaiming_normal_(module.weight)

    weights = {}
    blocks = [f"layer{stage}.{place}" for stage, depth in enumerate(spec.depths, 1) for place in range(depth)]
    for name, value in ours.state_dict().items():
        module, _, rest = name.rpartition(".")
        block = next((block for block in blocks if name.startswith(f"{block}.")), None)
        if block is not None:
            part = module.removeprefix(f"{block}.").replace("downsample.0", "shortcut")
            weights[f"blocks.{blocks.index(block)}.{part}.{rest}"] = value
        elif not name.startswith("pixel"):
            weights[name.replace("conv1", "stem")] = value
    theirs = open_nsfw.network(2, 3).eval()
    theirs.load_state_dict(weights)
    images = torch.randint(0, 256, (2, 3, 224, 224)).float()
    with torch.inference_mode():
        expected = theirs(images - torch.tensor([123.0, 117.0, 104.0]).reshape(1, 3, 1, 1))
        torch.testing.assert_close(ours(images), expected, rtol=0, atol=1e-5 * expected.abs().max().item())


def test_every_network_is_in_the_docs() -> None:
    page = (ROOT / "docs" / "architectures.md").read_text()
    assert [name for name in ARCHITECTURES if f"`{name}`" not in page] == []


def test_a_frozen_file_from_before_these_fields_is_read_with_their_defaults(tmp_path: Path) -> None:
    record = {"channels": 1}
    description = frozen.NetworkDescription("resnet_tiny", ARCHITECTURES["resnet_tiny"], ("a", "b"), record)
    record |= {"mean": [0.5], "std": [0.5]}
    frozen.write(description.network(), description, tmp_path / "new.safetensors")
    with safetensors.safe_open(tmp_path / "new.safetensors", "pt") as file:
        record = json.loads(file.metadata()["network"])
    known = ("block", "depths", "groups", "width_per_group", "widths")
    record["spec"] = {name: record["spec"][name] for name in known}
    tensors = checkpoint.read(tmp_path / "new.safetensors")
    safetensors.torch.save_file(tensors, tmp_path / "old.safetensors", {"network": json.dumps(record)})
    assert frozen.read(tmp_path / "old.safetensors")[1] == description


JAX = """
block = "basic"
depths = [1, 1]
widths = [16, 32]
bias = true
shortcut_norm = false
padding = "same"
"""


def test_a_network_from_a_file_is_built_and_judged(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text(JAX)
    flags = ("--precision", "int8", "--engine", "onnxruntime", "--epochs", 8, "--max-drop", 0.2)
    report = cli.report("--arch", tmp_path / "mine.toml", *flags, "-o", tmp_path / "out")
    assert (report["verdict"], report["recipe"]["arch"]) == ("pass", "mine")
    assert report["stages"][-1]["int8_share"] > 0
    assert specs.find(str(tmp_path / "mine.toml")) == (
        "mine",
        replace(D2L, depths=(1, 1), padding="same"),
    )


BAD = {
    "no such field": ("paddings = 'same'", "there is no field paddings; did you mean padding?"),
    "another word": ("padding = 'valid'", "padding is 'valid'; it takes 'symmetric' or 'same'"),
    "a word for a number": ("groups = '4'", "groups is '4'; it takes 1 … 65536"),
    "a truth for a number": ("groups = true", "groups is True; it takes 1 … 65536"),
    "a number for a truth": ("bias = 1", "bias is 1; it takes true or false"),
    "nothing": ("first_stride = 0", "first_stride is 0; it takes 1 … 65536"),
    "no list": ("strides = 2", "strides is 2; it takes a list of 1 … 65536"),
    "an empty list": ("strides = []", "strides is (); it takes a list of 1 … 65536"),
    "a table": ("[stem]", "stem is {}; it takes 'plain' or 'deep'"),
    "too few": ("strides = [2]", "strides has 1 numbers for 2 stages; give one a stage"),
    "groups of nothing": ("groups = 4", "groups, width_per_group and stride_in go with block = 'bottleneck'"),
    "a deep stem of 5x5": ("stem = 'deep'\nfirst_kernel_size = 5", "stem = 'deep' takes an even first width"),
    "a deep stem of half a channel": ("stem = 'deep'\nstem_width = 9", "stem = 'deep' takes an even first width"),
    "no stem": ("stem_width = 0", "stem_width is 0; it takes 1 … 65536"),
    "another end": ("pool_padding = 'same'", "pool_padding is 'same'; it takes 'symmetric' or 'end'"),
    "no pool to pad": ("pool_padding = 'end'\nmax_pool = false", "there is no pool to pad"),
    "twice": ("bias = false\nbias = true", "Cannot overwrite a value"),
    "no TOML": ("bias", "Expected '=' after a key"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_file_is_refused_in_a_sentence(tmp_path: Path, name: str) -> None:
    lines, sentence = BAD[name]
    (tmp_path / "bad.toml").write_text("block = 'basic'\ndepths = [1, 1]\nwidths = [8, 16]\n" + lines)
    with pytest.raises(specs.BadRequest) as refused:
        specs.find(str(tmp_path / "bad.toml"))
    assert sentence in str(refused.value)


def test_what_no_network_can_be_built_of_is_refused(tmp_path: Path) -> None:
    for content, sentence in (
        (b"depths = [1]", "the field block is missing"),
        (b"block = 'bottleneck'\ndepths = [1]\nwidths = [6]\ngroups = 4\nbottlenecks = [6]", "no multiple of 4 groups"),
        (b"\xff", "can't decode"),
    ):
        (tmp_path / "bad.toml").write_bytes(content)
        with pytest.raises(specs.BadRequest, match=sentence):
            specs.find(str(tmp_path / "bad.toml"))
    for missing in (tmp_path / "none.toml", tmp_path / "none"):
        with pytest.raises(specs.BadRequest, match=r"name a file that is there|One of your own is a \.toml file"):
            specs.find(str(missing))
