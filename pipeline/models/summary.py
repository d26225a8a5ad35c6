"""What a network is before it is made: the shape after every stage, its parameters and its multiplications."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor, nn

    from pipeline.models.resnet_spec import ResNetSpec

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
        return {
            "parameters": self.parameters,
            "macs": self.macs,
            "dense": None if self.dense is None else self.dense.to_json(),
            "parts": [asdict(part) for part in self.parts],
        }


def summarise(spec: ResNetSpec, classes: int, shape: tuple[int, int, int, int]) -> Summary:
    """The summary of the network of ``spec`` for images of ``shape`` (N, C, H, W); nothing is computed."""
    import torch

    from pipeline.models.resnet import ResNet

    channels = shape[1]
    # Tensors of the meta device have a shape and no numbers; mean and std matter to no shape.
    with torch.device("meta"):
        network = ResNet(spec, classes, channels, (0.0,) * channels, (1.0,) * channels).eval()
        shapes, macs_by_layer = _watched(network, torch.empty(shape))

    part_names = ["stem", *network.stages, "pool", "fc"]
    parameters: Counter[str] = Counter()
    for name, value in network.named_parameters():
        parameters[_part_of(name, part_names)] += value.numel()
    macs: Counter[str] = Counter()
    for name, count in macs_by_layer.items():
        macs[_part_of(name, part_names)] += count

    parts = []
    for name in part_names:
        last_module = ENDS.get(name, name)
        parts.append(Part(name, shapes[last_module], parameters[name], macs[name]))
    return Summary(tuple(parts), _dense(spec, classes, shape))


def _dense(spec: ResNetSpec, classes: int, shape: tuple[int, int, int, int]) -> Summary | None:
    """The same channels in one group; None where they are."""
    if spec.groups == 1:
        return None
    # The channels inside outright, because without groups they would follow from the width alone.
    return summarise(replace(spec, groups=1, bottlenecks=spec.inner), classes, shape)


def _part_of(name: str, part_names: list[str]) -> str:
    """The part that a module or parameter is in: what is in no stage and is no head is in the stem."""
    first = name.partition(".")[0]
    return first if first in part_names else "stem"


def _watched(network: nn.Module, images: Tensor) -> tuple[dict[str, tuple[int, ...]], dict[str, int]]:
    """The shape of every module's output, and the multiplications in every layer for one image."""
    from torch import nn

    shapes: dict[str, tuple[int, ...]] = {}
    macs: dict[str, int] = {}
    for name, module in network.named_modules():

        def watch(module: nn.Module, _: Any, output: Tensor, name: str = name) -> None:
            shapes[name] = tuple(output.shape)
            if isinstance(module, nn.Conv2d | nn.Linear):
                # Each number of the output is the sum of one filter's products.
                macs[name] = output[0].numel() * module.weight[0].numel()

        module.register_forward_hook(watch)
    network(images)
    return shapes, macs
