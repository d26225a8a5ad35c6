"""Networks as the tutorials in docs/checkpoints.md describe them: their modules, their names, their defaults."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


class Residual(nn.Module):
    """d2l: two 3x3 and, where the size changes, a third convolution of 1x1 beside them; all with biases."""

    def __init__(self, channels: int, strides: int = 1, *, project: bool = False) -> None:
        super().__init__()
        self.conv1 = nn.LazyConv2d(channels, 3, padding=1, stride=strides)
        self.conv2 = nn.LazyConv2d(channels, 3, padding=1)
        self.conv3 = nn.LazyConv2d(channels, 1, stride=strides) if project or strides != 1 else None
        self.bn1, self.bn2 = nn.LazyBatchNorm2d(), nn.LazyBatchNorm2d()

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(functional.relu(self.bn1(self.conv1(x)))))
        return functional.relu(y + (x if self.conv3 is None else self.conv3(x)))


class Grouped(nn.Module):
    """d2l: 1x1, 3x3 in groups, 1x1; the fourth convolution, of a shortcut, has its normalisation."""

    def __init__(self, channels: int, strides: int = 1, *, project: bool = False) -> None:
        super().__init__()
        self.conv1 = nn.LazyConv2d(channels, 1)
        self.conv2 = nn.LazyConv2d(channels, 3, stride=strides, padding=1, groups=16)
        self.conv3 = nn.LazyConv2d(channels, 1)
        self.bn1, self.bn2, self.bn3 = (nn.LazyBatchNorm2d() for _ in range(3))
        self.conv4 = nn.LazyConv2d(channels, 1, stride=strides) if project else None
        self.bn4 = nn.LazyBatchNorm2d() if project else None

    def forward(self, x: Tensor) -> Tensor:
        y = functional.relu(self.bn1(self.conv1(x)))
        y = self.bn3(self.conv3(functional.relu(self.bn2(self.conv2(y)))))
        return functional.relu(y + (x if self.conv4 is None else self.bn4(self.conv4(x))))


def _stage(block: type[nn.Module], channels: int, first: bool) -> nn.Sequential:
    return nn.Sequential(block(channels) if first else block(channels, 2, project=True), block(channels))


class D2l(nn.Module):
    """d2l's class: ``net`` has its stem without a name, then b2 … b5 and last."""

    def __init__(self, block: type[nn.Module] = Residual) -> None:
        super().__init__()
        stem = nn.Sequential(nn.LazyConv2d(64, 7, 2, 3), nn.LazyBatchNorm2d(), nn.ReLU(), nn.MaxPool2d(3, 2, 1))
        self.net = nn.Sequential(stem)
        for index, channels in enumerate((64, 128, 256, 512)):
            self.net.add_module(f"b{index + 2}", _stage(block, channels, index == 0))
        self.net.add_module("last", nn.Sequential(nn.AdaptiveAvgPool2d((1, 1)), nn.Flatten(), nn.LazyLinear(10)))

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)  # type: ignore[no-any-return]


def d2l_sequential() -> nn.Sequential:
    """The same as one plain Sequential."""
    net = D2l().net
    return nn.Sequential(net[0], net.b2, net.b3, net.b4, net.b5, *net.last)


class Projection(nn.Module):
    """labml: 1x1 and its normalisation."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv, self.bn = nn.Conv2d(inputs, outputs, 1, stride), nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.bn(self.conv(x))  # type: ignore[no-any-return]


class Labml(nn.Module):
    """labml's block, of two 3x3 or, with a bottleneck, of 1x1, 3x3 and 1x1."""

    def __init__(self, inputs: int, inner: int | None, outputs: int, stride: int) -> None:
        super().__init__()
        if inner is None:
            layers = [nn.Conv2d(inputs, outputs, 3, stride, 1), nn.Conv2d(outputs, outputs, 3, 1, 1)]
        else:
            layers = [nn.Conv2d(inputs, inner, 1), nn.Conv2d(inner, inner, 3, stride, 1), nn.Conv2d(inner, outputs, 1)]
        self.count = len(layers)
        for number, layer in enumerate(layers, start=1):
            self.add_module(f"conv{number}", layer)
            self.add_module(f"bn{number}", nn.BatchNorm2d(layer.out_channels))
        same = stride == 1 and inputs == outputs
        self.shortcut = nn.Identity() if same else Projection(inputs, outputs, stride)

    def forward(self, x: Tensor) -> Tensor:
        y = x
        for number in range(1, self.count + 1):
            y = self.get_submodule(f"bn{number}")(self.get_submodule(f"conv{number}")(y))
            y = y if number == self.count else y.relu()
        return (y + self.shortcut(x)).relu()  # type: ignore[no-any-return]


class LabmlBase(nn.Module):
    """labml's network without a classifier: a stride in the stem and in the very first block alone."""

    def __init__(self, depth: int, bottlenecks: tuple[int, ...] | None) -> None:
        super().__init__()
        self.conv, self.bn = nn.Conv2d(3, 16, 3, 2, 1), nn.BatchNorm2d(16)
        blocks: list[nn.Module] = []
        inputs = 16
        for index, channels in enumerate((16, 32, 64)):
            for _ in range(depth):
                inner = bottlenecks and bottlenecks[index]
                blocks.append(Labml(inputs, inner, channels, 1 if blocks else 2))
                inputs = channels
        self.blocks = nn.Sequential(*blocks)

    def forward(self, x: Tensor) -> Tensor:
        return self.blocks(self.bn(self.conv(x))).flatten(2).mean(-1)  # type: ignore[no-any-return]


def labml(depth: int, bottlenecks: tuple[int, ...] | None = None) -> nn.Sequential:
    """With the linear layer that labml's experiment puts behind it."""
    return nn.Sequential(LabmlBase(depth, bottlenecks), nn.Linear(64, 10))


def with_statistics(network: nn.Module, channels: int) -> nn.Module:
    """``network`` with all its lazy layers there, and with statistics that no fresh one has."""
    torch.manual_seed(0)
    network(torch.zeros(2, channels, 64, 64))
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, 0, 0.1)
            nn.init.normal_(module.running_mean, 0, 0.1)  # type: ignore[arg-type]
            nn.init.uniform_(module.running_var, 0.5, 1.5)  # type: ignore[arg-type]
    return network.eval()
