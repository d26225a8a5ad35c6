"""One residual network for every spec, with torchvision's parameter names and its normalisation inside."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from pipeline.models.same_padding import SameConv2d, SameMaxPool2d

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pipeline.models.specs import ResNetSpec


def conv(spec: ResNetSpec, inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Conv2d:
    """A convolution whose output is as large as its input over ``stride``."""
    if spec.padding == "same":
        return SameConv2d(inputs, outputs, kernel, stride, groups=groups, bias=spec.bias)
    return nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, groups=groups, bias=spec.bias)


class Basic(nn.Module):
    """Two 3x3 convolutions and a shortcut (He et al. 2015, figure 5 left)."""

    def __init__(self, spec: ResNetSpec, inputs: int, inner: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = conv(spec, inputs, inner, 3, stride)
        self.bn1 = nn.BatchNorm2d(inner)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = conv(spec, inner, outputs, 3)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.downsample = shortcut(spec, inputs, outputs, stride)

    def forward(self, x: Tensor) -> Tensor:
        """(N, inputs, H, W) to (N, outputs, H/stride, W/stride)."""
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        return self.relu(out + (x if self.downsample is None else self.downsample(x)))  # type: ignore[no-any-return]


class Bottleneck(nn.Module):
    """1x1, grouped 3x3, 1x1 and a shortcut (He et al. 2015, figure 5 right; Xie et al. 2016, figure 3c)."""

    def __init__(self, spec: ResNetSpec, inputs: int, inner: int, outputs: int, stride: int) -> None:
        super().__init__()
        first, second = (stride, 1) if spec.stride_in == "1x1" else (1, stride)
        self.conv1 = conv(spec, inputs, inner, 1, first)
        self.bn1 = nn.BatchNorm2d(inner)
        self.conv2 = conv(spec, inner, inner, 3, second, spec.groups)
        self.bn2 = nn.BatchNorm2d(inner)
        self.conv3 = conv(spec, inner, outputs, 1)
        self.bn3 = nn.BatchNorm2d(outputs)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = shortcut(spec, inputs, outputs, stride)

    def forward(self, x: Tensor) -> Tensor:
        """(N, inputs, H, W) to (N, outputs, H/stride, W/stride)."""
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.relu(self.bn2(self.conv2(out)))
        out = self.bn3(self.conv3(out))
        return self.relu(out + (x if self.downsample is None else self.downsample(x)))  # type: ignore[no-any-return]


BLOCKS = {"basic": Basic, "bottleneck": Bottleneck}


def shortcut(spec: ResNetSpec, inputs: int, outputs: int, stride: int) -> nn.Sequential | None:
    """A projection where the block changes shape, nothing where it does not."""
    if stride == 1 and inputs == outputs:
        return None
    norm = [nn.BatchNorm2d(outputs)] if spec.shortcut_norm else []
    if not spec.shortcut_pool:
        return nn.Sequential(conv(spec, inputs, outputs, 1, stride), *norm)
    # As timm has it, whose names these are: at odd size the last pixels are averaged too, and nothing else with them.
    pool = nn.AvgPool2d(stride, stride, ceil_mode=True, count_include_pad=False) if stride > 1 else nn.Identity()
    return nn.Sequential(pool, conv(spec, inputs, outputs, 1), *norm)


def stem(spec: ResNetSpec, channels: int) -> nn.Module:
    """The first convolution, or the three of ResNet-D, under timm's names."""
    width = spec.widths[0]
    if spec.stem == "plain":
        return conv(spec, channels, width, spec.first_kernel_size, spec.first_stride)
    layers: list[nn.Module] = []
    for inputs, stride in ((channels, spec.first_stride), (width // 2, 1)):
        layers += [conv(spec, inputs, width // 2, 3, stride), nn.BatchNorm2d(width // 2), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers, conv(spec, width // 2, width, 3))


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
        self.conv1 = stem(spec, channels)
        self.bn1 = nn.BatchNorm2d(spec.widths[0])
        self.relu = nn.ReLU(inplace=True) if spec.stem_activation else nn.Identity()
        pool = SameMaxPool2d if spec.padding == "same" else partial(nn.MaxPool2d, 3, 2, padding=1)
        self.maxpool = pool() if spec.max_pool else nn.Identity()
        self.stages = [f"layer{number}" for number in range(1, len(spec.depths) + 1)]
        inputs = spec.widths[0]
        for name, depth, inner, outputs, first in zip(
            self.stages, spec.depths, spec.inner, spec.outputs, spec.first_strides, strict=True
        ):
            blocks = []
            for stride in (first, *(1,) * (depth - 1)):
                blocks.append(BLOCKS[spec.block](spec, inputs, inner, outputs, stride))
                inputs = outputs
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
