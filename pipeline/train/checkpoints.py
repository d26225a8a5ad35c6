"""The directory of a training: its checkpoint, its history, and the best weights so far."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pipeline import workspace
from pipeline.train import resume

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from pipeline.models.frozen import NetworkDescription
    from pipeline.train.distributed import Team
    from pipeline.train.learner import Learner
    from pipeline.train.resume import Progress


@dataclass
class Keeper:
    """Writes into ``output``, in the first process of the ``team`` alone (only it has a folder ``unfinished``)."""

    output: Path
    unfinished: Path | None
    description: NetworkDescription
    asked: Mapping[str, Any]
    seconds: float
    team: Team
    saved: float = field(default_factory=time.monotonic)

    def load(self, learner: Learner) -> Progress:
        """Where a killed run was; raises BadRequest where processes disagree on it."""
        progress = resume.load(self.output, learner, self.asked)
        self.team.agree([progress.step], f"-o {self.output} is not the same for all processes; give a shared directory")
        return progress

    def save(self, learner: Learner, progress: Progress) -> None:
        """A checkpoint within an epoch, once ``seconds`` have passed since the last one."""
        if time.monotonic() - self.saved >= self.seconds:
            self._write(learner, progress)

    def keep(self, learner: Learner, progress: Progress) -> None:
        """The end of an epoch: its weights where they are the best, then the checkpoint that knows of them."""
        from pipeline.models import frozen

        if self.unfinished is not None and progress.history[-1]["best"]:
            # A network of its own: float32 on the CPU, whatever trains.
            network = self.description.network()
            network.load_state_dict(learner.average.state_dict())
            frozen.write(network, self.description, self.unfinished / resume.BEST)
            workspace.place(self.unfinished / resume.BEST, self.output / resume.BEST)
        self._write(learner, progress)

    def _write(self, learner: Learner, progress: Progress) -> None:
        if self.unfinished is not None:
            resume.save(self.output, self.unfinished, learner, progress, self.asked)
        self.saved = time.monotonic()
