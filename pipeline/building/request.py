"""A build before any work: everything that can be refused is refused here."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import nn

    from pipeline.data.images import Images
    from pipeline.models.frozen import NetworkDescription
    from pipeline.recipe import Recipe


@dataclass(frozen=True)
class Order:
    """What is built, with all that its target decides; ``given`` are the user's weights and where they come from."""

    recipe: Recipe
    output: Path
    description: NetworkDescription
    source: str
    epochs: int
    given: tuple[nn.Module, str] | None
    train: Images
    calibration: Images
    test: Images


def order(asked: Recipe) -> Order:
    """The order for ``asked``; raises BadRequest where it cannot be had."""
    from pipeline.building import backends
    from pipeline.console import news
    from pipeline.data import sampling, sets
    from pipeline.data.images import Images
    from pipeline.models import frozen, specs, user_network, weights
    from pipeline.targets import resolve

    arch, spec = specs.find(asked.arch)
    recipe = resolve.resolved(asked)
    backends.refuse(recipe)
    if recipe.precision != asked.precision:
        news.say(f"--target {recipe.target}: {asked.precision} is {recipe.precision} there")
    data = sets.load(recipe)
    preprocessing = data.preprocessing.adjusted(recipe)
    description = frozen.describe(arch, spec, data.classes, preprocessing)
    if isinstance(spec, user_network.UserSpec):
        shape = (preprocessing.channels, preprocessing.input_size, preprocessing.input_size)
        user_network.refuse(description.network(), spec.function, len(data.classes), shape)
    news.say(f"data: {data.source}; --data takes a folder of your own")
    name = Path(asked.arch).stem.replace(":", "-")
    return Order(
        recipe,
        recipe.output or Path("build", "-".join(filter(None, (name, asked.precision, recipe.target)))),
        description,
        data.source,
        recipe.epochs or data.epochs,
        weights.given(recipe, description),
        Images(data.train, preprocessing),
        sampling.calibration(recipe, data, preprocessing),
        sampling.test(recipe, data, preprocessing),
    )


def outline(asked: Order) -> Iterator[str]:
    """What the build would do, line by line; nothing is trained or written."""
    from pipeline.building import plan
    from pipeline.building.run import file_name

    network = asked.given[0] if asked.given else asked.description.network()
    origin = (
        asked.given[1] if asked.given else f"weights trained here, {asked.epochs} epochs, or kept of an earlier run"
    )
    yield f"{asked.description.arch} in {asked.recipe.precision}; {origin}"
    yield f"{len(asked.calibration)} images calibrate, {len(asked.test)} judge: {asked.source}"
    stages = plan.planned(asked.recipe, network, asked.description, asked.calibration, asked.train)
    for number, stage in enumerate(stages, start=1):
        by = f" by {stage.parameters['backend']}" if "backend" in stage.parameters else ""
        yield f"{file_name(number, stage)}{by}{'' if stage.runs_here else ', not run here'}"
    yield f"all in {asked.output}; nothing was done"
