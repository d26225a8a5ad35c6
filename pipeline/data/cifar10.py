"""CIFAR-10 (Krizhevsky 2009), the binary version: 50 000 + 10 000 colour images of 32x32."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from pipeline.data.dataset import Dataset
from pipeline.data.part import Part, part_of
from pipeline.data.preprocessing import Preprocessing
from pipeline.errors import BadRequest

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

PAGE = "https://www.cs.toronto.edu/~kriz/cifar.html"
CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
TRAIN = tuple(f"data_batch_{number}.bin" for number in range(1, 6))
# A label, then the red, green and blue plane of 32x32 (the page of the data set, "Binary version").
RECORD = 1 + 3 * 32 * 32
MOST_BYTES = 64 * 2**20  # five times a file of the data set


def read(root: Path | None) -> Dataset:
    """The six files of the binary version in ``root``; raises BadRequest where one is missing or no such file."""
    if root is None:
        raise BadRequest(
            f"--data cifar10 is not fetched here: unpack the binary version of {PAGE} and give the folder of its .bin "
            "files with --data-root"
        )
    train = _part(root, TRAIN)
    test = _part(root, ("test_batch.bin",))
    return Dataset(
        source=f"CIFAR-10 from {root} ({len(train)} training and {len(test)} test images of 32x32)",
        classes=CLASSES,
        train=train,
        calibration=train,
        test=test,
        # Mean and deviation of the training pixels.
        preprocessing=Preprocessing(32, 32, "bilinear", 3, (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
        epochs=10,
        mirrored=True,
    )


def _part(root: Path, names: tuple[str, ...]) -> Part:
    records = np.concatenate([_records(root, name) for name in names])
    images = records[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)  # channels last, as Pillow takes them
    return part_of(np.ascontiguousarray(images), records[:, 0].astype(np.int64), f"CIFAR-10 {names[0]}")


def _records(root: Path, name: str) -> NDArray[np.uint8]:
    path = root / name
    if not path.is_file():
        raise BadRequest(f"--data cifar10: {root} has no {name}; point --data-root to the six .bin files of {PAGE}")
    size = path.stat().st_size
    if not size or size % RECORD or size > MOST_BYTES:
        raise BadRequest(f"{path} has {size} bytes, which are no whole records of {RECORD}; fetch it anew from {PAGE}")
    records = np.fromfile(path, np.uint8).reshape(-1, RECORD)
    largest_label = int(records[:, 0].max())
    if largest_label >= len(CLASSES):
        raise BadRequest(f"{path} holds the label {largest_label}, and CIFAR-10 has 0 to 9; fetch it anew from {PAGE}")
    return records
