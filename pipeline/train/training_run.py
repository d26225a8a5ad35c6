"""A training from its knobs to its weights: all that can be refused first, then the loop, then the test images."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import shlex
import shutil
import zlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline import provenance, workspace
from pipeline.console import news
from pipeline.data.images import Images, spread
from pipeline.errors import BadRequest, cure
from pipeline.recipe import flag
from pipeline.report import curves
from pipeline.train import resume
from pipeline.train.checkpoints import Keeper

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor, nn

    from pipeline.data.dataset import Dataset
    from pipeline.models.frozen import NetworkDescription
    from pipeline.train.distributed import Team
    from pipeline.train.knobs import Training


@dataclass(frozen=True)
class Course:
    """A training that can be had; ``validation`` is None where every image is trained on."""

    training: Training
    epochs: int
    device: str
    team: Team
    output: Path
    network: nn.Module
    description: NetworkDescription
    train: Images
    validation: Images | None
    test: Images


def plan(asked: Training, device: str, team: Team) -> Course:
    """The course for ``asked``; raises BadRequest where it cannot be had."""
    from pipeline.data import sampling, sets
    from pipeline.models import frozen, specs

    arch, spec = specs.find(asked.arch)
    recipe = asked.recipe
    data = sets.load(recipe)
    news.say(f"data: {data.source}; --data takes a folder of your own")
    preprocessing = data.preprocessing.adjusted(recipe)
    training = replace(
        asked,
        flip=asked.flip or ("yes" if data.mirrored else "no"),
        shards=asked.shards or team.count,
        epochs=asked.epochs or data.epochs,
    )
    train, held = _split(data, training)
    train_images = Images(data.train.take(train), preprocessing)
    _refuse(training, data.classes, train_images, team)
    description = frozen.describe(arch, spec, data.classes, preprocessing)
    output = training.output or Path("build", f"{Path(training.arch).stem.replace(':', '-')}-trained")
    return Course(
        training,
        int(training.epochs or 0),
        device,
        team,
        output,
        _network(training, description),
        description,
        train_images,
        Images(data.train.take(held), preprocessing) if len(held) else None,
        sampling.test(recipe, data, preprocessing),
    )


def follow(course: Course, unfinished: Path | None) -> dict[str, Any] | None:
    """Train, and judge the kept weights; what training.json holds, in the first process alone."""
    from pipeline.models import frozen
    from pipeline.train.fit import fit
    from pipeline.train.score import score

    training, team, output = course.training, course.team, course.output
    same = [len(course.train), zlib.crc32(course.train.labels.tobytes()) >> 8]
    team.agree(same, f"--data {training.data} holds other images in some processes; give all the same")
    asked = {**training.numbers(), "network": _hash(course.description), **provenance.versions(("torch", "numpy"))}
    if team.first:
        asked["images"] = "".join(images.digest for images in (course.train, course.validation) if images)
    keeper = Keeper(output, unfinished, course.description, asked, training.save_seconds, team)
    try:
        history = fit(
            course.network, course.train, course.validation, training, course.epochs, course.device, team, keeper
        )
    finally:
        if unfinished is not None and not training.no_curves:
            _draw(course, unfinished)
    team.wait()  # the kept weights may still be being written
    network = frozen.read(output / resume.BEST)[0].to(course.device)
    found = score(network, course.test, lambda array: _pixels(array, course.device), team)
    if unfinished is None:
        return None
    result = _result(course, history, found)
    workspace.write_json(output / "training.json", result, unfinished)
    return result


def _pixels(array: Any, device: str) -> Tensor:
    """``array`` as float32 on ``device``."""
    import torch

    return torch.from_numpy(array).to(device)


def _split(data: Dataset, training: Training) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Indices of the training part that are trained on, and those that validate."""
    labels = data.train.labels
    count = round(training.validation * len(labels))
    if training.validation and not count:
        raise BadRequest(
            f"--validation {training.validation:g} of {len(labels)} images is none; give a larger share, or 0"
        )
    held = spread(labels, count, training.seed)
    return np.setdiff1d(np.arange(len(labels)), held), held


def _refuse(training: Training, classes: tuple[str, ...], train: Images, team: Team) -> None:
    """Raise BadRequest where these images cannot be trained on as asked."""
    lacking = sorted(set(range(len(classes))) - set(train.labels.tolist()))
    if lacking:
        raise BadRequest(
            f"--data {training.data}: the network has {len(classes)} classes and no training image shows "
            f"{', '.join(classes[label] for label in lacking)}; add some, or remove the class"
        )
    shards = training.shards or team.count
    if shards % team.count or training.batch % shards:
        raise BadRequest(
            f"--batch {training.batch} in --shards {shards} by {team.count} process(es): the batch must be a multiple "
            "of the shards, and those of the processes"
        )
    if min(training.batch, len(train)) // shards < 2:
        raise BadRequest(
            f"--batch {training.batch} in {shards} shards of {len(train)} images: a shard has fewer than 2, and "
            "BatchNorm learns nothing from one; give a larger batch"
        )
    compiler = os.environ.get("CXX") or next(filter(shutil.which, ("c++", "g++", "clang++")), None)
    if training.compile and compiler is None:
        raise BadRequest("--compile needs a C++ compiler, and there is none; install g++, or leave it out")
    if not training.no_curves and importlib.util.find_spec("matplotlib") is None:
        raise BadRequest(
            f"curves.svg needs matplotlib, which is not installed; run: {cure('matplotlib')}, or add --no-curves"
        )


def _network(training: Training, description: NetworkDescription) -> nn.Module:
    """The network as training begins: by the seed, or with the weights of --weights."""
    import torch

    from pipeline.models import checkpoint, user_network

    torch.manual_seed(training.seed)
    network = description.network()
    shape = tuple(description.preprocessing[name] for name in ("channels", "input_size", "input_size"))
    if isinstance(description.spec, user_network.UserSpec):
        user_network.refuse(network, description.spec.function, len(description.classes), shape)
    if training.weights is None:
        return network
    given = checkpoint.read(Path(training.weights))
    head = {key: value for key, value in checkpoint.parameters(network).items() if key.startswith("fc.")}
    if training.new_head and head:
        given = {key: value for key, value in given.items() if not key.startswith("fc.")} | head
    elif training.new_head:
        raise BadRequest(f"--new-head: {training.arch} has no last layer called fc; give weights that fit as they are")
    elif "fc.weight" in head and "fc.weight" in given and len(given["fc.weight"]) != len(description.classes):
        raise BadRequest(
            f"--weights {training.weights} knows {len(given['fc.weight'])} classes and --data {training.data} has "
            f"{len(description.classes)}; add --new-head to learn a last layer for these"
        )
    checkpoint.fill(network, given, f"--weights {training.weights}")
    return network


def _hash(description: NetworkDescription) -> str:
    return hashlib.sha256(json.dumps(description.spec.to_json(), sort_keys=True).encode()).hexdigest()


def _draw(course: Course, unfinished: Path) -> None:
    path = course.output / resume.HISTORY
    history = [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []
    if history:
        fresh = unfinished / "curves.svg"
        curves.training(history, f"{course.description.arch} on {course.training.data}", fresh)
        workspace.place(fresh, course.output / fresh.name)


def _result(course: Course, history: list[dict[str, Any]], found: dict[str, float]) -> dict[str, Any]:
    from scipy.stats import binomtest

    count = len(course.test)
    bounds = binomtest(round(found["top1"] * count), count).proportion_ci(0.95, "wilson")
    return {
        "arch": course.description.arch,
        "weights": str(course.output / resume.BEST),
        "sha256": workspace.sha256(course.output / resume.BEST),
        "epochs": len(history),
        "kept": [row["epoch"] for row in history if row["best"]][-1],
        "test": {**found, "lower": bounds.low, "upper": bounds.high, "n": count},
        "seconds": sum(row["seconds"] for row in history),
        "processes": course.team.count,
        "numbers": course.training.numbers(),
        "next": _next(course),
        "environment": provenance.environment(),
    }


def _next(course: Course) -> str:
    """The build that takes the weights on, with the pixels that they were trained with."""
    training = replace(course.training, weights=course.output / resume.BEST, new_head=False)
    words = ["python", "-m", "pipeline", "build"]
    names = (
        "arch", "weights", "data", "data_root", "input_size", "resize", "interpolation", "mean", "std", "channels",
    )  # fmt: skip
    for name in names:
        value = getattr(training, name)
        if value is not None:
            words += [flag(name), *map(str, value if isinstance(value, list) else [value])]
    return shlex.join([*words, "--precision", "int8"])
