"""Tensors for a file that does not say how it wants its images: fed as they are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from pipeline.data.images import BATCH_BYTES
from pipeline.errors import BadRequest

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray


class Pixels(Protocol):
    """Anything that images come from, in batches (n, C, H, W) float32: Images of a data set, or Arrays."""

    @property
    def batch_size(self) -> int:
        """How many images at a time."""

    def __len__(self) -> int:
        """How many images."""

    def __getitem__(self, index: int) -> NDArray[np.float32]:
        """One image (C, H, W)."""

    def batches(self, size: int | None = None) -> Iterator[NDArray[np.float32]]:
        """All images in order, ``size`` at a time."""


class Arrays:
    """At most ``count`` of the tensors in the .npy or .npz file at ``path``, spread over it.

    ``shape`` is that of one as the file takes it, with None for what may be any. Raises BadRequest where they have
    another, or hold no numbers.
    """

    def __init__(self, path: Path, shape: Sequence[int | None], count: int) -> None:
        array = _read(path)
        expected = ["N", *("any" if length is None else length for length in shape)]
        fits = array.ndim == len(expected) and len(array) > 0 and array.dtype.kind in "uif"
        if not fits or not all(want in (None, got) for want, got in zip(shape, array.shape[1:], strict=True)):
            wanted = ", ".join(str(length) for length in expected)
            raise BadRequest(f"--images {path} holds {array.dtype} {array.shape}, and the file takes ({wanted})")
        chosen = np.linspace(0, len(array) - 1, min(count, len(array))).astype(np.int64)
        self._array = array[chosen].astype(np.float32)
        if not np.isfinite(self._array).all():
            raise BadRequest(f"--images {path} holds NaN or infinity; remove those tensors")

    def __len__(self) -> int:
        """How many tensors."""
        return len(self._array)

    def __getitem__(self, index: int) -> NDArray[np.float32]:
        """One tensor, as it stands in the file."""
        tensor: NDArray[np.float32] = self._array[index]
        return tensor

    @property
    def batch_size(self) -> int:
        """As many as keep the activations of a network within a few hundred megabytes."""
        return max(1, min(64, BATCH_BYTES // (4 * int(self._array[0].nbytes))))

    def batches(self, size: int | None = None) -> Iterator[NDArray[np.float32]]:
        """All tensors in order, ``size`` at a time; the last batch may be smaller."""
        step = size or self.batch_size
        for start in range(0, len(self), step):
            yield self._array[start : start + step]


def _read(path: Path) -> NDArray[np.generic]:
    """The array in ``path``: of several the one that is called images."""
    if not path.is_file() or path.suffix not in {".npy", ".npz"}:
        raise BadRequest(
            f"--images {path}: the earlier file does not say how it wants its images; give the tensors that it takes, "
            "in an .npy or .npz file"
        )
    try:
        loaded: Any = np.load(path, allow_pickle=False)
        if not isinstance(loaded, np.lib.npyio.NpzFile):
            return np.asarray(loaded)
        name = "images" if "images" in loaded.files else loaded.files[0]
        return np.asarray(loaded[name])
    except Exception as error:  # a damaged archive ends in any error there is
        raise BadRequest(f"--images {path} is no readable array of numbers ({error})") from error
