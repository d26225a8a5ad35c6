"""What each stage does: a file in, a file out, and a line of what was done."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pipeline import engine_seal
from pipeline.building import calibrate
from pipeline.stage import Made

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray
    from torch import nn

    from exporters.engines.backend import Backend
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
    from exporters import export as exporter
    from pipeline.models import frozen

    # From the file, not from memory: what is shipped comes of what was kept.
    network, _ = frozen.read(src)
    return Made(exporter.export(network, dst, shape, metadata))


def simplify(src: Path, dst: Path) -> Made:
    """The same graph tidied by onnxsim, as far as that can be proven; BatchNormalization is left alone."""
    from exporters import simplify as simplifier

    simplified = simplifier.simplify(src, dst)
    return Made(simplified.work, details={"unproven": simplified.unproven} if simplified.unproven else {})


def fold_batchnorm(src: Path, dst: Path) -> Made:
    """Every BatchNormalization into the convolution before it."""
    from exporters import fold_batchnorm as folder

    return Made(folder.fold_batchnorm(src, dst))


def float16(calibration: Images, src: Path, dst: Path) -> Made:
    """The graph in float16, its 8-bit levels as they are, after a look at every activation on real images."""
    from calibration import observe
    from calibration.histogram import Peak
    from exporters import float16 as converter

    # Only the largest magnitudes are needed: they tell what float16 cannot hold.
    observer = observe.Observer(src, observe.activations(src), Peak)
    observer.take(_batches(calibration, "looking for overflow"))
    peaks = {name: peak.amax for name, peak in observer.seen.items()}
    return Made(converter.float16(src, dst, peaks))


def float_weights(src: Path, dst: Path) -> Made:
    """The same INT8 graph with its weights in float32 behind Q and DQ."""
    from exporters import float_weights as unpacker

    return Made(unpacker.float_weights(src, dst))


def uint8_input(src: Path, dst: Path) -> Made:
    """The same graph with pixels as bytes."""
    from exporters import uint8_input as converter

    return Made(converter.uint8_input(src, dst))


def equalise(calibration: Images, src: Path, dst: Path) -> Made:
    """The same network with its channels rescaled to fit INT8 better."""
    from calibration.recovery import equalise as recovery

    return Made(recovery.equalise(src, dst, _batches(calibration, "equalising")))


def qat(job: CalibrationJob, images: Images, src: Path, dst: Path) -> Made:
    """The same network with weights that INT8 rounds better: trained under its rounding, on ``images``."""
    from calibration.recovery import qat as recovery
    from pipeline.console.progress import bar

    # The ranges of the weights as they are; the stage behind measures those of the tuned ones.
    amax, ranges, _ = calibrate.measured(job, src, dst)
    with bar("tuning under INT8", recovery.RECIPE.steps) as advance:
        work = recovery.qat(src, dst, amax, job.placement, images.select, len(images), job.seed, advance)
    return Made(f"{work}, {ranges}")


def engine(backend: Backend, options: dict[str, Any], src: Path, dst: Path) -> Made:
    """The engine of one backend."""
    from pipeline.console.progress import phases

    with phases(f"building {dst.name}") as advance:
        built = backend.build(src, dst, options, advance)

    # Some builders do not say what runs in 8 bits: the count is None then. And a network may have no convolution.
    share = None
    counted = f"{built.convolutions} convolutions"
    if built.eight_bit_convolutions is not None and built.convolutions:
        share = built.eight_bit_convolutions / built.convolutions
        counted = f"8-bit convolutions {built.eight_bit_convolutions} of {built.convolutions}"

    details: dict[str, Any] = {"backend": backend.name, "description": built.description}
    # To open such an engine is to run what it holds: the seal proves who built it, and for which GPU.
    made_for = backend.made_for()
    if made_for is not None:
        details["seal"] = engine_seal.seal(dst, made_for)
    work = built.work or f"{backend.name}, {counted}"
    return Made("; ".join([work, *built.warnings]), share, details)


def _batches(images: Images, label: str) -> Iterator[NDArray[np.float32]]:
    """``images`` a few at a time, with a bar under ``label``."""
    from pipeline.console.progress import bar

    size = images.observed_batch_size
    how_many = -(-len(images) // size)
    with bar(label, how_many) as advance:
        for batch in images.batches(size):
            yield batch
            advance()
