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
    """Writes into ``output``, in the first process of the ``team`` alone (only it has a folder ``unfinished``).

    ``settings`` is everything that decides the weights. Another run goes on from the checkpoint only where it has the
    same settings. ``save_seconds`` lie at least between two checkpoints within an epoch.
    """

    output: Path
    unfinished: Path | None
    description: NetworkDescription
    settings: Mapping[str, Any]
    save_seconds: float
    team: Team
    last_saved: float = field(default_factory=time.monotonic)

    def load(self, learner: Learner) -> Progress:
        """Where a killed run was; raises BadRequest where processes disagree on it."""
        progress = resume.load(self.output, learner, self.settings)
        self.team.agree([progress.step], f"-o {self.output} is not the same for all processes; give a shared directory")
        return progress

    def save(self, learner: Learner, progress: Progress) -> None:
        """A checkpoint within an epoch, once ``save_seconds`` have passed since the last one."""
        if time.monotonic() - self.last_saved >= self.save_seconds:
            self._write(learner, progress)

    def keep(self, learner: Learner, progress: Progress) -> None:
        """The end of an epoch: its weights where they are the best, then the checkpoint that knows of them."""
        # The weights come first. A run that is killed in between does the epoch again and writes the same weights;
        # the other way round the checkpoint would call weights the best that were never written.
        if self.unfinished is not None and progress.history[-1]["best"]:
            self._write_best(learner, self.unfinished / resume.BEST)
        self._write(learner, progress)

    def _write_best(self, learner: Learner, fresh: Path) -> None:
        from pipeline.models import frozen

        # A network of its own: float32 on the CPU, whatever trains.
        network = self.description.network()
        network.load_state_dict(learner.average.state_dict())
        frozen.write(network, self.description, fresh)
        workspace.place(fresh, self.output / resume.BEST)

    def _write(self, learner: Learner, progress: Progress) -> None:
        if self.unfinished is not None:
            resume.save(self.output, self.unfinished, learner, progress, self.settings)
        self.last_saved = time.monotonic()
