"""What the file in each wheel answers by itself, which a conversion must match.

Images are (N, 3, S, S) float32 RGB 0..255. The files are asked for their logits or descriptors, before any softmax,
which hides differences.
"""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx

from benchmarks.peers import environments

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float32]

DESCRIPTOR = Path(__file__).parent / "dlib_descriptor.py"
# What the packages themselves take off, in the order of their channels.
CAFFE_MEAN_BGR = (104, 117, 123)
DLIB_MEAN_RGB = (122.781998, 117.000999, 104.297997)


def open_nsfw(file: Path, images: Floats, _: Path) -> Floats:
    """The file reads (N, 224, 224, 3), BGR."""
    pixels = images.transpose(0, 2, 3, 1)[:, :, :, ::-1] - np.array(CAFFE_MEAN_BGR, np.float32)
    return _before_softmax(file, pixels)


def dlib_age(file: Path, images: Floats, _: Path) -> Floats:
    """The file reads (N, 3, 64, 64), RGB."""
    mean = np.array(DLIB_MEAN_RGB, np.float32).reshape(1, 3, 1, 1)
    return _before_softmax(file, (images - mean) / np.float32(256))


def dlib_face(file: Path, images: Floats, work: Path) -> Floats:
    """The file is dlib's, and read by dlib itself, in an environment of its own."""
    interpreter = environments.python("dlib", work)
    with tempfile.TemporaryDirectory() as folder:
        asked, answered = Path(folder, "images.npy"), Path(folder, "descriptors.npy")
        np.save(asked, images.transpose(0, 2, 3, 1).astype(np.uint8))
        subprocess.run([interpreter, DESCRIPTOR, file, asked, answered], check=True)
        return np.asarray(np.load(answered), np.float32)


def _before_softmax(file: Path, pixels: Floats) -> Floats:
    import onnxruntime

    model = onnx.load(file)
    (softmax,) = (node for node in model.graph.node if node.op_type == "Softmax")
    model.graph.output.append(onnx.helper.make_tensor_value_info(softmax.input[0], onnx.TensorProto.FLOAT, None))
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (logits,) = session.run([softmax.input[0]], {session.get_inputs()[0].name: np.ascontiguousarray(pixels)})
    return np.asarray(logits)
