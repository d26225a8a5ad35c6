"""The one loop that trains: for ``train``, and for a build without weights."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, Any

from pipeline.console import news
from pipeline.console.progress import bar
from pipeline.errors import BadRequest, StageFailed
from pipeline.train import resume
from pipeline.train.distributed import Team
from pipeline.train.feed import Feed
from pipeline.train.learner import Learner
from pipeline.train.resume import Progress
from pipeline.train.score import score

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import nn

    from pipeline.data.images import Images
    from pipeline.train.checkpoints import Keeper
    from pipeline.train.knobs import Training

# AdamW under a short warm-up and a cosine. On the digits every architecture tried ends above 96 % in 16 epochs with it;
# SGD needed more. No epoch is chosen, so no image is held out.
BUILD: dict[str, Any] = {
    "optimizer": "adamw", "learning_rate": 0.002, "weight_decay": 0.05, "warmup": 0.3, "batch": 32,
    "flip": "no", "ema": 0.0, "validation": 0.0, "arithmetic": "float32",
}  # fmt: skip


def choose_device(device: str) -> str:
    """The device that ``--device`` means here; raises BadRequest where there is no such GPU."""
    import torch

    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cuda" and not torch.cuda.is_available():
        raise BadRequest(
            f"--device cuda: torch {torch.__version__} sees no GPU here; "
            "use --device cpu, or install a CUDA build of torch"
        )
    return device


def fit(
    network: nn.Module,
    images: Images,
    validation: Images | None,
    training: Training,
    epochs: int,
    device: str,
    team: Team | None = None,
    keeper: Keeper | None = None,
) -> list[dict[str, Any]]:
    """Train ``network`` in place and answer a row for each epoch; ``keeper`` goes on where a killed run was.

    Without one the weights are those of the last epoch, on the CPU, in inference mode. Raises StageFailed with the step
    at which the loss is no number.
    """
    import torch

    if team is None:
        team = Team()
    feed = Feed(images, training, training.shards or team.count)
    steps = epochs * feed.steps
    learner = Learner(network, training, steps, device, team)
    progress = keeper.load(learner) if keeper else Progress()
    # Each process has a run of neighbouring shards of every batch.
    first_shard = team.rank * feed.shards // team.count
    end_shard = (team.rank + 1) * feed.shards // team.count
    own_shards = range(first_shard, end_shard)

    with bar(f"training, {epochs} epochs", steps) as advance:
        # What a killed run did already.
        for _ in range(progress.step):
            advance()
        while progress.step < steps and not over(progress.history, training.patience):
            epoch_end = (progress.step // feed.steps + 1) * feed.steps
            _epoch(learner, feed, progress, epoch_end, own_shards, keeper, advance)
            row = _history_row(learner, progress, feed.steps, validation)
            if row["validation"] and not math.isfinite(row["validation"]["loss"]):
                output = keeper.output if keeper else None
                raise StageFailed(resume.diverged(progress.step, "the validation loss is infinite", output))
            progress.history.append(row)
            if keeper:
                news.say(line(row, epochs))
                keeper.keep(learner, progress)

    if learner.average is not network:
        network.load_state_dict(learner.average.state_dict())
    network.to(device="cpu", dtype=torch.float32, memory_format=torch.contiguous_format).eval()  # type: ignore[call-overload]
    return progress.history


def _epoch(
    learner: Learner,
    feed: Feed,
    progress: Progress,
    epoch_end: int,
    own_shards: range,
    keeper: Keeper | None,
    advance: Callable[[], None],
) -> None:
    """All steps to before ``epoch_end``; a run that goes on begins within the epoch."""
    output = keeper.output if keeper else None
    started = time.monotonic()
    for shards in feed.ahead(progress.step, epoch_end, own_shards):
        try:
            loss, right = learner.step(progress.step, shards)
        except FloatingPointError as error:
            raise StageFailed(resume.diverged(progress.step, f"the loss is {error}", output)) from error

        ended = time.monotonic()
        progress.step += 1
        progress.loss += loss
        progress.right += right
        progress.seconds += ended - started
        started = ended
        advance()

        # At the end of an epoch its row comes first, and ``fit`` writes the checkpoint with it.
        if keeper and progress.step < epoch_end:
            keeper.save(learner, progress)
    resume.refuse_nan(learner, progress.step, output)


def _history_row(learner: Learner, progress: Progress, steps: int, validation: Images | None) -> dict[str, Any]:
    """The epoch that just ended, as history.jsonl has it; ``train`` is what the steps saw, augmented and smoothed.

    The sums of the epoch in ``progress`` begin anew.
    """
    started = time.monotonic()
    validation_score = None
    is_best = True
    if validation is not None:
        validation_score = score(learner.average, validation, learner.pixels, learner.team)
        rank = _rank(validation_score)
        is_best = all(rank > _rank(earlier["validation"]) for earlier in progress.history)

    row = {
        "epoch": progress.step // steps,
        "step": progress.step,
        "learning_rate": learner.optimizer.param_groups[0]["lr"],
        "train": {"loss": progress.loss / steps, "top1": progress.right / steps},
        "validation": validation_score,
        "seconds": round(progress.seconds + time.monotonic() - started, 3),
        "best": is_best,
    }
    progress.loss = 0.0
    progress.right = 0.0
    progress.seconds = 0.0
    return row


def _rank(validation_score: dict[str, float]) -> tuple[float, float]:
    """What makes one epoch better than another: top-1, and where that is the same a lower loss."""
    return validation_score["top1"], -validation_score["loss"]


def over(history: list[dict[str, Any]], patience: int | None) -> bool:
    """Whether the last ``patience`` epochs were none of them the best until then."""
    if patience is None or len(history) < patience:
        return False
    return not any(row["best"] for row in history[-patience:])


def line(row: dict[str, Any], epochs: int) -> str:
    """An epoch for a person."""
    scores = _score_text("train", row["train"])
    if row["validation"]:
        scores += "; " + _score_text("validation", row["validation"])
        if row["best"]:
            scores += ", the best so far"
    return f"epoch {row['epoch']} of {epochs}: {scores} ({row['seconds']:.0f} s)"


def _score_text(name: str, scored: dict[str, float]) -> str:
    return f"{name} loss {scored['loss']:.4f}, top-1 {100 * scored['top1']:.2f} %"
