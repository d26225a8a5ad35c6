"""The images of every step, a function of seed and step alone: order and augmentation need no state to resume."""

from __future__ import annotations

from collections import deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator
    from concurrent.futures import Future

    from numpy.typing import NDArray

    from pipeline.data.images import Images
    from pipeline.train.knobs import Training

# What random numbers are for: the order of an epoch, or what happens to the images of a shard.
ORDER = 0
SHARD = 1


@dataclass(frozen=True)
class Shard:
    """Part of a batch: ``pixels`` (n, C, H, W) float32 0..255, of which ``share`` shows ``labels`` (n,) and the rest
    ``others``; ``seed`` is for what the network itself draws.
    """  # noqa: D205

    pixels: NDArray[np.float32]
    labels: NDArray[np.int64]
    others: NDArray[np.int64]
    share: float
    seed: int


@dataclass(frozen=True)
class Feed:
    """The batches of a training, each in ``shards`` parts of ``size`` images; the rest of an epoch is left out."""

    images: Images
    training: Training
    shards: int

    @property
    def size(self) -> int:
        """Images per shard; 0 where there are fewer images than shards."""
        return min(self.training.batch, len(self.images)) // self.shards

    @property
    def steps(self) -> int:
        """Steps of an epoch."""
        return len(self.images) // (self.size * self.shards)

    def shard(self, step: int, number: int) -> Shard:
        """Shard ``number`` of ``step``, both counted from 0 over the whole training."""
        epoch, place = divmod(step, self.steps)
        order = _order(self.training.seed, epoch, len(self.images))
        start = (place * self.shards + number) * self.size
        chosen = order[start : start + self.size]
        pixels = self.images.select(chosen)
        labels = self.images.labels[chosen]

        # Each augmentation draws from the same generator, so their order decides the pixels: a changed order is
        # another training.
        rng = _generator(self.training.seed, SHARD, step, number)
        pixels = shifted(pixels, self.training.shift, rng)
        if self.training.flip == "yes":
            pixels = flipped(pixels, rng)
        share = 1.0
        partner = np.arange(len(labels))
        if self.training.mixup:
            share = rng.beta(self.training.mixup, self.training.mixup)
            partner = rng.permutation(len(labels))
            pixels = mixed(pixels, pixels[partner], share)
        network_seed = int(rng.integers(2**63))

        return Shard(pixels, labels, labels[partner], share, network_seed)

    def ahead(self, start: int, end: int, numbers: range) -> Iterator[list[Shard]]:
        """The shards ``numbers`` of each step from ``start`` to before ``end``, prepared by threads ahead of time."""
        self.images.select(np.arange(1))  # fills the cache once, before the threads
        # The steps that are being prepared, in their order. There are never more of them than threads plus one, so
        # that memory does not grow where the network is slower than the threads.
        waiting: deque[list[Future[Shard]]] = deque()
        with ThreadPoolExecutor(self.training.workers) as pool:
            for step in range(start, end):
                waiting.append([pool.submit(self.shard, step, number) for number in numbers])
                if len(waiting) > self.training.workers:
                    yield _results(waiting.popleft())
            while waiting:
                yield _results(waiting.popleft())


def _results(futures: list[Future[Shard]]) -> list[Shard]:
    return [future.result() for future in futures]


def shifted(pixels: NDArray[np.float32], share: float, rng: np.random.Generator) -> NDArray[np.float32]:
    """Each image moved by up to ``share`` of its size along both axes, black moving in."""
    count, _, height, width = pixels.shape
    down = int(height * share)
    across = int(width * share)
    # Every move is a window of the padded image; the windows are views, and only the chosen ones are copied.
    padded = np.pad(pixels, ((0, 0), (0, 0), (down, down), (across, across)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (height, width), (2, 3))
    top = rng.integers(2 * down + 1, size=count)
    left = rng.integers(2 * across + 1, size=count)
    return np.ascontiguousarray(windows[np.arange(count), :, top, left])


def flipped(pixels: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
    """Half of the images, by chance, mirrored left to right."""
    is_mirrored = rng.random(len(pixels)) < 0.5
    return np.where(is_mirrored[:, None, None, None], pixels[..., ::-1], pixels)


def mixed(one: NDArray[np.float32], other: NDArray[np.float32], share: float) -> NDArray[np.float32]:
    """``share`` of ``one`` and the rest of ``other`` (Zhang et al. 2017, arXiv 1710.09412, section 2)."""
    return np.float32(share) * one + np.float32(1 - share) * other


def _generator(seed: int, *place: int) -> np.random.Generator:
    """Random numbers that belong to this place alone (Philox: Salmon et al. 2011, counter-based)."""
    return np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, *place])))


# All shards of an epoch, and all threads, ask for the same order.
@lru_cache(maxsize=2)
def _order(seed: int, epoch: int, count: int) -> NDArray[np.int64]:
    return _generator(seed, ORDER, epoch).permutation(count)
