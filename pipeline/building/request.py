"""A build before any work: everything that can be refused is refused here."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.errors import BadRequest

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np
    from numpy.typing import NDArray
    from torch import nn

    from pipeline.data.groups import Grouping
    from pipeline.data.images import Images
    from pipeline.models.frozen import NetworkDescription
    from pipeline.parity.figures import TestSet
    from pipeline.recipe import Recipe


@dataclass(frozen=True)
class Request:
    """What is built, with all that its target decides.

    ``given`` are the user's weights and a sentence on where they come from; None where the network is trained here.
    ``source`` is a sentence on where the images come from, ``warnings`` are sentences on what is odd about images and
    weights.
    """

    recipe: Recipe
    output: Path
    description: NetworkDescription
    source: str
    epochs: int
    given: tuple[nn.Module, str] | None
    train: Images
    calibration: Images
    test: Images
    warnings: list[str]
    groupings: dict[str, Grouping]

    def test_set(self, reference: NDArray[np.float32]) -> TestSet:
        """What answers are judged on, where ``reference`` (N, classes) are the logits of the network."""
        from pipeline.data.groups import Grouping
        from pipeline.parity.figures import TestSet
        from pipeline.stage import CLASSES

        by_class = Grouping(list(self.description.classes), self.test.labels)
        groupings = {CLASSES: by_class, **self.groupings}
        return TestSet(self.test.labels, reference, self.test.distinct, groupings, self.test.part.name)


def accept(asked: Recipe) -> Request:
    """The request for what a recipe asks; raises BadRequest where it cannot be had."""
    from pipeline.building import backends
    from pipeline.console import news
    from pipeline.data import groups, oddities, sampling, sets
    from pipeline.data.images import Images
    from pipeline.models import frozen, kernels, specs, user_network, weights
    from pipeline.precisions import PRECISIONS
    from pipeline.targets import resolve

    arch, spec = specs.find(asked.arch)
    recipe = weights.as_trained(resolve.resolved(asked))
    backends.refuse(recipe)
    if recipe.precision != asked.precision:
        news.say(f"--target {recipe.target}: {asked.precision} is {recipe.precision} there")

    data = sets.load(recipe)
    preprocessing = data.preprocessing.adjusted(recipe)
    description = frozen.describe(arch, spec, data.classes, preprocessing)
    warnings: list[str] = []
    if isinstance(spec, user_network.UserSpec):
        shape = (preprocessing.channels, preprocessing.input_size, preprocessing.input_size)
        opset = PRECISIONS[recipe.precision].opset
        network = description.network()
        user_network.refuse(network, spec.function, len(data.classes), shape, opset)
        warnings += _of_shares(recipe, network, shape)
    news.say(f"data: {data.source}; --data takes a folder of your own")

    given = weights.given(recipe, description)
    test = sampling.test(recipe, data, preprocessing)
    groupings = {} if recipe.groups is None else groups.read(recipe.groups, test.part)
    calibration = sampling.calibration(recipe, data, preprocessing)
    warnings += [*oddities.of_images(data.train, test, calibration), *weights.turned_otherwise(recipe)]
    if given is not None:
        warnings += kernels.of_whole_numbers(given[0])
    for sentence in warnings:
        news.say(sentence)

    return Request(
        recipe=recipe,
        output=recipe.output or _default_output(asked, recipe),
        description=description,
        source=data.source,
        epochs=recipe.epochs or data.epochs,
        given=given,
        train=Images(data.train, preprocessing),
        calibration=calibration,
        test=test,
        # What is left out was said when the folders were read.
        warnings=[*oddities.left_out(data.train, data.test, calibration.part), *warnings],
        groupings=groupings,
    )


def _of_shares(recipe: Recipe, network: nn.Module, shape: tuple[int, int, int]) -> Iterator[str]:
    """A sentence where such a network answers shares and no logits; BadRequest where that is in the way."""
    from pipeline.models import user_network

    if not user_network.ends_in_softmax(network, shape):
        return
    found = f"--arch {recipe.arch} answers shares that sum to 1, as a Softmax does, where logits are asked for"
    if recipe.threshold is not None:
        raise BadRequest(f"{found}: --threshold reads the softmax of logits; leave the last Softmax out")
    yield f"{found}: SQNR is that of shares, and what is said of confidence is wrong; leave the last Softmax out"


def _default_output(asked: Recipe, recipe: Recipe) -> Path:
    """``build/ARCH-PRECISION-TARGET``, by the precision that was asked for, whatever the target makes of it."""
    # A network of the user's own is MODULE:FUNCTION.
    name = Path(asked.arch).stem.replace(":", "-")
    parts = [name, asked.precision]
    if recipe.target:
        parts.append(recipe.target)
    return Path("build", "-".join(parts))
