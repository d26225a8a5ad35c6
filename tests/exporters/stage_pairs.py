"""Honest pairs of files: small networks taken through every stage by the project's own functions."""

from __future__ import annotations

import json
import warnings
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import onnx
import torch
from torch import nn
from torch.nn import functional

from calibration import observe, qdq
from calibration.histogram import Peak
from calibration.recovery.equalise import equalise
from exporters import export, float16, float_weights, fold_batchnorm, simplify, uint8_input
from exporters.number_formats import NUMBER_FORMATS
from pipeline.models.resnet import ResNet
from pipeline.models.resnet_spec import ResNetSpec

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

SIZE = 32
CLASSES = 10
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
METADATA = {
    "architecture": "own",
    "classes": json.dumps([f"class {index}" for index in range(CLASSES)]),
    "preprocessing": json.dumps({"mean": MEAN, "std": STD}),
}
# All stages that a pair is made of, in the order in which they are made.
STAGES = frozenset({
    "simplify", "fold_batchnorm", "equalise", "fp16", "uint8_input of float32", "int8", "int8 for onnxruntime", "fp8",
    "halve", "halve of fp8", "float_weights", "float_weights of onnxruntime", "uint8_input",
})  # fmt: skip


@dataclass(frozen=True)
class StagePair:
    """What a ``stage`` made of a file of ``network``: the file ``before`` and the file ``after``."""

    network: str
    stage: str
    before: onnx.ModelProto
    after: onnx.ModelProto

    @property
    def certified_as(self) -> str:
        """The stage by the name that the certificate has for it."""
        return CERTIFIED_AS.get(self.stage, self.stage)


CERTIFIED_AS = {
    "int8 for onnxruntime": "int8",
    "halve of fp8": "halve",
    "float_weights of onnxruntime": "float_weights",
    "uint8_input of float32": "uint8_input",
}


class Normalised(nn.Module):
    """Pixels from 0 to 255 as a network wants them."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", 255 * torch.tensor(MEAN).view(1, 3, 1, 1))
        self.register_buffer("std", 255 * torch.tensor(STD).view(1, 3, 1, 1))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return (images - self.mean) / self.std


class Layer(nn.Module):
    """A convolution and its BatchNormalization."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 3, stride: int = 1, groups: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
        self.bn = nn.BatchNorm2d(outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.bn(self.conv(x))


class Various(nn.Module):
    """What people write beside residual blocks: a gate, other activations, halves that change places, odd pools."""

    def __init__(self) -> None:
        super().__init__()
        self.normalised = Normalised()
        self.stem = Layer(3, 16, stride=2)
        self.prelu = nn.PReLU(16)
        self.one = Layer(16, 16)
        self.other = Layer(16, 16, groups=16)
        self.reduce = nn.Conv2d(16, 4, 1)
        self.expand = nn.Conv2d(4, 16, 1)
        self.average = nn.AvgPool2d(3, 2, 1, count_include_pad=True)
        self.maximum = nn.MaxPool2d(3, 2, 1)
        self.last = Layer(32, 16)
        self.fc1 = nn.Linear(16, 16)
        self.fc2 = nn.Linear(16, CLASSES)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        x = self.prelu(self.stem(self.normalised(images)))
        gate = torch.sigmoid(self.expand(functional.relu(self.reduce(functional.adaptive_avg_pool2d(x, 1)))))
        x = x * gate
        first, second = functional.relu(self.one(x)).chunk(2, 1)
        x = x - functional.leaky_relu(self.other(torch.cat([second, first], 1)), 0.1)
        x = torch.cat([self.average(x), self.maximum(x)], 1)
        x = functional.hardtanh(self.last(x), -2.0, 2.0)
        x = functional.adaptive_avg_pool2d(x, 1).flatten(1)
        return self.fc2(functional.elu(self.fc1(x)))


class Normal(nn.Module):
    """Constants and reductions of newer networks: GroupNorm, LayerScale, GELU, a head that takes the mean."""

    def __init__(self) -> None:
        super().__init__()
        self.normalised = Normalised()
        self.stem = Layer(3, 16, stride=2)
        self.norm = nn.GroupNorm(4, 16)
        self.conv = nn.Conv2d(16, 16, 3, padding=1)
        self.gamma = nn.Parameter(torch.linspace(0.5, 1.5, 16).view(16, 1, 1))
        self.fc = nn.Linear(16, CLASSES)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        x = functional.relu6(self.stem(self.normalised(images)))
        x = x + self.gamma * functional.gelu(self.conv(self.norm(x)))
        x = x * torch.softmax(x, 1)
        return self.fc(x.mean((2, 3)))


def _residual() -> nn.Module:
    spec = ResNetSpec("bottleneck", (2, 1), groups=2, widths=(16, 32), expansion=1, bottlenecks=(8, 16))
    return ResNet(spec, CLASSES, 3, MEAN, STD)


def _deep_stem() -> nn.Module:
    spec = ResNetSpec("bottleneck", (1, 1), widths=(8, 16), expansion=2, stem="deep", shortcut_pool=True)
    return ResNet(spec, CLASSES, 3, MEAN, STD)


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "residual": _residual,
    "deep stem": _deep_stem,
    "various": Various,
    "normal": Normal,
}


def images(seed: int, count: int) -> NDArray[np.float32]:
    """Pixels (count, 3, SIZE, SIZE): half of them smooth as photos are, half of them noise, one black and one white."""
    generator = np.random.default_rng(seed)
    coarse = generator.uniform(0, 255, (count, 3, 4, 4))
    pixels = np.kron(coarse, np.ones((SIZE // 4, SIZE // 4)))
    noisy = generator.uniform(0, 255, pixels.shape)
    pixels[1::2] = noisy[1::2]
    pixels[0] = 0
    pixels[1] = 255
    return np.rint(pixels).astype(np.float32)


def trained_like(network: nn.Module, seed: int) -> nn.Module:
    """Statistics as a training leaves them: those of real activations, with channels of very different size."""
    torch.manual_seed(seed)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None
            nn.init.uniform_(module.weight, 0.5, 1.5)
            with torch.no_grad():
                module.weight *= torch.exp2(torch.randint(-3, 4, module.weight.shape))
            nn.init.normal_(module.bias, std=0.3)
        elif isinstance(module, (nn.Conv2d, nn.Linear)) and module.bias is not None:
            nn.init.normal_(module.bias, std=0.3)
    network.train()
    with torch.no_grad():
        network(torch.from_numpy(images(seed, 16)))
    return network.eval()


@dataclass
class Made:
    """The pairs of one network, and the stages that could not make their file, each with the reason."""

    pairs: list[StagePair] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)


def make(network: str, folder: Path, seed: int = 0) -> Made:
    """Every stage's pair of ``network``, made in ``folder``."""
    torch.manual_seed(seed)
    module = trained_like(NETWORKS[network](), seed)
    # Darker than some to come, so that what a pair does beyond its range shows.
    pixels = images(seed, 16) * 0.7
    paths: dict[str, Path] = {}
    made = Made()

    def stage(name: str, source: str, run: Callable[[Path, Path], object]) -> None:
        if source in made.failed:
            made.failed[name] = f"{source} failed"
            return
        paths[name] = folder / f"{name}.onnx"
        try:
            run(paths[source], paths[name])
        except Exception as error:  # noqa: BLE001
            made.failed[name] = repr(error)
            return
        made.pairs.append(StagePair(network, name, onnx.load(paths[source]), onnx.load(paths[name])))

    def quantised(src: Path, dst: Path, number_format: str, placement: str) -> None:
        row = NUMBER_FORMATS[number_format]
        qdq.quantise(src, dst, _peaks(src, pixels), placement, row)

    paths["export"] = folder / "export.onnx"
    with warnings.catch_warnings():
        # GroupNorm asks whether its input is empty, which a trace cannot follow and need not.
        warnings.simplefilter("ignore", torch.jit.TracerWarning)
        export.export(module, paths["export"], (3, SIZE, SIZE), METADATA)
    stage("simplify", "export", simplify.simplify)
    stage("fold_batchnorm", "simplify", fold_batchnorm.fold_batchnorm)
    stage("equalise", "fold_batchnorm", lambda src, dst: equalise(src, dst, [pixels]))
    stage("fp16", "fold_batchnorm", lambda src, dst: float16.float16(src, dst, _peaks(src, pixels)))
    stage("uint8_input of float32", "fold_batchnorm", uint8_input.uint8_input)
    stage("int8", "fold_batchnorm", lambda src, dst: quantised(src, dst, "int8", "tensorrt"))
    stage("int8 for onnxruntime", "fold_batchnorm", lambda src, dst: quantised(src, dst, "int8", "onnxruntime"))
    stage("fp8", "fold_batchnorm", lambda src, dst: quantised(src, dst, "fp8", "tensorrt"))
    stage("halve", "int8", lambda src, dst: float16.float16(src, dst, _peaks(src, pixels)))
    stage("halve of fp8", "fp8", lambda src, dst: float16.float16(src, dst, _peaks(src, pixels)))
    stage("float_weights", "int8", float_weights.float_weights)
    stage("float_weights of onnxruntime", "int8 for onnxruntime", float_weights.float_weights)
    stage("uint8_input", "int8", uint8_input.uint8_input)
    return made


def _peaks(src: Path, pixels: NDArray[np.float32]) -> dict[str, float]:
    """The largest magnitude of every activation of ``src``."""
    names = ["images", *observe.activations(src)]
    observer = observe.Observer(src, names[1:], Peak)
    observer.take([pixels])
    return {"images": 255.0} | {name: peak.amax for name, peak in observer.seen.items()}
