"""The networks, trained once on Fashion-MNIST at 64 pixels, and the same functions with rescaled channels."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from pipeline.data import fashion_mnist
from pipeline.data.images import Images
from pipeline.data.part import Part, queue
from pipeline.models import specs

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

SIZE = 64
# Training images, in one epoch: what a CPU can do in half an hour.
NETWORKS = {"resnet18": 60000, "resnet50": 20000, "resnext50_32x4d": 20000}
SPAN = 3.0
INNER = (("bn1", "conv2"), ("bn2", "conv3"))


def images(part: Part) -> Images:
    """``part`` as the networks see it."""
    return Images(part, replace(fashion_mnist.read(None).preprocessing, input_size=SIZE, resize=SIZE))


def checkpoint(arch: str, work: Path) -> Path:
    """The trained weights, by torchvision's names; trained now where ``work`` has none."""
    path = work / f"{arch}.safetensors"
    if not path.exists():
        work.mkdir(parents=True, exist_ok=True)
        _train(arch, path)
    return path


def _train(arch: str, path: Path) -> None:
    import torch
    from safetensors.torch import save_file

    from pipeline.models.resnet import ResNet
    from pipeline.train.fit import BUILD, fit
    from pipeline.train.knobs import Training

    train = fashion_mnist.read(None).train
    part = train.take(queue(train.labels, 0)[: NETWORKS[arch]])
    preprocessing = images(part).preprocessing
    torch.manual_seed(0)
    network = ResNet(specs.ARCHITECTURES[arch], 10, 1, preprocessing.mean, preprocessing.std)
    fit(network, images(part), None, Training(arch=arch, **BUILD), 1, "cpu")
    held = {name: value.contiguous() for name, value in network.state_dict().items() if not name.startswith("pixel_")}
    save_file(held, path)


def rescaled(arch: str, src: Path, dst: Path, seed: int = 0) -> None:
    """The same function with the inner channels of every block divided by exp(U(-3, 3)).

    A factor leaves in gamma and beta of the BatchNorm before the ReLU and comes back in the weights that read the
    channel; in a grouped convolution these are the weights of its own group.
    """
    from safetensors.numpy import load_file, save_file

    held, rng = load_file(src), np.random.default_rng(seed)
    groups = specs.ARCHITECTURES[arch].groups
    blocks = sorted({name.rsplit(".", 2)[0] for name in held if name.endswith(".conv1.weight")})
    for block, (norm, reader) in [(block, pair) for block in blocks for pair in INNER]:
        weight: NDArray[np.float32] | None = held.get(f"{block}.{reader}.weight")
        if weight is None:
            continue
        scale = held[f"{block}.{norm}.weight"]
        factors = np.exp(rng.uniform(-SPAN, SPAN, len(scale))).astype(np.float32)
        scale /= factors
        held[f"{block}.{norm}.bias"] /= factors
        parts = groups if reader == "conv2" else 1
        weight *= np.repeat(factors.reshape(parts, -1), len(weight) // parts, axis=0)[:, :, None, None]
    save_file(held, dst)
