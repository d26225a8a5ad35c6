"""The rows of every build, whoever asks: the plan of a build, or a check of a finished one.

They follow from the recipe and from the backends alone: no network, no image and no file is looked at.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipeline.precisions import PRECISIONS

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from exporters.engines.backend import Backend
    from pipeline.precisions import Precision
    from pipeline.recipe import Recipe
    from pipeline.stage import Role

# The stages that all precisions share, in order: every branch begins at the file of the last one.
SHARED = ("freeze", "export", "simplify", "fold_batchnorm")
TRUNK = SHARED[-1]
# What each stage is for; that of an engine follows from its backend.
ROLES: dict[str, Role] = {
    "freeze": "reference",
    "export": "graph",
    "simplify": "graph",
    "fold_batchnorm": "graph",
    "equalise": "recovery",
    "qat": "recovery",
    "int8": "quantised",
    "fp8": "quantised",
    "halve": "typing",
    "fp16": "typing",
    "float_weights": "typing",
    "uint8_input": "input",
}
# Those of the network as it is, whatever precision it will have.
SHARED_ROLES: set[Role] = {"reference", "graph"}


@dataclass(frozen=True)
class Row:
    """One row: ``source`` is the stage whose file it is made from, None of the first; ``backend`` makes an engine."""

    name: str
    role: Role
    precision: str
    suffix: str
    source: str | None
    backend: Backend | None = None


def asked(recipe: Recipe, chosen: Sequence[Backend]) -> list[Row]:
    """All rows of a build of ``recipe`` by the ``chosen`` backends, in order."""
    rows = list(_shared())
    own = PRECISIONS[recipe.precision]
    rows += _branch(recipe, own, "", chosen)

    # Some networks are faster in what stands beside 8 bits, on backends where it is a matter of kernels.
    others = [backend for backend in chosen if backend.beside]
    if own.calibrated and recipe.beside != "none" and others:
        rows += _branch(recipe, PRECISIONS[recipe.beside], f"{recipe.beside}_", others)
    return rows


def _shared() -> Iterator[Row]:
    source = None
    for name in SHARED:
        role = ROLES[name]
        suffix = ".safetensors" if role == "reference" else ".onnx"
        yield Row(name, role, "fp32", suffix, source)
        source = name


def _branch(recipe: Recipe, precision: Precision, prefix: str, chosen: Sequence[Backend]) -> Iterator[Row]:
    """The rows from the folded graph to the engines of ``precision``.

    ``prefix`` is written before the names that the recipe's own branch has as well.
    """
    source = TRUNK
    for name in _graphs(recipe, precision, prefix):
        role = ROLES[name.removeprefix(prefix)]
        yield Row(name, role, precision.name, ".onnx", source)
        source = name

    for place, backend in enumerate(chosen):
        name = f"{prefix}engine_{backend.name.replace('-', '_')}"
        # The first of the recipe's own branch is the one that is judged.
        if not prefix and place == 0:
            name = "engine"
        yield Row(name, "engine", precision.name, backend.suffix, source, backend)


def _graphs(recipe: Recipe, precision: Precision, prefix: str) -> Iterator[str]:
    """The names of the stages between the folded graph and the engines."""
    for name in precision.stages:
        # A recovery stands only where it was asked for.
        if ROLES[name] != "recovery" or name in recipe.recoveries:
            yield name
    if recipe.input_dtype != "float32":
        yield f"{prefix}uint8_input"


def file_name(number: int, name: str, suffix: str) -> str:
    """``05-int8.onnx`` for the row ``number``, counted from 1."""
    return f"{number:02d}-{name}{suffix}"
