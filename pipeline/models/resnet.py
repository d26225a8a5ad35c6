"""One residual network for every spec, with torchvision's parameter names and its normalisation inside."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pipeline.models.specs import ResNetSpec


def conv(inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Conv2d:
    """A convolution without bias whose output is as large as its input over ``stride``."""
    return nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, groups=groups, bias=False)


class Basic(nn.Module):
    """Two 3x3 convolutions and a shortcut (He et al. 2015, figure 5 left)."""

    def __init__(self, inputs: int, width: int, stride: int, spec: ResNetSpec) -> None:
        super().__init__()
        self.conv1 = conv(inputs, width, 3, stride)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = conv(width, width, 3)
        self.bn2 = nn.BatchNorm2d(width)
        self.downsample = shortcut(inputs, width * spec.expansion, stride)

    def forward(self, x: Tensor) -> Tensor:
        """(N, inputs, H, W) to (N, width, H/stride, W/stride)."""
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        return self.relu(out + (x if self.downsample is None else self.downsample(x)))  # type: ignore[no-any-return]


class Bottleneck(nn.Module):
    """1x1, grouped 3x3, 1x1 and a shortcut (He et al. 2015, figure 5 right; Xie et al. 2016, figure 3c)."""

    def __init__(self, inputs: int, width: int, stride: int, spec: ResNetSpec) -> None:
        super().__init__()
        inner = width * spec.width_per_group // 64 * spec.groups
        outputs = width * spec.expansion
        self.conv1 = conv(inputs, inner, 1)
        self.bn1 = nn.BatchNorm2d(inner)
        self.conv2 = conv(inner, inner, 3, stride, spec.groups)
        self.bn2 = nn.BatchNorm2d(inner)
        self.conv3 = conv(inner, outputs, 1)
        self.bn3 = nn.BatchNorm2d(outputs)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = shortcut(inputs, outputs, stride)

    def forward(self, x: Tensor) -> Tensor:
        """(N, inputs, H, W) to (N, 4*width, H/stride, W/stride)."""
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.relu(self.bn2(self.conv2(out)))
        out = self.bn3(self.conv3(out))
        return self.relu(out + (x if self.downsample is None else self.downsample(x)))  # type: ignore[no-any-return]


BLOCKS = {"basic": Basic, "bottleneck": Bottleneck}


def shortcut(inputs: int, outputs: int, stride: int) -> nn.Sequential | None:
    """A projection where the block changes shape, nothing where it does not."""
    if stride == 1 and inputs == outputs:
        return None
    return nn.Sequential(conv(inputs, outputs, 1, stride), nn.BatchNorm2d(outputs))


class ResNet(nn.Module):
    """images (N, channels, H, W) float32 0..255 to logits (N, classes) float32.

    ``mean`` and ``std`` (one value per channel, in 0..1 units as torchvision prints them) are applied inside, so that
    whoever runs the exported file feeds pixels.
    """

    def __init__(
        self, spec: ResNetSpec, classes: int, channels: int, mean: Sequence[float], std: Sequence[float]
    ) -> None:
        super().__init__()
        self.pixel_mean: Tensor
        self.pixel_std: Tensor
        # Buffers, so that the exported file names them; a checkpoint in torchvision's layout has no such keys.
        self.register_buffer("pixel_mean", 255 * torch.tensor(mean).reshape(1, channels, 1, 1))
        self.register_buffer("pixel_std", 255 * torch.tensor(std).reshape(1, channels, 1, 1))
        stem = spec.widths[0]
        self.conv1 = conv(channels, stem, 7, 2)
        self.bn1 = nn.BatchNorm2d(stem)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, 2, padding=1)
        self.stages = [f"layer{number}" for number in range(1, len(spec.depths) + 1)]
        inputs = stem
        for name, depth, width in zip(self.stages, spec.depths, spec.widths, strict=True):
            blocks = []
            for index in range(depth):
                stride = 2 if index == 0 and name != "layer1" else 1
                blocks.append(BLOCKS[spec.block](inputs, width, stride, spec))
                inputs = width * spec.expansion
            self.add_module(name, nn.Sequential(*blocks))
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(inputs, classes)
        self._initialise()

    def _initialise(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            # The last BatchNorm of a block starts at zero, so that every block starts as the identity
            # (Goyal et al. 2017, arXiv 1706.02677, section 5.1); few epochs then suffice.
            if isinstance(module, Basic):
                nn.init.zeros_(module.bn2.weight)
            if isinstance(module, Bottleneck):
                nn.init.zeros_(module.bn3.weight)

    def forward(self, images: Tensor) -> Tensor:
        """Pixels in, logits out."""
        x = (images - self.pixel_mean) / self.pixel_std
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        for name in self.stages:
            x = self.get_submodule(name)(x)
        return self.fc(torch.flatten(self.avgpool(x), 1))  # type: ignore[no-any-return]
