"""Where weights come from: the user's file, an earlier training kept in the user's cache, or training now."""

from __future__ import annotations

import fcntl
import hashlib
import json
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import IO, TYPE_CHECKING

from pipeline import provenance
from pipeline.console.news import say
from pipeline.data.preprocessing import IGNORE
from pipeline.errors import BadRequest, StageFailed
from pipeline.models import checkpoint, frozen, published, translation
from pipeline.models.user_network import UserSpec
from pipeline.workspace import explain

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import nn

    from pipeline.data.images import Images
    from pipeline.models.frozen import NetworkDescription
    from pipeline.recipe import Recipe
    from pipeline.train.knobs import Training

# What decides the bits of trained weights. The rows of specs.py do so too, but each by itself: the key has the spec of
# the one network, so that a new row retrains no other.
CODE = (
    "pipeline/train/fit.py", "pipeline/train/feed.py", "pipeline/train/learner.py", "pipeline/train/schedule.py",
    "pipeline/models/resnet.py", "pipeline/models/resnet_spec.py", "pipeline/models/same_padding.py",
)  # fmt: skip


def given(recipe: Recipe, description: NetworkDescription) -> tuple[nn.Module, str] | None:
    """The network with the user's own weights, in inference mode, and where they come from; None without any."""
    if recipe.weights is None:
        return None
    source = published.source(str(recipe.weights), description.arch)
    network = description.network()
    opened = translation.opened(source)
    expected = checkpoint.parameters(network)
    if isinstance(description.spec, UserSpec):
        fit, dialect_and_place = translation.fit_user_network(opened, expected)
    else:
        fit, dialect_and_place = translation.fit(opened, description.spec, expected)
    checkpoint.put(network, fit)
    return network.eval(), f"weights from {source.origin}; {dialect_and_place}"


def as_trained(recipe: Recipe) -> Recipe:
    """``recipe`` with the EXIF turn that its weights were trained under, where it asks for none and they tell."""
    trained_under = exif_of_training(recipe.weights)
    if recipe.exif is not None or trained_under in {None, IGNORE}:
        return recipe
    say(f"--exif {trained_under}, as the weights in {recipe.weights} were trained")
    return replace(recipe, exif=trained_under)


def turned_otherwise(recipe: Recipe) -> Iterator[str]:
    """A sentence where the weights were trained under another EXIF turn than ``recipe`` asks for."""
    trained_under = exif_of_training(recipe.weights)
    asked = recipe.exif or IGNORE
    if trained_under not in {None, asked}:
        yield f"the weights in {recipe.weights} were trained with --exif {trained_under}, and this is --exif {asked}"


def exif_of_training(weights: str | Path | None) -> str | None:
    """What the reader of the training's images did with EXIF turns; None where ``weights`` do not tell."""
    preprocessing = None if weights is None else frozen.preprocessing_in(Path(weights))
    # Before there was a choice they were ignored.
    return None if preprocessing is None else preprocessing.get("exif", IGNORE)


def trained(recipe: Recipe, description: NetworkDescription, images: Images, epochs: int) -> tuple[nn.Module, str]:
    """The network trained here, now or in an earlier run, in inference mode, and where its weights are kept."""
    path = _cached(recipe, description, images, epochs)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = path.with_suffix(".lock").open("w")
    except OSError as error:
        raise BadRequest(
            f"trained weights cannot be kept in {path.parent} ({error.strerror}); point XDG_CACHE_HOME elsewhere"
        ) from error
    with lock:  # closing the file releases the lock
        _wait_for(lock, path)
        origin = f"weights of an earlier training in {path}"
        if not path.exists():
            _train(recipe, description, images, epochs, path)
            origin = f"weights trained here for {epochs} epochs and kept in {path}"
    try:
        network, _ = frozen.read(path)
    except Exception as error:  # a damaged file ends in any error there is
        raise BadRequest(f"the weights kept in {path} are damaged ({error}); delete that file to train anew") from error
    return network, origin


def _wait_for(lock: IO[str], path: Path) -> None:
    """Two builds that want the same training: the second waits and reads what the first wrote."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        say(f"another build is training {path.stem}; waiting for it")
        fcntl.flock(lock, fcntl.LOCK_EX)


def _train(recipe: Recipe, description: NetworkDescription, images: Images, epochs: int, path: Path) -> None:
    import torch

    from pipeline.train.fit import choose_device, fit

    torch.manual_seed(recipe.seed)
    network = description.network()
    fit(network, images, None, _training(recipe), epochs, choose_device(recipe.device))

    # Its own weights, only to be refused where a training that diverged left NaN or infinity in them.
    checkpoint.fill(network, checkpoint.parameters(network), "the training")

    # Renamed once it is whole: who finds a file at ``path`` takes it for a finished training.
    unfinished = path.with_suffix(".part")
    try:
        frozen.write(network, description, unfinished)
        unfinished.replace(path)
    except OSError as error:
        unfinished.unlink(missing_ok=True)
        raise StageFailed(f"the trained weights could not be kept in {path}: {explain(error)}") from error


def _training(recipe: Recipe) -> Training:
    from pipeline.train.fit import BUILD
    from pipeline.train.knobs import Training

    return Training(arch=recipe.arch, seed=recipe.seed, **BUILD)


def _cached(recipe: Recipe, description: NetworkDescription, images: Images, epochs: int) -> Path:
    """The file whose name changes with everything that changes the weights."""
    import platformdirs
    import torch

    from pipeline.train.fit import choose_device

    key = {
        "network": description.to_json(),
        "images": images.digest,
        "training": {**_training(recipe).numbers(), "arch": description.arch, "epochs": epochs},
        "code": provenance.source_hash(*CODE),
        "seed": recipe.seed,
        "device": choose_device(recipe.device),
        # Another number of threads sums in another order.
        "threads": torch.get_num_threads(),
        "versions": {name: version(name) for name in ("torch", "numpy", "pillow")},
    }
    digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()
    folder = Path(platformdirs.user_cache_dir("edge-resnet"), "weights")
    return folder / f"{description.arch}-{digest[:16]}.safetensors"
