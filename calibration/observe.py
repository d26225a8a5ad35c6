"""Graph and images to one histogram per tensor, in one pass and in memory that does not grow with the images."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from exporters import onnx_file, reference

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from numpy.typing import NDArray
    from onnxruntime import InferenceSession

BINS = 4096


@dataclass
class Histogram:
    """How often each magnitude |x| was seen: ``counts[i]`` falls in [i, i+1) * limit / BINS.

    ``limit`` is a power of two and grows by doubling, when neighbouring bins merge exactly: so the order of the
    images and the size of the batches change nothing.
    """

    limit: float = 2.0**-20
    amax: float = 0.0
    counts: NDArray[np.int64] = field(default_factory=lambda: np.zeros(BINS, np.int64))

    def add(self, values: NDArray[np.float32]) -> None:
        """Count every element; raises ValueError on NaN or infinity."""
        magnitudes = np.abs(values).ravel()
        peak = float(magnitudes.max(initial=0.0))
        if not np.isfinite(peak):
            raise ValueError("NaN or infinite values")
        self.amax = max(self.amax, peak)
        while self.limit <= peak:
            self.counts = np.concatenate([self.counts.reshape(-1, 2).sum(1), np.zeros(BINS // 2, np.int64)])
            self.limit *= 2
        # limit is a power of two, so the product is exact and a value on an edge always falls into the same bin.
        index = (magnitudes * np.float32(BINS / self.limit)).astype(np.int32)
        self.counts += np.bincount(index, minlength=BINS)

    @property
    def centres(self) -> NDArray[np.float64]:
        """The middle of every bin, float64."""
        return (np.arange(BINS, dtype=np.float64) + 0.5) * np.float64(self.limit / BINS)


def observe(src: Path, tensors: Sequence[str], batches: Iterable[NDArray[np.float32]]) -> dict[str, Histogram]:
    """The histogram of each of ``tensors`` of the ONNX file ``src`` over ``batches`` of images (N, C, H, W) 0..255.

    Raises ValueError naming the tensor that holds NaN or infinity.
    """
    session = _session_with_outputs(src, tensors)
    histograms = {name: Histogram() for name in tensors}
    for images in batches:
        for name, values in zip(tensors, session.run(list(tensors), {"images": images}), strict=True):
            try:
                histograms[name].add(values)
            except ValueError as error:
                raise ValueError(f"{error} in the activations {name} of {src.name}") from error
    return histograms


def activations(src: Path) -> list[str]:
    """The names of all float tensors that the nodes of ``src`` compute."""
    return [str(out.name) for node in onnx_file.read(src).graph for out in node.outputs]


def _session_with_outputs(src: Path, tensors: Sequence[str]) -> InferenceSession:
    model = onnx_file.read(src)
    values = {str(value.name): value for node in model.graph for value in node.outputs}
    values |= {str(value.name): value for value in model.graph.inputs}
    present = {str(value.name) for value in model.graph.outputs}
    model.graph.outputs.extend(values[name] for name in tensors if name not in present)
    return reference.session(ir.to_proto(model).SerializeToString())
