"""A training that was planned: the loop, then the test images, then training.json."""

from __future__ import annotations

import hashlib
import json
import shlex
import zlib
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from pipeline import provenance, workspace
from pipeline.recipe import flag
from pipeline.report import curves
from pipeline.train import resume
from pipeline.train.checkpoints import Keeper

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

    from pipeline.models.frozen import NetworkDescription
    from pipeline.train.request import TrainingRequest


def follow(request: TrainingRequest, unfinished: Path | None) -> dict[str, Any] | None:
    """Train, and judge the kept weights; what training.json holds, in the first process alone."""
    from pipeline.models import frozen
    from pipeline.train.fit import fit
    from pipeline.train.score import score

    training = request.training
    team = request.team
    keeper = Keeper(
        output=request.output,
        unfinished=unfinished,
        description=request.description,
        settings=_settings(request),
        save_seconds=training.save_seconds,
        team=team,
    )
    try:
        history = fit(
            request.network, request.train, request.validation, training, request.epochs, request.device, team, keeper
        )
    finally:
        # Also of a training that was interrupted or diverged: then they show how.
        if unfinished is not None and not training.no_curves:
            _draw(request, unfinished)

    team.wait()  # the kept weights may still be being written
    network, *_ = frozen.read(request.output / resume.BEST)
    network = network.to(request.device)
    test_score = score(network, request.test, lambda array: _pixels(array, request.device), team)
    if unfinished is None:
        return None
    result = _result(request, history, test_score)
    workspace.write_json(request.output / "training.json", result, unfinished)
    return result


def _settings(request: TrainingRequest) -> dict[str, Any]:
    """Everything that decides the weights; raises BadRequest where processes of the team have other images."""
    # Cheap to compare: all processes sum these numbers, and only the first one hashes its images. Fewer bits than 32,
    # since the sum of their squares must be exact in float64.
    labels_checksum = zlib.crc32(request.train.labels.tobytes()) >> 8
    request.team.agree(
        [len(request.train), labels_checksum],
        f"--data {request.training.data} holds other images in some processes; give all the same",
    )

    settings = request.training.numbers()
    settings["network"] = _network_hash(request.description)
    settings.update(provenance.versions(("torch", "numpy")))
    if request.team.first:
        settings["images"] = request.train.digest
        if request.validation is not None:
            settings["images"] += request.validation.digest
    return settings


def _pixels(array: Any, device: str) -> Tensor:
    """``array`` as float32 on ``device``."""
    import torch

    return torch.from_numpy(array).to(device)


def _network_hash(description: NetworkDescription) -> str:
    """A hash of the fields that a network is made by."""
    fields = json.dumps(description.spec.to_json(), sort_keys=True)
    return hashlib.sha256(fields.encode()).hexdigest()


def _draw(request: TrainingRequest, unfinished: Path) -> None:
    """The curves of all epochs that are over, if any is."""
    path = request.output / resume.HISTORY
    if not path.is_file():
        return
    history = [json.loads(line) for line in path.read_text().splitlines()]
    # A training that was killed within its first epoch has a checkpoint and no rows.
    if not history:
        return
    fresh = unfinished / "curves.svg"
    curves.training(history, f"{request.description.arch} on {request.training.data}", fresh)
    workspace.place(fresh, request.output / fresh.name)


def _result(request: TrainingRequest, history: list[dict[str, Any]], test_score: dict[str, float]) -> dict[str, Any]:
    """What training.json holds; the bounds of top-1 are Wilson's, at 95 %."""
    from scipy.stats import binomtest

    count = len(request.test)
    right = round(test_score["top1"] * count)
    bounds = binomtest(right, count).proportion_ci(0.95, "wilson")
    best_epochs = [row["epoch"] for row in history if row["best"]]
    return {
        "arch": request.description.arch,
        "weights": str(request.output / resume.BEST),
        "sha256": workspace.sha256(request.output / resume.BEST),
        "epochs": len(history),
        "kept": best_epochs[-1],
        "test": {**test_score, "lower": bounds.low, "upper": bounds.high, "n": count},
        "seconds": sum(row["seconds"] for row in history),
        "processes": request.team.count,
        "numbers": request.training.numbers(),
        "next": _next_command(request),
        "environment": provenance.environment(),
    }


# Flags of a build that decide the network and the pixels that it sees.
NEXT_FLAGS = (
    "arch", "weights", "data", "data_root", "input_size", "resize", "interpolation", "mean", "std", "channels",
    "exif",
)  # fmt: skip


def _next_command(request: TrainingRequest) -> str:
    """The build that takes the weights on, with the pixels that they were trained with."""
    training = replace(request.training, weights=request.output / resume.BEST, new_head=False)
    words = ["python", "-m", "pipeline", "build"]
    for name in NEXT_FLAGS:
        value = getattr(training, name)
        if value is None:
            continue
        words.append(flag(name))
        if isinstance(value, list):
            words += [str(item) for item in value]
        else:
            words.append(str(value))
    words += ["--precision", "int8"]
    return shlex.join(words)
