"""Recipe to stages: their order stands here and nowhere else, and their bounds in ``pipeline.bounds``."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from exporters.number_formats import NUMBER_FORMATS
from pipeline import engine_seal
from pipeline.bounds import bounds
from pipeline.building import backends, calibrate, stages
from pipeline.building.calibration_job import CalibrationJob
from pipeline.precisions import PRECISIONS
from pipeline.stage import Role, Stage, Tolerance

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import nn

    from exporters.engines.backend import Backend
    from pipeline.data.images import Images
    from pipeline.models.frozen import NetworkDescription
    from pipeline.precisions import Precision
    from pipeline.recipe import Recipe

    # A function that makes the stage of this name; None where the recipe does not ask for it.
    Lossy = Callable[[str, "Branch"], Stage | None]

# What writes every graph, and so belongs into the key of every stage that does.
GRAPH = ("onnx", "onnx-ir", "numpy")
# Calibration images that equalisation looks at; ten times as many change nothing (docs/results/recovery.md).
EQUALISE = 32
# The last stage that all precisions share: every branch of the plan begins at its file.
TRUNK = "fold_batchnorm"
# Stages that change nothing an engine needs, and so may be passed over: what `--allow-fallback` can name.
FALLBACKS = ("simplify",)

RETRAINED = (
    "qat retrained the weights: its certificate proves the structure, and the test images alone speak for its answers."
)


@dataclass(frozen=True)
class Branch:
    """What the stages from the folded graph to the engines of one precision are planned from.

    ``precision`` is that of the recipe, or of what is built beside it: ``recipe.precision`` says nothing here.
    ``prefix`` is written before the names of stages that the recipe's own branch has as well. ``train`` gives no range
    and no verdict.
    """

    recipe: Recipe
    precision: Precision
    prefix: str
    calibration: Images
    train: Images

    def bounds(self, stage: str, role: Role) -> Tolerance:
        """The bounds of one of its stages."""
        return bounds(stage, role, self.precision.name, self.recipe)


def planned(
    recipe: Recipe, network: nn.Module, description: NetworkDescription, calibration: Images, train: Images
) -> list[Stage]:
    """All rows, in order; ``train`` gives no range and no verdict."""
    rows = _trunk(recipe, network, description, calibration)
    chosen = backends.chosen(recipe)
    own = Branch(recipe, PRECISIONS[recipe.precision], "", calibration, train)
    rows += _branch(own, chosen)

    # Some networks are faster in what stands beside 8 bits, on backends where it is a matter of kernels.
    others = [backend for backend in chosen if backend.beside]
    if own.precision.calibrated and recipe.beside != "none" and others:
        beside = Branch(recipe, PRECISIONS[recipe.beside], f"{recipe.beside}_", calibration, train)
        rows += _branch(beside, others)
    return rows


def _trunk(recipe: Recipe, network: nn.Module, description: NetworkDescription, calibration: Images) -> list[Stage]:
    """The stages that all precisions share, from the network in memory to its folded graph."""
    from pipeline.models import frozen

    metadata = _metadata(description)
    shape = calibration.shape
    freeze = Stage(
        name="freeze",
        role="reference",
        precision="fp32",
        suffix=".safetensors",
        make=partial(stages.freeze, network, description),
        tolerance=bounds("freeze", "reference", "fp32", recipe),
        parameters={"weights": frozen.digest(network), "network": description.to_json()},
        tools=("safetensors",),
    )
    export = Stage(
        name="export",
        role="graph",
        precision="fp32",
        suffix=".onnx",
        make=partial(stages.export, shape, metadata),
        tolerance=bounds("export", "graph", "fp32", recipe),
        parameters={"shape": shape, "metadata": metadata},
        tools=("torch", *GRAPH),
    )
    simplify = Stage(
        name="simplify",
        role="graph",
        precision="fp32",
        suffix=".onnx",
        make=stages.simplify,
        tolerance=bounds("simplify", "graph", "fp32", recipe),
        tools=("onnxsim", *GRAPH),
        may_fall_back="simplify" in (recipe.allow_fallback or ()),
    )
    fold_batchnorm = Stage(
        name=TRUNK,
        role="graph",
        precision="fp32",
        suffix=".onnx",
        make=stages.fold_batchnorm,
        tolerance=bounds(TRUNK, "graph", "fp32", recipe),
        tools=GRAPH,
    )
    return [freeze, export, simplify, fold_batchnorm]


def _branch(branch: Branch, chosen: list[Backend]) -> list[Stage]:
    """The stages from the folded graph to the engines of the ``chosen`` backends."""
    rows = []
    for name in branch.precision.stages:
        stage = _lossy_stage(name, branch)
        if stage is not None:
            rows.append(stage)
    if branch.recipe.input_dtype != "float32":
        rows.append(_input_stage(branch))

    if rows:
        rows[0] = replace(rows[0], source=TRUNK)
    last = rows[-1].name if rows else TRUNK
    return rows + _engine_stages(branch, last, chosen)


def _lossy_stage(name: str, branch: Branch) -> Stage | None:
    """The stage of this name, by the rule of all number formats or by its own."""
    if name in NUMBER_FORMATS:
        return _quantised_stage(name, branch)
    return LOSSY[name](name, branch)


def _equalise_stage(name: str, branch: Branch) -> Stage | None:
    if "equalise" not in branch.recipe.recoveries:
        return None
    from pipeline.data import sampling

    images = sampling.some(branch.calibration, EQUALISE, branch.recipe.seed)
    return Stage(
        name=name,
        role="recovery",
        precision=branch.precision.name,
        suffix=".onnx",
        make=partial(stages.equalise, images),
        tolerance=branch.bounds(name, "recovery"),
        parameters={"images": images.digest},
        tools=(*GRAPH, "onnxruntime"),
    )


def _qat_stage(name: str, branch: Branch) -> Stage | None:
    recipe = branch.recipe
    if "qat" not in recipe.recoveries:
        return None

    job = CalibrationJob(
        images=branch.calibration,
        method=recipe.calib_method,
        seed=recipe.seed,
        placement=recipe.placement,
        number_format=NUMBER_FORMATS[str(branch.precision.number_format)],
    )
    # The user's own calibration images are what the network will see; the data set may be another.
    images = branch.train if recipe.calib_data is None else branch.calibration
    return Stage(
        name=name,
        role="recovery",
        precision=branch.precision.name,
        suffix=".onnx",
        make=partial(stages.qat, job, images),
        tolerance=branch.bounds(name, "recovery"),
        parameters={**job.parameters(), "train": images.digest},
        tools=("torch", *GRAPH, "onnxruntime"),
        not_proven=RETRAINED,
    )


def _quantised_stage(name: str, branch: Branch) -> Stage:
    """Q/DQ pairs of the number format ``name``, which is any of the table."""
    recipe = branch.recipe
    mixed = "mixed" in recipe.recoveries
    job = CalibrationJob(
        images=branch.calibration,
        method=recipe.calib_method,
        seed=recipe.seed,
        cache=recipe.calib_cache,
        settle=recipe.calib_samples is None,
        hold=mixed,
        placement=recipe.placement,
        number_format=NUMBER_FORMATS[name],
    )
    tolerance = branch.bounds(name, "quantised")
    parameters = job.parameters()
    mend = None
    if mixed:
        from pipeline.building import recover

        # The user's own calibration images have no labels, or those of other classes.
        held_to = tolerance if recipe.calib_data is None else replace(tolerance, drop=None)
        mend = partial(recover.mixed, job, held_to)
        parameters["mixed"] = [held_to.sqnr_db, held_to.agreement, held_to.drop]
    return Stage(
        name=name,
        role="quantised",
        precision=branch.precision.name,
        suffix=".onnx",
        make=partial(calibrate.quantise, job, mend=mend),
        tolerance=tolerance,
        parameters=parameters,
        tools=(*GRAPH, "onnxruntime"),
    )


def _float16_stage(name: str, branch: Branch) -> Stage:
    # Here, since it brings numpy: the command line reads the tables of this module on a bare Python.
    from exporters import float16

    return Stage(
        name=name,
        role="typing",
        precision=branch.precision.name,
        suffix=".onnx",
        make=partial(stages.float16, branch.calibration),
        tolerance=branch.bounds(name, "typing"),
        parameters={"images": branch.calibration.digest},
        tools=(*GRAPH, "onnxruntime"),
        not_proven=float16.NOT_PROVEN,
    )


def _float_weights_stage(name: str, branch: Branch) -> Stage:
    return Stage(
        name=name,
        role="typing",
        precision=branch.precision.name,
        suffix=".onnx",
        make=stages.float_weights,
        tolerance=branch.bounds(name, "typing"),
        tools=GRAPH,
    )


# What makes each stage that a precision may name between folding and the engine, number formats aside.
LOSSY: dict[str, Lossy] = {
    "equalise": _equalise_stage,
    "qat": _qat_stage,
    "fp16": _float16_stage,
    "halve": _float16_stage,
    "float_weights": _float_weights_stage,
}


def _input_stage(branch: Branch) -> Stage:
    name = f"{branch.prefix}uint8_input"
    return Stage(
        name=name,
        role="input",
        precision=branch.precision.name,
        suffix=".onnx",
        make=stages.uint8_input,
        tolerance=branch.bounds(name, "input"),
        tools=GRAPH,
    )


def _engine_stages(branch: Branch, source: str, chosen: list[Backend]) -> list[Stage]:
    """The engines of the file of ``source``; the first of the recipe's own branch is the one that is judged."""
    own = not branch.prefix
    rows: list[Stage] = []
    for backend in chosen:
        options = backends.options(backend, branch.recipe, branch.precision)
        parameters: dict[str, Any] = {"backend": backend.name, "machine": backend.machine()}
        if backend.made_for() is not None:
            parameters["owner"] = engine_seal.owner()

        name = "engine" if own and not rows else f"{branch.prefix}engine_{backend.name.replace('-', '_')}"
        rows.append(
            Stage(
                name=name,
                role="engine",
                precision=branch.precision.name,
                suffix=backend.suffix,
                make=partial(stages.engine, backend, options),
                tolerance=branch.bounds(name, "engine"),
                parameters={**parameters, **options},
                tools=backend.packages,
                source=source,
                runs_here=backend.runs_here,
                # Said once for a backend, not again for its engine beside.
                not_proven=backend.not_proven if own else None,
            )
        )
    return rows


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
