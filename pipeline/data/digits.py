"""The handwritten digits that scikit-learn carries in its wheel: 1797 real images of 8x8, no download."""

from __future__ import annotations

import numpy as np

from pipeline.data.dataset import Dataset
from pipeline.data.part import part_of, spread
from pipeline.data.preprocessing import Preprocessing

TEST = 900
CALIBRATION = 100


def read() -> Dataset:
    """797 training, 100 calibration and 900 test images, split by class with a fixed seed; they share none."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    # Its pixels are counts of 0..16.
    images = np.rint(digits.images * (255 / 16)).astype(np.uint8)
    whole = part_of(images, digits.target.astype(np.int64), "digits")
    # Chosen one after the other out of what is left, so that no image is in two parts.
    test = spread(whole.labels, TEST, seed=0)
    rest = np.setdiff1d(np.arange(len(whole)), test)
    calibration = rest[spread(whole.labels[rest], CALIBRATION, seed=0)]
    train = np.setdiff1d(rest, calibration)
    return Dataset(
        source="handwritten digits of scikit-learn (UCI, 1797 real images of 8x8, shown at 32x32)",
        classes=tuple("0123456789"),
        train=whole.take(train),
        calibration=whole.take(calibration),
        test=whole.take(test),
        # Mean and deviation of the training pixels.
        preprocessing=Preprocessing(32, 32, "bilinear", 1, (0.305,), (0.376,)),
        epochs=16,
    )
