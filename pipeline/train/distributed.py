"""The processes that train together, as torchrun starts them; one alone where nobody started several."""

from __future__ import annotations

import os
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipeline.console import news
from pipeline.errors import BadRequest

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from torch import Tensor


@dataclass(frozen=True)
class Team:
    """Process ``rank`` of ``count``; the first one writes and speaks."""

    rank: int = 0
    count: int = 1

    @property
    def first(self) -> bool:
        """Whether this process writes and speaks."""
        return self.rank == 0

    def sum(self, values: Tensor) -> Tensor:
        """``values`` summed over all processes, in place."""
        if self.count > 1:
            import torch.distributed

            torch.distributed.all_reduce(values)
        return values

    def wait(self) -> None:
        """Go on once every process is here."""
        if self.count > 1:
            import torch

            # A sum needs the numbers of all processes, so none gets past it before the last one came.
            self.sum(torch.zeros(1))

    def agree(self, numbers: Sequence[int], sentence: str) -> None:
        """Raise BadRequest with ``sentence`` where the processes do not hold the same ``numbers``."""
        import torch

        own = torch.tensor(list(numbers), dtype=torch.float64)
        # Each value and its square: the variance over the processes is 0 only where all are the same.
        total, total_of_squares = self.sum(torch.stack([own, own * own]))
        same_mean = torch.equal(total, own * self.count)
        same_squares = torch.equal(total_of_squares, own * own * self.count)
        if not same_mean or not same_squares:
            raise BadRequest(sentence)


@contextmanager
def joined(device: str) -> Iterator[Team]:
    """The team that this process belongs to, by the variables of torchrun; ``device`` is cpu or cuda."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield Team()
        return

    import torch

    # The team also sums numbers that lie on the CPU, which NCCL cannot do.
    backend = "gloo"
    if device == "cuda":
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
        backend = "cpu:gloo,cuda:nccl"
    torch.distributed.init_process_group(backend)

    team = Team(torch.distributed.get_rank(), torch.distributed.get_world_size())
    if not team.first:
        news.level = "error"
    try:
        yield team
    finally:
        torch.distributed.destroy_process_group()
