"""What a build kept of its answers, in one file beside its report."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

FILE = "answers.safetensors"


@dataclass(frozen=True)
class SavedAnswers:
    """The answers to the N images that judged a build.

    ``labels`` (N,) are what is right, ``reference`` (N, classes) float32 the logits of the PyTorch network. By the name
    of each judged stage, ``top1`` (N,) are its answers, and ``sqnr_db`` (N,) float32 is the SQNR of each image against
    the PyTorch network, infinity where its logits are the same.
    """

    labels: NDArray[np.int64]
    reference: NDArray[np.float32]
    top1: dict[str, NDArray[Any]]
    sqnr_db: dict[str, NDArray[Any]]

    def reference_is_right(self) -> NDArray[np.bool_]:
        """Whether the PyTorch network answers each image rightly, (N,)."""
        return np.asarray(self.reference.argmax(1) == self.labels)


def read(path: Path) -> SavedAnswers:
    """The answers in the file ``path``; raises OSError or ValueError where it cannot be read, or is no such file."""
    import safetensors
    import safetensors.numpy

    try:
        tensors = safetensors.numpy.load_file(path)
    except safetensors.SafetensorError as error:
        raise ValueError(str(error)) from error

    # Whoever reads them counts on one row for each image.
    for name in ("labels", "reference"):
        if name not in tensors:
            raise ValueError(f"it lacks {name}")
    labels = tensors["labels"]
    for name, values in tensors.items():
        dimensions = 2 if name == "reference" else 1
        if values.ndim != dimensions or len(values) != len(labels):
            raise ValueError(f"{name} has the shape {values.shape}")
    return SavedAnswers(labels, tensors["reference"], _by_stage(tensors, "top1."), _by_stage(tensors, "sqnr_db."))


def _by_stage(tensors: dict[str, NDArray[Any]], prefix: str) -> dict[str, NDArray[Any]]:
    return {name.removeprefix(prefix): values for name, values in tensors.items() if name.startswith(prefix)}
