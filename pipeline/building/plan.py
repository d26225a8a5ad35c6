"""Recipe to stages: the order, and every bound, stand here and nowhere else."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from pipeline import engine_seal
from pipeline.building import calibrate, engines, stages
from pipeline.stage import Stage, Tolerance

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import nn

    from pipeline.data.images import Images
    from pipeline.models.frozen import Description
    from pipeline.recipe import Recipe

    Lossy = Callable[[Recipe, Images, Images], Stage | None]

# What writes every graph, and so belongs into the key of every stage that does.
GRAPH = ("onnx", "onnx-ir", "numpy")
# Calibration images that equalisation looks at; ten times as many change nothing (docs/results/recovery.md).
EQUALISE = 32

# Bounds, from what the registered networks give on the digits and on Fashion-MNIST: docs/bounds.md has the figures.
# They catch gross faults; what a stage may cost in accuracy is decided by the interval of the drop.
EXACT = Tolerance(sqnr_db=300, step_sqnr_db=300, agreement=1.0)  # no float32 differs by so little: the same bits
REORDERED = Tolerance(sqnr_db=90, step_sqnr_db=90, agreement=0.995)
HALF = Tolerance(sqnr_db=40, step_sqnr_db=40, agreement=0.99, drop=0.01)
QUANTISED = Tolerance(sqnr_db=15, step_sqnr_db=15, agreement=0.97, drop=0.01)
# An engine, or float16 between layers, may round some activations to the neighbouring level, and nothing more.
COMPILED = replace(QUANTISED, step_sqnr_db=30)

RETRAINED = (
    "qat retrained the weights: its certificate proves the structure, and the test images alone speak for its answers."
)
FLOAT16_ON_CPU = (
    "ONNX Runtime on the CPU rounds to float16 between layers but computes inside them in float32; "
    "float16 sums on a GPU may differ."
)


def _float16_stage(name: str, recipe: Recipe, calibration: Images, _: Images) -> Stage:
    make, parameters, tools = partial(stages.fp16, calibration), {"images": calibration.digest}, (*GRAPH, "onnxruntime")
    return Stage(name, ".onnx", make, bounds(name, recipe), parameters, tools, not_proven=FLOAT16_ON_CPU)


def _equalise_stage(recipe: Recipe, images: Images, _: Images) -> Stage | None:
    if "equalise" not in recipe.recoveries:
        return None
    from pipeline.data import sampling

    few = sampling.some(images, EQUALISE, recipe.seed)
    parameters, tools = {"images": few.digest}, (*GRAPH, "onnxruntime")
    return Stage("equalise", ".onnx", partial(stages.equalise, few), bounds("equalise", recipe), parameters, tools)


def _qat_stage(recipe: Recipe, calibration: Images, train: Images) -> Stage | None:
    if "qat" not in recipe.recoveries:
        return None
    # The user's own calibration images are what the network will see; the data set may be another.
    images = train if recipe.calib_data is None else calibration
    job = calibrate.Calibration(calibration, recipe.calib_method, recipe.seed, placement=recipe.placement)
    parameters, tools = {**job.parameters(), "train": images.digest}, ("torch", *GRAPH, "onnxruntime")
    make = partial(stages.qat, job, images)
    return Stage("qat", ".onnx", make, bounds("qat", recipe), parameters, tools, not_proven=RETRAINED)


def _quantised_stage(form: str, recipe: Recipe, images: Images, _: Images) -> Stage:
    settle = recipe.calib_samples is None
    mixed = "mixed" in recipe.recoveries
    job = calibrate.Calibration(
        images, recipe.calib_method, recipe.seed, recipe.calib_cache, settle, mixed, recipe.placement, form
    )
    asked, parameters, mend = bounds(form, recipe), job.parameters(), None
    if mixed:
        from pipeline.building import recover

        # The user's own calibration images have no labels, or those of other classes.
        held = asked if recipe.calib_data is None else replace(asked, drop=None)
        mend = partial(recover.mixed, job, held)
        parameters["mixed"] = [held.sqnr_db, held.agreement, held.drop]
    make, tools = partial(calibrate.quantise, job, mend=mend), (*GRAPH, "onnxruntime")
    return Stage(form, ".onnx", make, asked, parameters, tools)


def _float_weights_stage(recipe: Recipe, *_: Images) -> Stage:
    return Stage("float_weights", ".onnx", stages.float_weights, bounds("float_weights", recipe), {}, GRAPH)


_halve = partial(_float16_stage, "halve")

# The bounds of every stage but those behind the last quantisation, which have those of their precision.
BOUNDS = {
    "freeze": EXACT,
    "export": REORDERED,
    "simplify": REORDERED,
    "fold_batchnorm": REORDERED,
    "equalise": REORDERED,
    "qat": replace(QUANTISED, retrained=True),
    "fp16": HALF,
    "int8": QUANTISED,
    "float_weights": replace(QUANTISED, step_sqnr_db=EXACT.step_sqnr_db),
    "fp8": QUANTISED,
}


def bounds(stage: str, recipe: Recipe) -> Tolerance:
    """The bounds of ``stage`` with the user's margin, where they have one at all; raises KeyError for no such stage."""
    last = stage.startswith(("halve", "engine", "uint8_input"))
    found = PRECISIONS[recipe.precision][1] if last else BOUNDS["fp16" if stage.startswith("fp16_") else stage]
    if stage.endswith("uint8_input"):
        found = replace(found, step_sqnr_db=EXACT.step_sqnr_db)
    return found if found.drop is None else replace(found, drop=recipe.max_drop, confidence=recipe.confidence)


# What each precision does between folding and the engine, and the bounds of everything after it.
PRECISIONS: dict[str, tuple[tuple[Lossy, ...], Tolerance]] = {
    "fp32": ((), REORDERED),
    "fp16": ((partial(_float16_stage, "fp16"),), HALF),
    "int8": ((_equalise_stage, _qat_stage, partial(_quantised_stage, "int8")), COMPILED),
    # For TensorRT with strong typing, which computes the rest of an int8 graph in float32.
    "int8-fp16": ((_equalise_stage, _qat_stage, partial(_quantised_stage, "int8"), _halve), COMPILED),
    # For TensorRT 8, which imports weights in float32 only.
    "int8-trt8": (
        (_equalise_stage, _qat_stage, partial(_quantised_stage, "int8"), _float_weights_stage),
        COMPILED,
    ),
    # For Ada, Blackwell and Thor; the neighbouring level is up to an eighth away.
    "fp8": ((_equalise_stage, partial(_quantised_stage, "fp8"), _halve), replace(COMPILED, step_sqnr_db=20)),
}

# Stages that change nothing an engine needs, and so may be passed over: what `--allow-fallback` can name.
FALLBACKS = ("simplify",)


def planned(
    recipe: Recipe, network: nn.Module, description: Description, calibration: Images, train: Images
) -> list[Stage]:
    """All rows, in order; ``train`` gives no range and no verdict."""
    from pipeline.models import frozen

    lossy, _ = PRECISIONS[recipe.precision]
    metadata = _metadata(description)
    rows = [
        Stage(
            "freeze",
            ".safetensors",
            partial(stages.freeze, network, description),
            bounds("freeze", recipe),
            {"weights": frozen.digest(network), "network": description.to_json()},
            ("safetensors",),
        ),
        Stage(
            "export",
            ".onnx",
            partial(stages.export, calibration.shape, metadata),
            bounds("export", recipe),
            {"shape": calibration.shape, "metadata": metadata},
            ("torch", *GRAPH),
        ),
        Stage(
            "simplify",
            ".onnx",
            stages.simplify,
            bounds("simplify", recipe),
            tools=("onnxsim", *GRAPH),
            may_fall_back="simplify" in (recipe.allow_fallback or ()),
        ),
        Stage("fold_batchnorm", ".onnx", stages.fold_batchnorm, bounds("fold_batchnorm", recipe), {}, GRAPH),
        *filter(None, (make(recipe, calibration, train) for make in lossy)),
    ]
    rows += _input_stages(recipe, "uint8_input")
    backends = engines.chosen(recipe)
    rows += _engine_stages(recipe, rows[-1].name, backends, "engine")
    others = [backend for backend in backends if engines.module(backend).BESIDE]
    if others and recipe.beside != "none" and recipe.precision.startswith(("int8", "fp8")):
        half = replace(recipe, precision=recipe.beside)
        rows.append(replace(_float16_stage("fp16", half, calibration, train), source="fold_batchnorm"))
        rows += _input_stages(half, "fp16_uint8_input")
        rows += _engine_stages(half, rows[-1].name, others, f"fp16_engine_{others[0].replace('-', '_')}")
    return rows


def _input_stages(recipe: Recipe, name: str) -> list[Stage]:
    if recipe.input_dtype == "float32":
        return []
    return [Stage(name, ".onnx", stages.uint8_input, bounds(name, recipe), {}, GRAPH)]


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
                module.SUFFIX,
                partial(stages.engine, backend, options := engines.options(module, recipe)),
                bounds(name, recipe),
                {"backend": backend, "machine": module.machine(), **owner, **options},
                module.PACKAGES,
                source=source,
                runs_here=module.RUNS_HERE,
                not_proven=getattr(module, "NOT_PROVEN", None) if first == "engine" else None,
            )
        )
    return rows


def _metadata(description: Description) -> dict[str, str]:
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
