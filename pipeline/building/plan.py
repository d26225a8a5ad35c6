"""Recipe to stages: the order, and every bound, stand here and nowhere else."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from pipeline import engine_seal
from pipeline.building import calibrate, engines, stages
from pipeline.building.calibration_job import CalibrationJob
from pipeline.precisions import EXACT, FLOAT16, PRECISIONS, QUANTISED, REORDERED
from pipeline.stage import Role, Stage, Tolerance

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import nn

    from pipeline.data.images import Images
    from pipeline.models.frozen import NetworkDescription
    from pipeline.recipe import Recipe

    Lossy = Callable[[Recipe, Images, Images], Stage | None]

# What writes every graph, and so belongs into the key of every stage that does.
GRAPH = ("onnx", "onnx-ir", "numpy")
# Calibration images that equalisation looks at; ten times as many change nothing (docs/results/recovery.md).
EQUALISE = 32

RETRAINED = (
    "qat retrained the weights: its certificate proves the structure, and the test images alone speak for its answers."
)
FLOAT16_ON_CPU = (
    "ONNX Runtime on the CPU rounds to float16 between layers but computes inside them in float32; "
    "float16 sums on a GPU may differ."
)


def _float16_stage(name: str, recipe: Recipe, calibration: Images, _: Images) -> Stage:
    return Stage(
        name,
        "typing",
        recipe.precision,
        ".onnx",
        partial(stages.fp16, calibration),
        bounds(name, "typing", recipe.precision, recipe),
        {"images": calibration.digest},
        (*GRAPH, "onnxruntime"),
        not_proven=FLOAT16_ON_CPU,
    )


def _equalise_stage(recipe: Recipe, images: Images, _: Images) -> Stage | None:
    if "equalise" not in recipe.recoveries:
        return None
    from pipeline.data import sampling

    few = sampling.some(images, EQUALISE, recipe.seed)
    return Stage(
        "equalise",
        "recovery",
        recipe.precision,
        ".onnx",
        partial(stages.equalise, few),
        bounds("equalise", "recovery", recipe.precision, recipe),
        {"images": few.digest},
        (*GRAPH, "onnxruntime"),
    )


def _qat_stage(recipe: Recipe, calibration: Images, train: Images) -> Stage | None:
    if "qat" not in recipe.recoveries:
        return None
    # The user's own calibration images are what the network will see; the data set may be another.
    images = train if recipe.calib_data is None else calibration
    job = CalibrationJob(calibration, recipe.calib_method, recipe.seed, placement=recipe.placement)
    return Stage(
        "qat",
        "recovery",
        recipe.precision,
        ".onnx",
        partial(stages.qat, job, images),
        bounds("qat", "recovery", recipe.precision, recipe),
        {**job.parameters(), "train": images.digest},
        ("torch", *GRAPH, "onnxruntime"),
        not_proven=RETRAINED,
    )


def _quantised_stage(number_format: str, recipe: Recipe, images: Images, _: Images) -> Stage:
    settle = recipe.calib_samples is None
    mixed = "mixed" in recipe.recoveries
    job = CalibrationJob(
        images, recipe.calib_method, recipe.seed, recipe.calib_cache, settle, mixed, recipe.placement, number_format
    )
    asked = bounds(number_format, "quantised", recipe.precision, recipe)
    parameters = job.parameters()
    mend = None
    if mixed:
        from pipeline.building import recover

        # The user's own calibration images have no labels, or those of other classes.
        held = asked if recipe.calib_data is None else replace(asked, drop=None)
        mend = partial(recover.mixed, job, held)
        parameters["mixed"] = [held.sqnr_db, held.agreement, held.drop]
    return Stage(
        number_format,
        "quantised",
        recipe.precision,
        ".onnx",
        partial(calibrate.quantise, job, mend=mend),
        asked,
        parameters,
        (*GRAPH, "onnxruntime"),
    )


def _float_weights_stage(recipe: Recipe, *_: Images) -> Stage:
    return Stage(
        "float_weights",
        "typing",
        recipe.precision,
        ".onnx",
        stages.float_weights,
        bounds("float_weights", "typing", recipe.precision, recipe),
        {},
        GRAPH,
    )


# What makes each stage that a precision may name between folding and the engine.
LOSSY: dict[str, Lossy] = {
    "equalise": _equalise_stage,
    "qat": _qat_stage,
    "int8": partial(_quantised_stage, "int8"),
    "fp8": partial(_quantised_stage, "fp8"),
    "fp16": partial(_float16_stage, "fp16"),
    "halve": partial(_float16_stage, "halve"),
    "float_weights": _float_weights_stage,
}

# The bounds of every stage but those behind the last quantisation, which have those of their precision.
BOUNDS = {
    "freeze": EXACT,
    "export": REORDERED,
    "simplify": REORDERED,
    "fold_batchnorm": REORDERED,
    "equalise": REORDERED,
    "qat": replace(QUANTISED, retrained=True),
    "fp16": FLOAT16,
    "int8": QUANTISED,
    "float_weights": replace(QUANTISED, step_sqnr_db=EXACT.step_sqnr_db),
    "fp8": QUANTISED,
}


# Roles of the stages behind the last quantisation.
BEHIND = {"typing", "input", "engine"}


def bounds(stage: str, role: Role, precision: str, recipe: Recipe) -> Tolerance:
    """The bounds of ``stage`` with the user's margin, where they have one at all; raises KeyError for no such stage."""
    found = PRECISIONS[precision].tolerance if stage not in BOUNDS and role in BEHIND else BOUNDS[stage]
    if role == "input":
        found = replace(found, step_sqnr_db=EXACT.step_sqnr_db)
    return found if found.drop is None else replace(found, drop=recipe.max_drop, confidence=recipe.confidence)


# Stages that change nothing an engine needs, and so may be passed over: what `--allow-fallback` can name.
FALLBACKS = ("simplify",)


def planned(
    recipe: Recipe, network: nn.Module, description: NetworkDescription, calibration: Images, train: Images
) -> list[Stage]:
    """All rows, in order; ``train`` gives no range and no verdict."""
    from pipeline.models import frozen

    metadata = _metadata(description)
    rows = [
        Stage(
            "freeze",
            "reference",
            "fp32",
            ".safetensors",
            partial(stages.freeze, network, description),
            bounds("freeze", "reference", recipe.precision, recipe),
            {"weights": frozen.digest(network), "network": description.to_json()},
            ("safetensors",),
        ),
        Stage(
            "export",
            "graph",
            "fp32",
            ".onnx",
            partial(stages.export, calibration.shape, metadata),
            bounds("export", "graph", recipe.precision, recipe),
            {"shape": calibration.shape, "metadata": metadata},
            ("torch", *GRAPH),
        ),
        Stage(
            "simplify",
            "graph",
            "fp32",
            ".onnx",
            stages.simplify,
            bounds("simplify", "graph", recipe.precision, recipe),
            tools=("onnxsim", *GRAPH),
            may_fall_back="simplify" in (recipe.allow_fallback or ()),
        ),
        Stage(
            "fold_batchnorm",
            "graph",
            "fp32",
            ".onnx",
            stages.fold_batchnorm,
            bounds("fold_batchnorm", "graph", recipe.precision, recipe),
            {},
            GRAPH,
        ),
    ]
    for name in PRECISIONS[recipe.precision].stages:
        stage = LOSSY[name](recipe, calibration, train)
        if stage is not None:
            rows.append(stage)
    rows += _input_stages(recipe, "uint8_input")
    backends = engines.chosen(recipe)
    rows += _engine_stages(recipe, rows[-1].name, backends, "engine")
    others = [backend for backend in backends if engines.module(backend).BESIDE]
    if others and recipe.beside != "none" and PRECISIONS[recipe.precision].calibrated:
        half = replace(recipe, precision=recipe.beside)
        rows.append(replace(_float16_stage("fp16", half, calibration, train), source="fold_batchnorm"))
        rows += _input_stages(half, "fp16_uint8_input")
        rows += _engine_stages(half, rows[-1].name, others, f"fp16_engine_{others[0].replace('-', '_')}")
    return rows


def _input_stages(recipe: Recipe, name: str) -> list[Stage]:
    if recipe.input_dtype == "float32":
        return []
    asked = bounds(name, "input", recipe.precision, recipe)
    return [Stage(name, "input", recipe.precision, ".onnx", stages.uint8_input, asked, {}, GRAPH)]


def _engine_stages(recipe: Recipe, source: str, backends: list[str], first: str) -> list[Stage]:
    """The engines of ``source``, the first of them under the name ``first``."""
    stem = first.removesuffix(f"_{backends[0].replace('-', '_')}")
    rows: list[Stage] = []
    for backend in backends:
        module = engines.module(backend)
        owner = {"owner": engine_seal.owner()} if hasattr(module, "made_for") else {}
        name = f"{stem}_{backend.replace('-', '_')}" if rows else first
        rows.append(
            Stage(
                name,
                "engine",
                recipe.precision,
                module.SUFFIX,
                partial(stages.engine, backend, options := engines.options(module, recipe)),
                bounds(name, "engine", recipe.precision, recipe),
                {"backend": backend, "machine": module.machine(), **owner, **options},
                module.PACKAGES,
                source=source,
                runs_here=module.RUNS_HERE,
                not_proven=getattr(module, "NOT_PROVEN", None) if first == "engine" else None,
            )
        )
    return rows


def _metadata(description: NetworkDescription) -> dict[str, str]:
    """What the ONNX file says of itself."""
    from pipeline import provenance

    return {
        "architecture": description.arch,
        "classes": json.dumps(description.classes),
        "preprocessing": json.dumps(description.preprocessing, sort_keys=True),
        "versions": json.dumps(provenance.versions(("torch", "onnx", "onnxsim", "numpy")), sort_keys=True),
        "commit": provenance.commit() or "",
        "source": provenance.source_hash(),
    }
