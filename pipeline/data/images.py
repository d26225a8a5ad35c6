"""Images as the network sees them, and the batches that everything downstream eats."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from pipeline.data import seeing

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from pipeline.data.part import Part
    from pipeline.data.preprocessing import Preprocessing
    from pipeline.data.seeing import Seen

# Decoded images are kept, as bytes, when they fit in here; larger sets are decoded again for every pass.
CACHE_BYTES = 2**28
BATCH_BYTES = 2**24


class Images:
    """A part as the network sees it: ``batches()`` yields (n, C, H, W) float32 0..255.

    ``looked_at`` asks for the looks in ``seen``: of images that judge, which may be near copies.
    """

    def __init__(self, part: Part, preprocessing: Preprocessing, *, looked_at: bool = False) -> None:
        self.part = part
        self.looked_at = looked_at
        self.labels = part.labels
        self.preprocessing = preprocessing
        size = preprocessing.input_size
        self.shape = (preprocessing.channels, size, size)

    def __len__(self) -> int:
        """How many images."""
        return len(self.part)

    @property
    def batch_size(self) -> int:
        """As many images as keep the activations of a network within a few hundred megabytes."""
        image_bytes = 4 * int(np.prod(self.shape))
        return max(1, min(64, BATCH_BYTES // (4 * image_bytes)))

    @property
    def observed_batch_size(self) -> int:
        """How many images are computed at once where every activation is kept: one at 224 pixels.

        Their activations are in memory together with those of the batch before.
        """
        return max(1, self.batch_size // 24)

    def __getitem__(self, index: int) -> NDArray[np.float32]:
        """Image ``index`` as (C, H, W) float32 0..255; raises BadRequest naming an image that cannot be read."""
        image = self.part.decode(index)
        if isinstance(image, np.ndarray):
            return self.preprocessing.float_pixels(image, self.part.name(index))
        return self.preprocessing.pixels(image, self.part.name(index))

    @cached_property
    def seen(self) -> Seen:
        """What one pass over all images sees; it also finds the images that cannot be read."""
        return seeing.all_of(self.part, self.preprocessing, looked_at=self.looked_at)

    @cached_property
    def _kept(self) -> NDArray[np.uint8] | None:
        """All images as bytes; None where they do not fit, or where some pixel is no byte."""
        if len(self) * int(np.prod(self.shape)) > CACHE_BYTES:
            return None
        kept = np.empty((len(self), *self.shape), np.uint8)
        for index in range(len(self)):
            image = self[index]
            with np.errstate(invalid="ignore"):  # a cast that overflows is found by the comparison
                kept[index] = image
            if not np.array_equal(kept[index], image):  # an array's pixels may be between or beyond bytes
                return None
        return kept

    def batches(self, size: int | None = None) -> Iterator[NDArray[np.float32]]:
        """All images in order, ``size`` at a time; the last batch may be smaller."""
        step = size or self.batch_size
        for start in range(0, len(self), step):
            end = min(start + step, len(self))
            yield self.select(np.arange(start, end))

    def select(self, chosen: NDArray[np.int64]) -> NDArray[np.float32]:
        """The images of these indices as one batch."""
        if self._kept is not None:
            return self._kept[chosen].astype(np.float32)
        return np.stack([self[index] for index in chosen])

    @property
    def digest(self) -> str:
        """SHA-256 over every pixel and label."""
        return self.seen.digest

    @cached_property
    def distinct(self) -> NDArray[np.bool_]:
        """(N,), False where an earlier image has the same pixels."""
        _, firsts = np.unique(self.seen.pixels, return_index=True)
        distinct = np.zeros(len(self), np.bool_)
        distinct[firsts] = True
        return distinct
