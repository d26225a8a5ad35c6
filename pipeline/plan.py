"""Recipe to stages: the order, and every bound, stand here and nowhere else."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from pipeline import calibrate, engines, recover, streaming
from pipeline.stage import Made, Stage, Tolerance

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from pipeline.data.images import Images
    from pipeline.models.frozen import Description
    from pipeline.models.resnet import ResNet
    from pipeline.recipe import Recipe

    Lossy = Callable[[Recipe, Images, Images], Stage | None]

# What writes every graph, and so belongs into the key of every stage that does.
GRAPH = ("onnx", "onnx-ir", "numpy")

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


def freeze(network: ResNet, description: Description, _: Path, dst: Path) -> Made:
    """The reference: weights and spec of the network that training or the checkpoint gave."""
    from pipeline.models import frozen

    frozen.write(network, description, dst)
    numbers = sum(value.numel() for value in network.parameters())
    return Made(f"{numbers:,} weights as safetensors beside their spec")


def export(shape: tuple[int, int, int], metadata: dict[str, str], src: Path, dst: Path) -> Made:
    """The frozen network, read back, as raw ONNX."""
    from exporters import onnx_graph
    from pipeline.models import frozen

    return Made(onnx_graph.export(frozen.read(src)[0], dst, shape, metadata))


def simplify(src: Path, dst: Path) -> Made:
    """The same graph tidied by onnxsim, which leaves BatchNormalization alone."""
    from exporters import simplify as stage

    return Made(stage.simplify(src, dst))


def fold_batchnorm(src: Path, dst: Path) -> Made:
    """Every BatchNormalization into the convolution before it."""
    from exporters import fold_batchnorm as stage

    return Made(stage.fold_batchnorm(src, dst))


def fp16(calibration: Images, src: Path, dst: Path) -> Made:
    """The graph in float16, its INT8 as it is, after a look at every activation on real images."""
    from calibration import observe
    from calibration.histogram import Peak
    from exporters import float16

    observer = observe.Observer(src, observe.activations(src), Peak)
    observer.take(_batches(calibration, "looking for overflow"))
    return Made(float16.float16(src, dst, {name: peak.amax for name, peak in observer.seen.items()}))


def equalise(calibration: Images, src: Path, dst: Path) -> Made:
    """The same network with its channels rescaled to fit INT8 better."""
    from calibration.recovery import equalise as stage

    return Made(stage.equalise(src, dst, _batches(calibration, "equalising")))


def qat(job: calibrate.Calibration, images: Images, src: Path, dst: Path) -> Made:
    """The same network with weights that INT8 rounds better: trained under its rounding, on ``images``."""
    from calibration.recovery import qat as stage
    from pipeline.report.progress import bar

    amax, said, _ = calibrate.measured(job, src, dst)
    with bar("tuning under INT8", stage.RECIPE.steps) as advance:
        work = stage.qat(src, dst, amax, job.placement, images.select, len(images), job.seed, advance)
    return Made(f"{work}, {said}")


def engine(backend: str, options: dict[str, Any], src: Path, dst: Path) -> Made:
    """The engine of one backend."""
    built: dict[str, Any] = engines.module(backend).build(src, dst, **options)
    count, convolutions = built["int8"], built["convolutions"]
    work = f"{convolutions} convolutions" if count is None else f"8-bit convolutions {count} of {convolutions}"
    share = None if count is None else count / convolutions
    return Made("; ".join([f"{backend}, {work}", *built["warnings"]]), share)


def _float16_stage(name: str, recipe: Recipe, calibration: Images, _: Images) -> Stage:
    make, parameters, tools = partial(fp16, calibration), {"images": calibration.digest}, (*GRAPH, "onnxruntime")
    return Stage(name, ".onnx", make, bounds(name, recipe), parameters, tools, not_proven=FLOAT16_ON_CPU)


def _equalise_stage(recipe: Recipe, images: Images, _: Images) -> Stage | None:
    if "equalise" not in recipe.recoveries:
        return None
    parameters, tools = {"images": images.digest}, (*GRAPH, "onnxruntime")
    return Stage("equalise", ".onnx", partial(equalise, images), bounds("equalise", recipe), parameters, tools)


def _qat_stage(recipe: Recipe, calibration: Images, train: Images) -> Stage | None:
    if "qat" not in recipe.recoveries:
        return None
    # The user's own calibration images are what the network will see; the data set may be another.
    images = train if recipe.calib_data is None else calibration
    job = calibrate.Calibration(calibration, recipe.calib_method, recipe.seed, placement=recipe.placement)
    parameters, tools = {**job.parameters(), "train": images.digest}, ("torch", *GRAPH, "onnxruntime")
    make = partial(qat, job, images)
    return Stage("qat", ".onnx", make, bounds("qat", recipe), parameters, tools, not_proven=RETRAINED)


def _quantised_stage(form: str, recipe: Recipe, images: Images, _: Images) -> Stage:
    settle = recipe.calib_samples is None
    mixed = "mixed" in recipe.recoveries
    job = calibrate.Calibration(
        images, recipe.calib_method, recipe.seed, recipe.calib_cache, settle, mixed, recipe.placement, form
    )
    asked, parameters, mend = bounds(form, recipe), job.parameters(), None
    if mixed:
        # The user's own calibration images have no labels, or those of other classes.
        held = asked if recipe.calib_data is None else replace(asked, drop=None)
        mend = partial(recover.mixed, job, held)
        parameters["mixed"] = [held.sqnr_db, held.agreement, held.drop]
    make, tools = partial(calibrate.quantise, job, mend=mend), (*GRAPH, "onnxruntime")
    return Stage(form, ".onnx", make, asked, parameters, tools)


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
    "fp8": QUANTISED,
}


def bounds(stage: str, recipe: Recipe) -> Tolerance:
    """The bounds of ``stage`` with the user's margin, where they have one at all; raises KeyError for no such stage."""
    found = PRECISIONS[recipe.precision][1] if stage.startswith(("halve", "engine")) else BOUNDS[stage]
    return found if found.drop is None else replace(found, drop=recipe.max_drop, confidence=recipe.confidence)


# What each precision does between folding and the engine, and the bounds of everything after it.
PRECISIONS: dict[str, tuple[tuple[Lossy, ...], Tolerance]] = {
    "fp32": ((), REORDERED),
    "fp16": ((partial(_float16_stage, "fp16"),), HALF),
    "int8": ((_equalise_stage, _qat_stage, partial(_quantised_stage, "int8")), COMPILED),
    # For TensorRT with strong typing, which computes the rest of an int8 graph in float32.
    "int8-fp16": ((_equalise_stage, _qat_stage, partial(_quantised_stage, "int8"), _halve), COMPILED),
    # For Ada, Blackwell and Thor; the neighbouring level is up to an eighth away.
    "fp8": ((_equalise_stage, partial(_quantised_stage, "fp8"), _halve), replace(COMPILED, step_sqnr_db=20)),
}

# Stages that change nothing an engine needs, and so may be passed over: what `--allow-fallback` can name.
FALLBACKS = ("simplify",)


def stages(
    recipe: Recipe, network: ResNet, description: Description, calibration: Images, train: Images
) -> list[Stage]:
    """All rows, in order; ``train`` gives no range and no verdict."""
    from pipeline.models import frozen

    lossy, _ = PRECISIONS[recipe.precision]
    metadata = _metadata(description)
    rows = [
        Stage(
            "freeze",
            ".safetensors",
            partial(freeze, network, description),
            bounds("freeze", recipe),
            {"weights": frozen.digest(network), "network": description.to_json()},
            ("safetensors",),
        ),
        Stage(
            "export",
            ".onnx",
            partial(export, calibration.shape, metadata),
            bounds("export", recipe),
            {"shape": calibration.shape, "metadata": metadata},
            ("torch", *GRAPH),
        ),
        Stage(
            "simplify",
            ".onnx",
            simplify,
            bounds("simplify", recipe),
            tools=("onnxsim", *GRAPH),
            may_fall_back="simplify" in (recipe.allow_fallback or ()),
        ),
        Stage("fold_batchnorm", ".onnx", fold_batchnorm, bounds("fold_batchnorm", recipe), {}, GRAPH),
        *filter(None, (make(recipe, calibration, train) for make in lossy)),
    ]
    source = rows[-1].name
    for backend in engines.chosen(recipe.engine, recipe.placement):
        module = engines.module(backend)
        name = "engine" if rows[-1].name == source else f"engine_{backend.replace('-', '_')}"
        rows.append(
            Stage(
                name,
                module.SUFFIX,
                partial(engine, backend, options := engines.options(module, recipe)),
                bounds(name, recipe),
                {"backend": backend, "machine": module.machine(), **options},
                module.PACKAGES,
                source=source,
                runs_here=module.RUNS_HERE,
            )
        )
    return rows


def _batches(images: Images, label: str) -> Any:
    from pipeline.report.progress import bar

    size = streaming.batch_size(images)
    with bar(label, -(-len(images) // size)) as advance:
        for batch in images.batches(size):
            yield batch
            advance()


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
