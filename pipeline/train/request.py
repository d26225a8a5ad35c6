"""A training before it begins: its images, its network and its knobs; all that can be refused is refused here."""

from __future__ import annotations

import importlib.util
import os
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pipeline.console import news
from pipeline.data.images import Images
from pipeline.data.part import spread
from pipeline.errors import BadRequest, cure

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import nn

    from pipeline.data.dataset import Dataset
    from pipeline.models.frozen import NetworkDescription
    from pipeline.train.distributed import Team
    from pipeline.train.knobs import Training


@dataclass(frozen=True)
class TrainingRequest:
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


def accept(training: Training, device: str, team: Team) -> TrainingRequest:
    """The request for ``training``; raises BadRequest where it cannot be had."""
    from pipeline.data import oddities, sampling, sets
    from pipeline.models import frozen, specs, weights

    arch, spec = specs.find(training.arch)
    training = replace(training, exif=training.exif or weights.exif_of_training(training.weights))
    recipe = training.recipe
    data = sets.load(recipe)
    news.say(f"data: {data.source}; --data takes a folder of your own")
    preprocessing = data.preprocessing.adjusted(recipe)
    training = _with_defaults(training, data, team)

    train_indices, validation_indices = _split(data, training)
    train = Images(data.train.take(train_indices), preprocessing)
    validation = None
    if len(validation_indices):
        validation = Images(data.train.take(validation_indices), preprocessing)
    _refuse(training, data.classes, train, team)

    test = sampling.test(recipe, data, preprocessing)
    if team.first:
        for sentence in oddities.of_images(data.train, test):
            news.say(sentence)

    description = frozen.describe(arch, spec, data.classes, preprocessing)
    return TrainingRequest(
        training=training,
        epochs=int(training.epochs or 0),
        device=device,
        team=team,
        output=training.output or _default_output(training.arch),
        network=_network(training, description),
        description=description,
        train=train,
        validation=validation,
        test=test,
    )


def _with_defaults(training: Training, data: Dataset, team: Team) -> Training:
    """``training`` with a value for each knob whose default the data set or the team decides."""
    flip = training.flip
    if flip is None:
        flip = "yes" if data.mirrored else "no"
    return replace(
        training,
        flip=flip,
        shards=training.shards or team.count,
        epochs=training.epochs or data.epochs,
    )


def _default_output(arch: str) -> Path:
    # --arch may be a file, or module:function.
    name = Path(arch).stem.replace(":", "-")
    return Path("build", f"{name}-trained")


def _split(data: Dataset, training: Training) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Indices of the training part that are trained on, and those that validate."""
    labels = data.train.labels
    validation_count = round(training.validation * len(labels))
    if training.validation and not validation_count:
        raise BadRequest(
            f"--validation {training.validation:g} of {len(labels)} images is none; give a larger share, or 0"
        )
    validation_indices = spread(labels, validation_count, training.seed)
    train_indices = np.setdiff1d(np.arange(len(labels)), validation_indices)
    return train_indices, validation_indices


def _refuse(training: Training, classes: tuple[str, ...], train: Images, team: Team) -> None:
    """Raise BadRequest where these images cannot be trained on as asked."""
    lacking = sorted(set(range(len(classes))) - set(train.labels.tolist()))
    if lacking:
        names = ", ".join(classes[label] for label in lacking)
        raise BadRequest(
            f"--data {training.data}: the network has {len(classes)} classes and no training image shows "
            f"{names}; add some, or remove the class"
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

    if training.compile and not _has_compiler():
        raise BadRequest("--compile needs a C++ compiler, and there is none; install g++, or leave it out")
    # Before the training rather than after it.
    if not training.no_curves and importlib.util.find_spec("matplotlib") is None:
        raise BadRequest(
            f"curves.svg needs matplotlib, which is not installed; run: {cure('matplotlib')}, or add --no-curves"
        )


def _has_compiler() -> bool:
    """Whether torch.compile finds a C++ compiler, which its CPU kernels need."""
    if os.environ.get("CXX"):
        return True
    return any(shutil.which(name) for name in ("c++", "g++", "clang++"))


def _network(training: Training, description: NetworkDescription) -> nn.Module:
    """The network as training begins: by the seed, or with the weights of --weights."""
    import torch

    from exporters import export
    from pipeline.models import checkpoint, user_network

    torch.manual_seed(training.seed)
    network = description.network()
    if isinstance(description.spec, user_network.UserSpec):
        size = description.preprocessing["input_size"]
        image_shape = (description.preprocessing["channels"], size, size)
        # The opset of the graph that every build begins with.
        user_network.refuse(network, description.spec.function, len(description.classes), image_shape, export.OPSET)
    if training.weights is None:
        return network

    weights = checkpoint.read(Path(training.weights))
    # The last layer of this family is called fc; a network of the user's own may have none of that name.
    head = {key: value for key, value in checkpoint.parameters(network).items() if key.startswith("fc.")}
    if training.new_head:
        if not head:
            raise BadRequest(
                f"--new-head: {training.arch} has no last layer called fc; give weights that fit as they are"
            )
        body = {key: value for key, value in weights.items() if not key.startswith("fc.")}
        weights = {**body, **head}
    elif "fc.weight" in head and "fc.weight" in weights:
        known_classes = len(weights["fc.weight"])
        if known_classes != len(description.classes):
            raise BadRequest(
                f"--weights {training.weights} knows {known_classes} classes and --data {training.data} has "
                f"{len(description.classes)}; add --new-head to learn a last layer for these"
            )
    checkpoint.fill(network, weights, f"--weights {training.weights}")
    return network
