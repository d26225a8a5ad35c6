"""Every knob of a training once; those that it shares with a build are the build's."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from pipeline.errors import BadRequest
from pipeline.recipe import Recipe, _knob, flag, whole

ARITHMETIC = ("auto", "float32", "bfloat16", "float16", "float64")
OPTIMIZERS = ("sgd", "adamw")
_BUILD = {knob.name: knob for knob in fields(Recipe)}
_count = whole(1, 10**9)


def _as_in_build(name: str, **changes: Any) -> Any:
    """The knob of Recipe, with other words where training has another use for it."""
    return field(default=_BUILD[name].default, metadata={**_BUILD[name].metadata, **changes})


@dataclass(frozen=True, kw_only=True)
class Training:
    """What to train, on what, and how. The defaults suit 32 px images and tens of epochs."""

    arch: str = _as_in_build("arch", group="what is trained, on what")
    data: str = _as_in_build("data", group=None)
    data_root: Path | None = _as_in_build("data_root")
    weights: Path | None = _as_in_build("weights", help="weights to start from, .safetensors or .pth (default: random)")
    new_head: bool = _knob(False, "leave out the last layer of --weights: other classes", action="store_true")
    validation: float = _knob(
        0.1,
        "share of the training images, spread over the classes, that chooses the epoch and is not trained on; the test "
        "images choose nothing. 0: the last epoch is kept",
        type=float,
    )
    input_size: int | None = _as_in_build("input_size")
    resize: int | None = _as_in_build("resize")
    interpolation: str | None = _as_in_build("interpolation")
    mean: list[float] | None = _as_in_build("mean")
    std: list[float] | None = _as_in_build("std")
    channels: int | None = _as_in_build("channels")
    exif: str | None = _as_in_build("exif")
    epochs: int | None = _as_in_build(
        "epochs", help="passes over the training images (default: the data set's)", group="how"
    )
    batch: int = _knob(128, "images per step, over all processes", type=whole(1, 2**20))
    shards: int | None = _knob(
        None,
        "parts of a batch, each with its own BatchNorm statistics; torchrun's processes share them, one process does "
        "them in turn, so that a batch need not fit into memory (default: one per process)",
        type=whole(1, 2**16),
    )
    optimizer: str = _knob("sgd", "sgd with momentum, or adamw", choices=OPTIMIZERS)
    learning_rate: float = _knob(0.1, "its peak", type=float)
    schedule: str = _knob("cosine", "of the learning rate, down to 0, or constant", choices=("cosine", "constant"))
    warmup: float = _knob(0.1, "share of the steps in which the learning rate rises from 0 in a line", type=float)
    momentum: float = _knob(0.9, "of sgd", type=float)
    weight_decay: float = _knob(5e-4, "of all weights but biases and BatchNorm", type=float)
    label_smoothing: float = _knob(0.1, "share of a label that is spread over all classes", type=float)
    shift: float = _knob(0.125, "share of its size by which an image moves at most, black moving in", type=float)
    flip: str | None = _knob(
        None, "whether half of the images are mirrored (default: where the data set says)", choices=("yes", "no")
    )
    mixup: float = _knob(0.0, "alpha of the Beta distribution by which two images are mixed; 0: none", type=float)
    ema: float = _knob(
        0.999, "share of the averaged weights that a step keeps, less in the first steps; 0: no average", type=float
    )
    patience: int | None = _knob(None, "epochs without a better validation that end the training", type=_count)
    seed: int = _as_in_build("seed", help="of the weights, the order of the images and all that is random")
    device: str = _as_in_build("device", group="where, and what for")
    arithmetic: str = _knob(
        "auto", "of forward and backward; auto: float32, on a GPU bfloat16 or float16 mixed", choices=ARITHMETIC
    )
    compile: bool = _knob(False, "torch.compile: a minute first, for trainings of many steps", action="store_true")
    workers: int = _knob(2, "threads that prepare images", type=whole(1, 256))
    save_seconds: int = _knob(120, "seconds between checkpoints within an epoch", type=whole(0, 10**9))
    no_curves: bool = _knob(False, "draw no curves.svg (needs no matplotlib)", action="store_true")
    output: Path | None = _as_in_build("output", help="directory of all results (default: build/ARCH-trained)")

    def __post_init__(self) -> None:
        """Refuse at the door what no training could do."""
        # To make the recipe is to check what both have: it raises BadRequest.
        _ = self.recipe
        for name in ("warmup", "momentum", "label_smoothing", "shift", "ema", "validation"):
            value = getattr(self, name)
            if not 0 <= value < 1:
                raise BadRequest(f"{flag(name)} {value:g} is no share: it takes 0 or more, and less than 1")

        for name in ("learning_rate", "weight_decay", "mixup"):
            value = getattr(self, name)
            # Without decay and without mixup there is training, without a learning rate there is none.
            is_idle = name == "learning_rate" and value == 0
            if not math.isfinite(value) or value < 0 or is_idle:
                raise BadRequest(f"{flag(name)} {value:g}: it takes a number above 0")

        if self.patience is not None and not self.validation:
            raise BadRequest("--patience needs validation images; give --validation above 0")
        if self.new_head and self.weights is None:
            raise BadRequest("--new-head goes with --weights")

    @property
    def recipe(self) -> Recipe:
        """What a build would be asked for to see the same images with the same network."""
        # A build takes no --epochs with --weights, and has another directory.
        not_shared = {"weights", "epochs", "output"}
        own_names = {knob.name for knob in fields(self)}
        shared_names = (own_names & set(_BUILD)) - not_shared
        return Recipe(**{name: getattr(self, name) for name in shared_names})

    def numbers(self) -> dict[str, Any]:
        """Every knob that the weights depend on, but for the images, as JSON has them."""
        # Whether photos are turned shows in the images.
        no_influence = {"data", "data_root", "exif", "device", "workers", "save_seconds", "no_curves", "output"}
        values = {}
        for name, value in asdict(self).items():
            if name not in no_influence:
                values[name] = str(value) if isinstance(value, Path) else value
        return values
