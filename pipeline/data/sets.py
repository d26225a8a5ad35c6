"""The data sets, one row each; anything else that is asked for is a folder of images."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.errors import BadRequest

if TYPE_CHECKING:
    from collections.abc import Callable

    from pipeline.data.dataset import Dataset
    from pipeline.recipe import Recipe


def _digits(_: Recipe) -> Dataset:
    from pipeline.data import digits

    return digits.read()


def _fashion_mnist(recipe: Recipe) -> Dataset:
    from pipeline.data import fashion_mnist

    return fashion_mnist.read(recipe.data_root)


def _cifar10(recipe: Recipe) -> Dataset:
    from pipeline.data import cifar10

    return cifar10.read(recipe.data_root)


DATASETS: dict[str, Callable[[Recipe], Dataset]] = {
    "digits": _digits,
    "fashion-mnist": _fashion_mnist,
    "cifar10": _cifar10,
}


def load(recipe: Recipe) -> Dataset:
    """The data set that ``--data`` names; raises BadRequest where it is neither known nor a folder."""
    if recipe.data in DATASETS:
        return DATASETS[recipe.data](recipe)
    root = Path(recipe.data)
    if not root.is_dir():
        raise BadRequest(f"--data {recipe.data} is neither a folder nor one of {', '.join(DATASETS)}")
    from pipeline.data import folder

    return folder.read(root)
