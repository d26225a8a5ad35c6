"""Recipe to stages: what makes each row, and of what.

Which rows there are, and in which order, stands in ``pipeline.rows`` and nowhere else; their bounds in
``pipeline.bounds``.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from exporters.number_formats import NUMBER_FORMATS
from pipeline import engine_seal, rows
from pipeline.bounds import bounds
from pipeline.building import backends, calibrate, stages
from pipeline.building.calibration_job import CalibrationJob
from pipeline.precisions import PRECISIONS
from pipeline.stage import Stage

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import nn

    from pipeline.data.images import Images
    from pipeline.models.frozen import NetworkDescription
    from pipeline.recipe import Recipe
    from pipeline.rows import Row

    # A function that makes the stage of a row.
    Maker = Callable[[Row, "Inputs"], Stage]

# What writes every graph, and so belongs into the key of every stage that does.
GRAPH = ("onnx", "onnx-ir", "numpy")
# Calibration images that equalisation looks at; ten times as many change nothing (docs/results/recovery.md).
EQUALISE = 32
# Stages that change nothing an engine needs, and so may be passed over: what `--allow-fallback` can name.
FALLBACKS = ("simplify",)

RETRAINED = (
    "qat retrained the weights: its certificate proves the structure, and the test images alone speak for its answers."
)


@dataclass(frozen=True)
class Inputs:
    """What the stages of a build are made from; ``train`` gives no range and no verdict."""

    recipe: Recipe
    network: nn.Module
    description: NetworkDescription
    calibration: Images
    train: Images


def planned(
    recipe: Recipe, network: nn.Module, description: NetworkDescription, calibration: Images, train: Images
) -> list[Stage]:
    """All stages, in order; ``train`` gives no range and no verdict."""
    inputs = Inputs(recipe, network, description, calibration, train)
    asked = rows.asked(recipe, backends.chosen(recipe))
    return [_maker(row)(row, inputs) for row in asked]


def _maker(row: Row) -> Maker:
    """What makes the stage of ``row``: by the rule of its role, or by its own."""
    return BY_ROLE.get(row.role) or BY_NAME[row.name]


def _stage(row: Row, inputs: Inputs, make: Callable[..., Any], **more: Any) -> Stage:
    """The stage of ``row`` that ``make`` makes; ``more`` are the other fields of Stage."""
    return Stage(
        name=row.name,
        role=row.role,
        precision=row.precision,
        suffix=row.suffix,
        make=make,
        tolerance=bounds(row.name, row.role, row.precision, inputs.recipe),
        source=row.source,
        **more,
    )


def _freeze(row: Row, inputs: Inputs) -> Stage:
    from pipeline.models import frozen

    return _stage(
        row,
        inputs,
        partial(stages.freeze, inputs.network, inputs.description),
        parameters={"weights": frozen.digest(inputs.network), "network": inputs.description.to_json()},
        tools=("safetensors",),
    )


def _export(row: Row, inputs: Inputs) -> Stage:
    metadata = _metadata(inputs.description)
    shape = inputs.calibration.shape
    return _stage(
        row,
        inputs,
        partial(stages.export, shape, metadata),
        parameters={"shape": shape, "metadata": metadata},
        tools=("torch", *GRAPH),
    )


def _simplify(row: Row, inputs: Inputs) -> Stage:
    may_fall_back = row.name in (inputs.recipe.allow_fallback or ())
    return _stage(row, inputs, stages.simplify, tools=("onnxsim", *GRAPH), may_fall_back=may_fall_back)


def _fold_batchnorm(row: Row, inputs: Inputs) -> Stage:
    return _stage(row, inputs, stages.fold_batchnorm, tools=GRAPH)


def _equalise(row: Row, inputs: Inputs) -> Stage:
    from pipeline.data import sampling

    images = sampling.some(inputs.calibration, EQUALISE, inputs.recipe.seed)
    return _stage(
        row,
        inputs,
        partial(stages.equalise, images),
        parameters={"images": images.digest},
        tools=(*GRAPH, "onnxruntime"),
    )


def _qat(row: Row, inputs: Inputs) -> Stage:
    recipe = inputs.recipe
    job = CalibrationJob(
        images=inputs.calibration,
        method=recipe.calib_method,
        seed=recipe.seed,
        placement=recipe.placement,
        number_format=NUMBER_FORMATS[str(PRECISIONS[row.precision].number_format)],
    )
    # The user's own calibration images are what the network will see; the data set may be another.
    images = inputs.train if recipe.calib_data is None else inputs.calibration
    return _stage(
        row,
        inputs,
        partial(stages.qat, job, images),
        parameters={**job.parameters(), "train": images.digest},
        tools=("torch", *GRAPH, "onnxruntime"),
        not_proven=RETRAINED,
    )


def _quantised(row: Row, inputs: Inputs) -> Stage:
    """Q/DQ pairs of the number format that the row is named after, which is any of the table."""
    recipe = inputs.recipe
    mixed = "mixed" in recipe.recoveries
    job = CalibrationJob(
        images=inputs.calibration,
        method=recipe.calib_method,
        seed=recipe.seed,
        cache=recipe.calib_cache,
        settle=recipe.calib_samples is None,
        hold=mixed,
        placement=recipe.placement,
        number_format=NUMBER_FORMATS[row.name],
    )
    parameters = job.parameters()
    mend = None
    if mixed:
        from pipeline.building import recover

        tolerance = bounds(row.name, row.role, row.precision, recipe)
        # The user's own calibration images have no labels, or those of other classes.
        held_to = tolerance if recipe.calib_data is None else replace(tolerance, drop=None)
        mend = partial(recover.mixed, job, held_to)
        parameters["mixed"] = [held_to.sqnr_db, held_to.agreement, held_to.drop]
    return _stage(
        row,
        inputs,
        partial(calibrate.quantise, job, mend=mend),
        parameters=parameters,
        tools=(*GRAPH, "onnxruntime"),
    )


def _float16(row: Row, inputs: Inputs) -> Stage:
    # Here, since it brings numpy: the command line reads the tables of this module on a bare Python.
    from exporters import float16

    return _stage(
        row,
        inputs,
        partial(stages.float16, inputs.calibration),
        parameters={"images": inputs.calibration.digest},
        tools=(*GRAPH, "onnxruntime"),
        not_proven=float16.NOT_PROVEN,
    )


def _float_weights(row: Row, inputs: Inputs) -> Stage:
    return _stage(row, inputs, stages.float_weights, tools=GRAPH)


def _uint8_input(row: Row, inputs: Inputs) -> Stage:
    return _stage(row, inputs, stages.uint8_input, tools=GRAPH)


def _engine(row: Row, inputs: Inputs) -> Stage:
    backend = row.backend
    assert backend is not None
    options = backends.options(backend, inputs.recipe, PRECISIONS[row.precision])
    parameters: dict[str, Any] = {"backend": backend.name, "machine": backend.machine()}
    if backend.made_for() is not None:
        parameters["owner"] = engine_seal.owner()

    own = row.precision == inputs.recipe.precision
    return _stage(
        row,
        inputs,
        partial(stages.engine, backend, options),
        parameters={**parameters, **options},
        tools=backend.packages,
        runs_here=backend.runs_here,
        # Said once for a backend, not again for its engine beside.
        not_proven=backend.not_proven if own else None,
    )


# What makes the stage of a row, by its role, where all of that role follow one rule.
BY_ROLE: dict[str, Maker] = {
    "quantised": _quantised,
    "input": _uint8_input,
    "engine": _engine,
}
# What makes each of the others.
BY_NAME: dict[str, Maker] = {
    "freeze": _freeze,
    "export": _export,
    "simplify": _simplify,
    "fold_batchnorm": _fold_batchnorm,
    "equalise": _equalise,
    "qat": _qat,
    "fp16": _float16,
    "halve": _float16,
    "float_weights": _float_weights,
}


def _metadata(description: NetworkDescription) -> dict[str, str]:
    """What the ONNX file says of itself."""
    from pipeline import provenance

    versions = provenance.versions(("torch", "onnx", "onnxsim", "numpy"))
    return {
        "architecture": description.arch,
        "classes": json.dumps(description.classes),
        "preprocessing": json.dumps(description.preprocessing, sort_keys=True),
        "versions": json.dumps(versions, sort_keys=True),
        "commit": provenance.commit() or "",
        "source": provenance.source_hash(),
    }
