"""A head that names the photograph that a crop comes from: labels where the photographs have none, and a hard question.

It is trained on what the last layer of the real network reads, from one strip of each photograph; calibration and test
have other strips, so that nothing is answered by memory.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from benchmarks.real import conversion, photos

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from benchmarks.real.networks import Network

    Floats = NDArray[np.float32]

TRAINING, CALIBRATION, TEST = (0, 0.5), (0.5, 0.75), (0.75, 1)
CROPS_OF_EACH = 24


def trained(network: Network, weights: Path, files: Sequence[Path], dst: Path) -> Path:
    """The weights with a head of ``len(files)`` classes in place of the network's own, where they are not there."""
    from safetensors.numpy import load_file, save_file
    from sklearn.linear_model import LogisticRegression

    if dst.exists():
        return dst
    held = load_file(weights)
    images = photos.crops(files, CROPS_OF_EACH * len(files), network.size, 2, TRAINING)
    labels = np.arange(len(images)) % len(files)
    read = conversion.answers(network, conversion.loaded(network, held), images, features=True)
    # One factor for all channels: the head sees them in the proportions that the network gives them.
    mean, scale = read.mean(0), float(np.sqrt(read.var(0).mean()))
    found = LogisticRegression(max_iter=200).fit((read - mean) / scale, labels)
    # safetensors writes the memory of an array in whatever order it lies there.
    kernel = np.ascontiguousarray(found.coef_ / scale)
    held["fc.weight"] = kernel.astype(np.float32)
    held["fc.bias"] = (found.intercept_ - kernel @ mean).astype(np.float32)
    save_file(held, dst)
    return dst
