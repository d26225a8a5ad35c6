"""Whether the rows of a finished build are those that its recipe asks for: none missing, none more, in that order."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from exporters import engines
from pipeline import rows
from pipeline.bounds import bounds
from pipeline.finished.mismatch import Mismatch
from pipeline.stage import StageRow

if TYPE_CHECKING:
    from collections.abc import Iterator

    from exporters.engines.backend import Backend
    from pipeline.finished.finished_build import FinishedBuild
    from pipeline.rows import Row

CHECK = "asked"


class Pair(NamedTuple):
    """A row of the report and the one that the recipe asks for, None where it asks for none.

    Of one that is ``missing`` in the report, ``told`` is a row that was never reached.
    """

    told: StageRow
    asked: Row | None
    missing: bool = False


def pairs(build: FinishedBuild) -> list[Pair]:
    """Every row that the recipe asks for, in its order, and then those that nobody asked for."""
    # Of two rows of one name the first is the one that was asked for.
    told = {row.name: row for row in reversed(build.stages)}
    found = []
    for row in asked(build):
        if row.name in told:
            found.append(Pair(told.pop(row.name), row))
            continue
        tolerance = bounds(row.name, row.role, row.precision, build.recipe)
        found.append(Pair(StageRow(row.name, row.role, row.precision, tolerance=tolerance), row, missing=True))

    taken = {id(pair.told) for pair in found}
    found += [Pair(row, None) for row in build.stages if id(row) not in taken]
    return found


def asked(build: FinishedBuild) -> list[Row]:
    """The rows that the recipe of ``build`` asks for, by the backends that there were when it was built."""
    every = rows.asked(build.recipe, _backends(build))
    if build.content is not None:
        return every
    # What stands beside came with a later version than some reports without a hash of their content.
    beside = {row.name for row in every if row.precision not in {"fp32", build.precision}}
    if beside & {row.name for row in build.stages}:
        return every
    return [row for row in every if row.name not in beside]


def _backends(build: FinishedBuild) -> list[Backend]:
    """The backends that the recipe asks for, the one that is judged first."""
    recipe = build.recipe
    if recipe.engine not in ("auto", *engines.BACKENDS):
        raise build.damaged(ValueError(f"there is no engine {recipe.engine}"))
    if recipe.engine != "auto":
        return [engines.named(recipe.engine)]

    here: list[Backend] = []
    elsewhere: list[Backend] = []
    for name in engines.BACKENDS:
        backend = engines.named(name)
        (here if backend.runs_here else elsewhere).append(backend)
    wanted = [backend for backend in elsewhere if _was_there(build, backend)]
    # A target that names a TensorRT is another machine.
    if recipe.tensorrt is not None:
        wanted += [engines.named(name) for name in engines.RECIPES]
    return [_judged_backend(build, here), *wanted]


def _judged_backend(build: FinishedBuild, here: list[Backend]) -> Backend:
    """Which of the backends that run here made the row `engine`: each writes files with a suffix of its own."""
    by_name = {row.name: row for row in build.stages}
    engine = by_name.get("engine")
    if engine is not None and engine.file is not None:
        for backend in here:
            if engine.file.endswith(backend.suffix):
                return backend
    # One that was never reached left its name beside at most.
    for backend in here:
        if backend.beside and f"{build.recipe.beside}_{_engine_name(backend)}" in by_name:
            return backend
    return next(backend for backend in here if not backend.beside)


def _was_there(build: FinishedBuild, backend: Backend) -> bool:
    """Whether ``backend``, which builds for elsewhere, could take part."""
    if build.recipe.placement not in backend.placements:
        return False
    if _engine_name(backend) in {row.name for row in build.stages}:
        return True
    versions = build.environment.versions
    # Reports without a hash of their content are of versions that may have gone without it.
    return build.content is not None and any(versions.get(package) for package in backend.packages)


def _engine_name(backend: Backend) -> str:
    return f"engine_{backend.name.replace('-', '_')}"


def mismatches(build: FinishedBuild, found: list[Pair]) -> Iterator[Mismatch]:
    """What is wrong with the rows of ``build``, whose pairs are ``found``."""
    for pair in found:
        name = pair.told.name
        if pair.missing:
            yield Mismatch(name, CHECK, f"{name} is missing: the recipe asks for it, and the report has no row of it")
        if pair.asked is None:
            yield Mismatch(name, CHECK, f"{name} is a row that the recipe does not ask for")

    in_order = [pair.told.name for pair in found if pair.asked is not None and not pair.missing]
    as_told = [row.name for row in build.stages if row.name in in_order]
    for name, told_name in zip(in_order, as_told, strict=False):
        if name != told_name:
            yield Mismatch(name, CHECK, f"{told_name} stands where the recipe asks for {name}")
            break

    for number, pair in enumerate(found, start=1):
        if pair.asked is None:
            continue
        for sentence in (*_of_a_row(pair.told, pair.asked, number), *_of_its_margin(build, pair.told)):
            yield Mismatch(pair.told.name, CHECK, sentence)


def _of_a_row(told: StageRow, row: Row, number: int) -> Iterator[str]:
    """Where ``told`` is another than ``row``, the ``number``-th that is asked for."""
    wanted: dict[str, Any] = {"role": row.role, "precision": row.precision}
    # Of a stage that was not reached nothing else is known.
    if told.file is not None:
        wanted |= {"source": row.source, "file": rows.file_name(number, row.name, row.suffix)}
    for key, value in wanted.items():
        if getattr(told, key) != value:
            yield f"its {key} is {getattr(told, key)}, and by the recipe {value}"

    if told.file is None or row.backend is None:
        return
    made_by = told.details.get("backend")
    if made_by != row.backend.name:
        yield f"it was made by {made_by}, and the recipe asks for {row.backend.name}"
    if told.provider is not None and not row.backend.runs_here:
        yield f"it has answers by {told.provider}, and {row.backend.name} runs nothing here"


def _of_its_margin(build: FinishedBuild, told: StageRow) -> Iterator[str]:
    """Whether the row was held to the margin of the recipe; other bounds may be those of another version."""
    held_to = None if told.tolerance is None else told.tolerance.drop
    if held_to is not None and held_to != build.max_drop:
        yield f"it was held to a drop of {held_to:g}, and the recipe allows {build.max_drop:g}"
