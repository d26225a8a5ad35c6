"""What a network is before it is made: the shape after every stage, its parameters and its multiplications."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor, nn

    from pipeline.models.specs import ResNetSpec

# The module after which the shape is told.
ENDS = {"stem": "maxpool", "pool": "avgpool"}


@dataclass(frozen=True)
class Part:
    """One stage: its ``shape`` for the whole batch, and ``macs``, the multiply-accumulates for one image."""

    name: str
    shape: tuple[int, ...]
    parameters: int
    macs: int


@dataclass(frozen=True)
class Summary:
    """All parts in order; ``dense`` is the same network with its convolutions in one group, where they are not."""

    parts: tuple[Part, ...]
    dense: Summary | None = None

    @property
    def parameters(self) -> int:
        """Everything that training changes."""
        return sum(part.parameters for part in self.parts)

    @property
    def macs(self) -> int:
        """Of the convolutions and the linear layer, for one image."""
        return sum(part.macs for part in self.parts)

    def to_json(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        totals = {"parameters": self.parameters, "macs": self.macs}
        return {**totals, "dense": self.dense and self.dense.to_json(), "parts": [asdict(part) for part in self.parts]}


def summarise(spec: ResNetSpec, classes: int, shape: tuple[int, int, int, int]) -> Summary:
    """The summary of the network of ``spec`` for images of ``shape`` (N, C, H, W); nothing is computed."""
    import torch

    from pipeline.models.resnet import ResNet

    with torch.device("meta"):
        network = ResNet(spec, classes, shape[1], (0.0,) * shape[1], (1.0,) * shape[1]).eval()
        shapes, macs = _watched(network, torch.empty(shape))
    names = ["stem", *network.stages, "pool", "fc"]

    def owner(name: str) -> str:
        first = name.partition(".")[0]
        return first if first in names else "stem"

    parameters: Counter[str] = Counter()
    for name, value in network.named_parameters():
        parameters[owner(name)] += value.numel()
    counts: Counter[str] = Counter()
    for name, count in macs.items():
        counts[owner(name)] += count
    parts = tuple(Part(name, shapes[ENDS.get(name, name)], parameters[name], counts[name]) for name in names)
    grouped = spec.groups > 1
    dense = summarise(replace(spec, groups=1, bottlenecks=spec.inner), classes, shape) if grouped else None
    return Summary(parts, dense)


def _watched(network: nn.Module, images: Tensor) -> tuple[dict[str, tuple[int, ...]], dict[str, int]]:
    """The shape of every module's output, and the multiplications in every layer for one image."""
    from torch import nn

    shapes: dict[str, tuple[int, ...]] = {}
    macs: dict[str, int] = {}
    for name, module in network.named_modules():

        def watch(module: nn.Module, _: Any, output: Tensor, name: str = name) -> None:
            shapes[name] = tuple(output.shape)
            if isinstance(module, nn.Conv2d | nn.Linear):
                macs[name] = output[0].numel() * module.weight[0].numel()

        module.register_forward_hook(watch)
    network(images)
    return shapes, macs
