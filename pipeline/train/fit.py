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


def choose_device(asked: str) -> str:
    """The device that ``--device`` means here; raises BadRequest where there is no such GPU."""
    import torch

    if asked == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if asked == "cuda" and not torch.cuda.is_available():
        raise BadRequest(
            f"--device cuda: torch {torch.__version__} sees no GPU here; "
            "use --device cpu, or install a CUDA build of torch"
        )
    return asked


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

    team = team or Team()
    feed = Feed(images, training, training.shards or team.count)
    steps = epochs * feed.steps
    learner = Learner(network, training, steps, device, team)
    progress = keeper.load(learner) if keeper else Progress()
    mine = range(team.rank * feed.shards // team.count, (team.rank + 1) * feed.shards // team.count)
    with bar(f"training, {epochs} epochs", steps) as advance:
        for _ in range(progress.step):
            advance()
        while progress.step < steps and not over(progress.history, training.patience):
            end = (progress.step // feed.steps + 1) * feed.steps
            _epoch(learner, feed, progress, end, mine, keeper, advance)
            row = _row(learner, progress, feed.steps, validation)
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
    end: int,
    mine: range,
    keeper: Keeper | None,
    advance: Callable[[], None],
) -> None:
    """All steps to before ``end``; a run that goes on begins within the epoch."""
    started = time.monotonic()
    output = keeper.output if keeper else None
    for shards in feed.ahead(progress.step, end, mine):
        try:
            loss, right = learner.step(progress.step, shards)
        except FloatingPointError as error:
            raise StageFailed(resume.diverged(progress.step, f"the loss is {error}", output)) from error
        now = time.monotonic()
        progress.step += 1
        progress.loss, progress.right = progress.loss + loss, progress.right + right
        progress.seconds, started = progress.seconds + now - started, now
        advance()
        if keeper and progress.step < end:
            keeper.save(learner, progress)
    resume.refuse_nan(learner, progress.step, output)


def _row(learner: Learner, progress: Progress, steps: int, validation: Images | None) -> dict[str, Any]:
    """The epoch that just ended, as history.jsonl has it; ``train`` is what the steps saw, augmented and smoothed."""
    started = time.monotonic()
    judged = None
    if validation is not None:
        judged = score(learner.average, validation, learner.pixels, learner.team)
    row = {
        "epoch": progress.step // steps,
        "step": progress.step,
        "learning_rate": learner.optimizer.param_groups[0]["lr"],
        "train": {"loss": progress.loss / steps, "top1": progress.right / steps},
        "validation": judged,
        "seconds": round(progress.seconds + time.monotonic() - started, 3),
        "best": judged is None or all(_rank(judged) > _rank(row["validation"]) for row in progress.history),
    }
    progress.loss = progress.right = progress.seconds = 0.0
    return row


def _rank(judged: dict[str, float]) -> tuple[float, float]:
    return judged["top1"], -judged["loss"]


def over(history: list[dict[str, Any]], patience: int | None) -> bool:
    """Whether the last ``patience`` epochs were none of them the best until then."""
    return patience is not None and len(history) >= patience and not any(row["best"] for row in history[-patience:])


def line(row: dict[str, Any], epochs: int) -> str:
    """An epoch for a person."""
    parts = [
        f"{name} loss {row[name]['loss']:.4f}, top-1 {100 * row[name]['top1']:.2f} %"
        for name in ("train", "validation")
        if row[name]
    ]
    best = ", the best so far" if row["best"] and row["validation"] else ""
    return f"epoch {row['epoch']} of {epochs}: {'; '.join(parts)}{best} ({row['seconds']:.0f} s)"
