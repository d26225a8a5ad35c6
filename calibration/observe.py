"""From a graph and images to the statistics of each tensor.

It takes one pass, and memory that does not grow with the number of images.
"""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

import onnx
import onnx_ir as ir

from calibration.histogram import Histogram
from exporters import dependence, element_types, onnx_file, reference

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from concurrent.futures import Future

    import numpy as np
    from numpy.typing import NDArray
    from onnxruntime import InferenceSession

# Convolutions with their ReLU and in the processor's layout: the values of the same tensors, to float rounding.
# Batches and their order change no bit of them; tests/pipeline/building/test_calibration_statistics.py proves it on a
# real network.
LEVEL = "ORT_ENABLE_ALL"


class Statistic(Protocol):
    """What is kept of a tensor."""

    def add(self, values: NDArray[np.float32]) -> None:
        """Take in all values of a batch."""


Kind = TypeVar("Kind", bound=Statistic)


class Observer(Generic[Kind]):
    """Runs the ONNX file ``src`` and keeps a statistic of each of ``tensors``.

    ``kind`` makes an empty statistic. ``seen`` maps each tensor to its statistic over all images taken so far.
    """

    def __init__(self, src: Path, tensors: Sequence[str], kind: Callable[[], Kind], level: str = LEVEL) -> None:
        self.src = src
        self.seen = {name: kind() for name in tensors}
        self._session = _session_with_outputs(src, tensors, level)
        pixels = self._session.get_inputs()[0]
        self._input = pixels.name
        self._pixel_type = "uint8" if pixels.type == "tensor(uint8)" else "float32"

    def take(self, batches: Iterable[NDArray[np.float32]]) -> None:
        """Observe ``batches`` of images (N, C, H, W) 0..255; each is computed while the one before is counted.

        Raises ValueError naming the tensor that holds NaN or infinity.
        """
        names = list(self.seen)
        with ThreadPoolExecutor(1) as runner:
            previous: Future[Any] | None = None
            for images in batches:
                pixels = images.astype(self._pixel_type, copy=False)
                # Submitted before the batch before is counted, so that the two overlap.
                current = runner.submit(self._session.run, names, {self._input: pixels})
                if previous is not None:
                    self._count(previous.result())
                previous = current
            if previous is not None:
                self._count(previous.result())

    def _count(self, outputs: list[NDArray[np.float32]]) -> None:
        """Give each statistic its tensor of one batch; ``outputs`` are in the order of ``seen``."""
        # The first are the largest: popped as they are counted, their memory goes to the next batch soonest.
        outputs.reverse()
        for name, statistic in self.seen.items():
            values = outputs.pop()
            try:
                statistic.add(values)
            except ValueError as error:
                raise ValueError(f"{error} in the activations {name} of {self.src.name}") from error


def observe(
    src: Path, tensors: Sequence[str], batches: Iterable[NDArray[np.float32]], level: str = LEVEL
) -> dict[str, Histogram]:
    """The histogram of each of ``tensors`` of the ONNX file ``src`` over ``batches`` of images (N, C, H, W) 0..255.

    Raises ValueError naming the tensor that holds NaN or infinity.
    """
    observer = Observer(src, tensors, Histogram, level)
    observer.take(batches)
    return observer.seen


def fingerprint(src: Path) -> str:
    """SHA-256 over graph and weights of ``src``; who made the file and when is in its metadata, and left out."""
    model = onnx.load(src, load_external_data=False)
    return hashlib.sha256(model.graph.SerializeToString(deterministic=True)).hexdigest()


def activations(src: Path) -> list[str]:
    """The names of all float32 tensors that the nodes of ``src`` compute from images or their shapes."""
    model = onnx_file.read(src)
    element_types.infer(model)
    computed = dependence.dependent(model.graph, model.graph.inputs, dependence.SHAPES)
    names: list[str] = []
    for node in model.graph:
        floats = [value for value in node.outputs if value.dtype == ir.DataType.FLOAT and value in computed]
        names += [str(value.name) for value in floats]
    return names


def _session_with_outputs(src: Path, tensors: Sequence[str], level: str) -> InferenceSession:
    """``src`` in ONNX Runtime, with each of ``tensors`` as an output."""
    present = {str(value.name) for value in onnx_file.read(src).graph.outputs}
    reference.trim()
    extra = onnx.ModelProto()
    extra.graph.output.extend(onnx.ValueInfoProto(name=name) for name in tensors if name not in present)

    # Two protocol buffers one behind the other are their merger: outputs are appended, and no weight passes through
    # this process's memory (a ResNeXt-50 otherwise peaks 200 MB higher).
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, src.name)
        shutil.copyfile(src, path)
        with path.open("ab") as file:
            file.write(extra.SerializeToString())
        session = reference.session(path, level, alone=True)
    reference.trim()  # what loading left behind: a quarter of the peak of a ResNeXt-50
    return session
