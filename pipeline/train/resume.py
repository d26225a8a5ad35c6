"""The checkpoint of a training that is not over: one safetensors file, whole or absent, no pickle."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pipeline import workspace
from pipeline.errors import BadRequest, StageFailed
from pipeline.recipe import flag

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from torch import Tensor

    from pipeline.train.learner import Learner

LAST = "last.safetensors"
HISTORY = "history.jsonl"
BEST = "weights.safetensors"

# What a changed setting is called that is no flag.
HASHED = {
    "images": "the training images (--data) are others",
    "network": "the fields or the file of --arch are others",
}
TOOLS = {"torch": "the version of torch", "numpy": "the version of numpy"}


@dataclass
class Progress:
    """How far a training is: steps done, loss and right answers summed over those of this epoch, rows of epochs."""

    step: int = 0
    loss: float = 0.0
    right: float = 0.0
    seconds: float = 0.0
    history: list[dict[str, Any]] = field(default_factory=list)


def save(output: Path, unfinished: Path, learner: Learner, progress: Progress, settings: Mapping[str, Any]) -> None:
    """Write the checkpoint, and beside it the rows of all epochs as lines of JSON.

    Raises StageFailed where a weight is no finite number: the checkpoint before stays.
    """
    import safetensors.torch

    refuse_nan(learner, progress.step, output)
    tensors = {}
    for key, value in learner.tensors().items():
        # The file holds values in C order, while weights in training are channels_last.
        tensors[key] = value.detach().cpu().contiguous()
    record = {
        "asked": settings,
        "progress": vars(progress),
        "scaler": learner.scaler.state_dict(),
        "sha256": _digest(tensors),
    }
    content = safetensors.torch.save(tensors, {"training": json.dumps(record, sort_keys=True)})
    workspace.write_bytes(output / LAST, content, unfinished)

    history = "".join(json.dumps(row) + "\n" for row in progress.history)
    workspace.write_bytes(output / HISTORY, history.encode(), unfinished)


def load(output: Path, learner: Learner, settings: Mapping[str, Any]) -> Progress:
    """Where the training in ``output`` stands, put into ``learner``; a new start where there is none.

    Raises BadRequest where that training was asked for otherwise, naming what changed, or its file is damaged.
    """
    path = output / LAST
    if not path.is_file():
        return Progress()

    import safetensors

    try:
        with safetensors.safe_open(path, "pt") as file:
            record = json.loads(file.metadata()["training"])
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        is_whole = _digest(tensors) == record["sha256"]
        # Before the tensors are taken: those of another network would not fit, and the sentence would be of damage.
        refuse_changes(record["asked"], settings, output)
        progress = Progress(**record["progress"])
        learner.restore(tensors, record["scaler"])
    except BadRequest:
        raise
    except Exception as error:  # a damaged file ends in any error there is
        raise BadRequest(f"{path} is damaged ({error}); delete it to train anew") from error

    if not is_whole:
        raise BadRequest(f"{path} is damaged (its content is not what was written); delete it to train anew")
    if progress.history and not (output / BEST).is_file():
        raise BadRequest(f"{output / BEST} is gone and {LAST} goes on from it; delete {LAST} to train anew")
    return progress


def refuse_changes(was: Mapping[str, Any], now: Mapping[str, Any], output: Path) -> None:
    """Raise BadRequest with everything in which ``now`` is another training than ``was``."""
    changes = []
    for name in sorted(now):
        if was.get(name) == now.get(name):
            continue
        if name in HASHED:
            # A hash tells a person nothing.
            changes.append(HASHED[name])
        else:
            subject = TOOLS.get(name) or flag(name)
            changes.append(f"{subject} was {was.get(name)} and is {now.get(name)}")
    if changes:
        raise BadRequest(
            f"-o {output} holds another training: {'; '.join(changes)}; ask for the same, choose another -o, or delete "
            f"{output / LAST} to train anew"
        )


def refuse_nan(learner: Learner, step: int, output: Path | None) -> None:
    """Raise StageFailed where a weight is no finite number after so many steps."""
    for key, value in learner.tensors().items():
        if not bool(value.isfinite().all()):
            raise StageFailed(diverged(step, f"{key} holds NaN or infinity", output))


def diverged(step: int, reason: str, output: Path | None) -> str:
    """The sentence for a training that is lost."""
    sentence = f"training diverged at step {step}: {reason}"
    if output is None:
        return f"{sentence}; train with python -m pipeline train, which takes --learning-rate, and give its --weights"

    sentence += "; lower --learning-rate or raise --warmup"
    if (output / LAST).is_file():
        sentence += f"; {output / LAST} is the last good checkpoint"
    if (output / BEST).is_file():
        sentence += f", {output / BEST} the best weights so far"
    return sentence


def _digest(tensors: Mapping[str, Tensor]) -> str:
    """A hash over the names and the values of all tensors."""
    digest = hashlib.sha256()
    for key in sorted(tensors):
        digest.update(key.encode() + b"\0" + tensors[key].numpy().tobytes())
    return digest.hexdigest()
