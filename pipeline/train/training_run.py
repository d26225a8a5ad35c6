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
    from pipeline.train.course import Course


def follow(course: Course, unfinished: Path | None) -> dict[str, Any] | None:
    """Train, and judge the kept weights; what training.json holds, in the first process alone."""
    from pipeline.models import frozen
    from pipeline.train.fit import fit
    from pipeline.train.score import score

    training = course.training
    team = course.team
    keeper = Keeper(
        output=course.output,
        unfinished=unfinished,
        description=course.description,
        settings=_settings(course),
        save_seconds=training.save_seconds,
        team=team,
    )
    try:
        history = fit(
            course.network, course.train, course.validation, training, course.epochs, course.device, team, keeper
        )
    finally:
        # Also of a training that was interrupted or diverged: then they show how.
        if unfinished is not None and not training.no_curves:
            _draw(course, unfinished)

    team.wait()  # the kept weights may still be being written
    network, *_ = frozen.read(course.output / resume.BEST)
    network = network.to(course.device)
    test_score = score(network, course.test, lambda array: _pixels(array, course.device), team)
    if unfinished is None:
        return None
    result = _result(course, history, test_score)
    workspace.write_json(course.output / "training.json", result, unfinished)
    return result


def _settings(course: Course) -> dict[str, Any]:
    """Everything that decides the weights; raises BadRequest where processes of the team have other images."""
    # Cheap to compare: all processes sum these numbers, and only the first one hashes its images. Fewer bits than 32,
    # since the sum of their squares must be exact in float64.
    labels_checksum = zlib.crc32(course.train.labels.tobytes()) >> 8
    course.team.agree(
        [len(course.train), labels_checksum],
        f"--data {course.training.data} holds other images in some processes; give all the same",
    )

    settings = course.training.numbers()
    settings["network"] = _network_hash(course.description)
    settings.update(provenance.versions(("torch", "numpy")))
    if course.team.first:
        settings["images"] = course.train.digest
        if course.validation is not None:
            settings["images"] += course.validation.digest
    return settings


def _pixels(array: Any, device: str) -> Tensor:
    """``array`` as float32 on ``device``."""
    import torch

    return torch.from_numpy(array).to(device)


def _network_hash(description: NetworkDescription) -> str:
    """A hash of the fields that a network is made by."""
    fields = json.dumps(description.spec.to_json(), sort_keys=True)
    return hashlib.sha256(fields.encode()).hexdigest()


def _draw(course: Course, unfinished: Path) -> None:
    """The curves of all epochs that are over, if any is."""
    path = course.output / resume.HISTORY
    if not path.is_file():
        return
    history = [json.loads(line) for line in path.read_text().splitlines()]
    # A training that was killed within its first epoch has a checkpoint and no rows.
    if not history:
        return
    fresh = unfinished / "curves.svg"
    curves.training(history, f"{course.description.arch} on {course.training.data}", fresh)
    workspace.place(fresh, course.output / fresh.name)


def _result(course: Course, history: list[dict[str, Any]], test_score: dict[str, float]) -> dict[str, Any]:
    """What training.json holds; the bounds of top-1 are Wilson's, at 95 %."""
    from scipy.stats import binomtest

    count = len(course.test)
    right = round(test_score["top1"] * count)
    bounds = binomtest(right, count).proportion_ci(0.95, "wilson")
    best_epochs = [row["epoch"] for row in history if row["best"]]
    return {
        "arch": course.description.arch,
        "weights": str(course.output / resume.BEST),
        "sha256": workspace.sha256(course.output / resume.BEST),
        "epochs": len(history),
        "kept": best_epochs[-1],
        "test": {**test_score, "lower": bounds.low, "upper": bounds.high, "n": count},
        "seconds": sum(row["seconds"] for row in history),
        "processes": course.team.count,
        "numbers": course.training.numbers(),
        "next": _next_command(course),
        "environment": provenance.environment(),
    }


# Flags of a build that decide the network and the pixels that it sees.
NEXT_FLAGS = (
    "arch", "weights", "data", "data_root", "input_size", "resize", "interpolation", "mean", "std", "channels",
)  # fmt: skip


def _next_command(course: Course) -> str:
    """The build that takes the weights on, with the pixels that they were trained with."""
    training = replace(course.training, weights=course.output / resume.BEST, new_head=False)
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
