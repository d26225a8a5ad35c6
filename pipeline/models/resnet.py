"""One residual network for every spec, with torchvision's parameter names and its normalisation inside.

Layers draw their first weights as they are made: who changes the order of two of them changes what a seed trains.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from pipeline.models.same_padding import SameConv2d, SameMaxPool2d

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pipeline.models.resnet_spec import ResNetSpec


def conv(spec: ResNetSpec, inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Conv2d:
    """A convolution whose output is as large as its input over ``stride``."""
    if spec.padding == "same":
        return SameConv2d(inputs, outputs, kernel, stride, groups=groups, bias=spec.bias)
    return nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, groups=groups, bias=spec.bias)


def norm(spec: ResNetSpec, channels: int) -> nn.Module:
    """A BatchNorm; where they were folded an Identity, so that all other layers keep their names."""
    return nn.BatchNorm2d(channels) if spec.norm else nn.Identity()


class Basic(nn.Module):
    """Two 3x3 convolutions and a shortcut (He et al. 2015, figure 5 left)."""

    def __init__(self, spec: ResNetSpec, inputs: int, inner: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = conv(spec, inputs, inner, 3, stride)
        self.bn1 = norm(spec, inner)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = conv(spec, inner, outputs, 3)
        self.bn2 = norm(spec, outputs)
        self.downsample = shortcut(spec, inputs, outputs, stride)

    def forward(self, x: Tensor) -> Tensor:
        """(N, inputs, H, W) to (N, outputs, H/stride, W/stride)."""
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        residual = x if self.downsample is None else self.downsample(x)
        return self.relu(out + residual)  # type: ignore[no-any-return]


class Bottleneck(nn.Module):
    """1x1, grouped 3x3, 1x1 and a shortcut (He et al. 2015, figure 5 right; Xie et al. 2016, figure 3c)."""

    def __init__(self, spec: ResNetSpec, inputs: int, inner: int, outputs: int, stride: int) -> None:
        super().__init__()
        # In the 3x3, as torchvision does, which reads every pixel, or in the 1x1 of the first paper, which skips some.
        stride_in_1x1 = spec.stride_in == "1x1"
        self.conv1 = conv(spec, inputs, inner, 1, stride if stride_in_1x1 else 1)
        self.bn1 = norm(spec, inner)
        self.conv2 = conv(spec, inner, inner, 3, 1 if stride_in_1x1 else stride, spec.groups)
        self.bn2 = norm(spec, inner)
        self.conv3 = conv(spec, inner, outputs, 1)
        self.bn3 = norm(spec, outputs)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = shortcut(spec, inputs, outputs, stride)

    def forward(self, x: Tensor) -> Tensor:
        """(N, inputs, H, W) to (N, outputs, H/stride, W/stride)."""
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.relu(self.bn2(self.conv2(out)))
        out = self.bn3(self.conv3(out))
        residual = x if self.downsample is None else self.downsample(x)
        return self.relu(out + residual)  # type: ignore[no-any-return]


BLOCKS = {"basic": Basic, "bottleneck": Bottleneck}


def shortcut(spec: ResNetSpec, inputs: int, outputs: int, stride: int) -> nn.Sequential | None:
    """A projection where the block changes shape, nothing where it does not."""
    if stride == 1 and inputs == outputs:
        return None
    layers: list[nn.Module] = []
    if spec.shortcut_pool:
        layers.append(_shortcut_pool(stride))
        stride = 1  # the pool has done it
    layers.append(conv(spec, inputs, outputs, 1, stride))
    if spec.norm and spec.shortcut_norm:
        layers.append(nn.BatchNorm2d(outputs))
    return nn.Sequential(*layers)


def _shortcut_pool(stride: int) -> nn.Module:
    """The averaging of ResNet-D; where nothing is averaged an Identity, so that the layers behind keep their numbers.

    As timm has it, whose names these are: at odd size the last pixels are averaged too, and nothing else with them.
    """
    if stride == 1:
        return nn.Identity()
    return nn.AvgPool2d(stride, stride, ceil_mode=True, count_include_pad=False)


def stem(spec: ResNetSpec, channels: int) -> nn.Module:
    """The first convolution, or the three of ResNet-D, under timm's names."""
    width = spec.stem_outputs
    if spec.stem == "plain":
        return conv(spec, channels, width, spec.first_kernel_size, spec.first_stride)
    half = width // 2
    # The BatchNorm and the ReLU behind the third convolution are those of the network, bn1 and relu.
    return nn.Sequential(
        conv(spec, channels, half, 3, spec.first_stride),
        norm(spec, half),
        nn.ReLU(inplace=True),
        conv(spec, half, half, 3),
        norm(spec, half),
        nn.ReLU(inplace=True),
        conv(spec, half, width, 3),
    )


def stem_pool(spec: ResNetSpec) -> nn.Module:
    """The pooling behind the stem, 3x3 at stride 2; networks for small images have none."""
    if not spec.max_pool:
        return nn.Identity()
    if spec.pool_padding == "end":
        # Rounded up, the last window hangs over the end by the one pixel that is missing.
        return nn.MaxPool2d(3, 2, ceil_mode=True)
    if spec.padding == "same":
        return SameMaxPool2d()
    return nn.MaxPool2d(3, 2, padding=1)


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
        self.bn1 = norm(spec, spec.stem_outputs)
        self.relu = nn.ReLU(inplace=True) if spec.stem_activation else nn.Identity()
        self.maxpool = stem_pool(spec)
        self.stages = [f"layer{number}" for number in range(1, len(spec.depths) + 1)]
        self._add_stages(spec)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(spec.outputs[-1], classes)
        self._initialise()

    def _add_stages(self, spec: ResNetSpec) -> None:
        inputs = spec.stem_outputs
        for name, depth, inner, outputs, first_stride in zip(
            self.stages, spec.depths, spec.inner, spec.outputs, spec.first_strides, strict=True
        ):
            # Only the first block of a stage changes shape.
            blocks: list[nn.Module] = []
            for stride in (first_stride, *(1,) * (depth - 1)):
                blocks.append(BLOCKS[spec.block](spec, inputs, inner, outputs, stride))
                inputs = outputs
            self.add_module(name, nn.Sequential(*blocks))

    def _initialise(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            # The last layer of a block starts at zero, so that every block starts as the identity
            # (Goyal et al. 2017, arXiv 1706.02677, section 5.1); few epochs then suffice.
            if isinstance(module, Basic):
                _start_at_zero(module.conv2, module.bn2)
            if isinstance(module, Bottleneck):
                _start_at_zero(module.conv3, module.bn3)

    def forward(self, images: Tensor) -> Tensor:
        """Pixels in, logits out."""
        x = (images - self.pixel_mean) / self.pixel_std
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        for name in self.stages:
            x = self.get_submodule(name)(x)
        return self.fc(torch.flatten(self.avgpool(x), 1))  # type: ignore[no-any-return]


def _start_at_zero(convolution: nn.Conv2d, normalisation: nn.Module) -> None:
    """The BatchNorm where there is one, else the convolution before it."""
    last = normalisation if isinstance(normalisation, nn.BatchNorm2d) else convolution
    nn.init.zeros_(last.weight)
