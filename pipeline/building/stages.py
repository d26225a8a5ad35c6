"""What each stage does: a file in, a file out, and a line of what was done."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pipeline import engine_seal
from pipeline.building import calibrate, calibration_statistics, engines
from pipeline.stage import Made

if TYPE_CHECKING:
    from pathlib import Path

    from torch import nn

    from pipeline.building.calibration_job import CalibrationJob
    from pipeline.data.images import Images
    from pipeline.models.frozen import NetworkDescription


def freeze(network: nn.Module, description: NetworkDescription, _: Path, dst: Path) -> Made:
    """The reference: weights and spec of the network that training or the checkpoint gave."""
    from pipeline.models import frozen

    frozen.write(network, description, dst)
    numbers = sum(value.numel() for value in network.parameters())
    return Made(f"{numbers:,} weights as safetensors beside their spec")


def export(shape: tuple[int, int, int], metadata: dict[str, str], src: Path, dst: Path) -> Made:
    """The frozen network, read back, as raw ONNX."""
    from exporters import export as stage
    from pipeline.models import frozen

    return Made(stage.export(frozen.read(src)[0], dst, shape, metadata))


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


def float_weights(src: Path, dst: Path) -> Made:
    """The same INT8 graph with its weights in float32 behind Q and DQ."""
    from exporters import float_weights as stage

    return Made(stage.float_weights(src, dst))


def uint8_input(src: Path, dst: Path) -> Made:
    """The same graph with pixels as bytes."""
    from exporters import uint8_input as stage

    return Made(stage.uint8_input(src, dst))


def equalise(calibration: Images, src: Path, dst: Path) -> Made:
    """The same network with its channels rescaled to fit INT8 better."""
    from calibration.recovery import equalise as stage

    return Made(stage.equalise(src, dst, _batches(calibration, "equalising")))


def qat(job: CalibrationJob, images: Images, src: Path, dst: Path) -> Made:
    """The same network with weights that INT8 rounds better: trained under its rounding, on ``images``."""
    from calibration.recovery import qat as stage
    from pipeline.console.progress import bar

    amax, said, _ = calibrate.measured(job, src, dst)
    with bar("tuning under INT8", stage.RECIPE.steps) as advance:
        work = stage.qat(src, dst, amax, job.placement, images.select, len(images), job.seed, advance)
    return Made(f"{work}, {said}")


def engine(backend: str, options: dict[str, Any], src: Path, dst: Path) -> Made:
    """The engine of one backend."""
    from pipeline.console.progress import phases

    module = engines.module(backend)
    with phases(f"building {dst.name}") as heard:
        built: dict[str, Any] = module.build(src, dst, options, heard)
    count, convolutions = built["int8"], built["convolutions"]
    counted = f"{convolutions} convolutions" if count is None else f"8-bit convolutions {count} of {convolutions}"
    work = built.get("work") or f"{backend}, {counted}"
    share = None if count is None else count / convolutions
    details = {"backend": backend, "description": built.get("description")}
    if hasattr(module, "made_for"):
        details["seal"] = engine_seal.seal(dst, module.made_for())
    return Made("; ".join([work, *built["warnings"]]), share, details)


def _batches(images: Images, label: str) -> Any:
    from pipeline.console.progress import bar

    size = calibration_statistics.batch_size(images)
    with bar(label, -(-len(images) // size)) as advance:
        for batch in images.batches(size):
            yield batch
            advance()
