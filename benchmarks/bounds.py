"""What the bounds of docs/bounds.md come from, on any float graph, its INT8 file, and test images.

    python -m benchmarks.bounds steps FLOAT.onnx INT8.onnx TEST.npy [--images 400]
    python -m benchmarks.bounds scales FLOAT.onnx INT8.onnx TEST.npy CALIBRATION.npy... [--images 256]

``steps`` compiles INT8.onnx with ONNX Runtime, writes float16 around it, and prints how far each lies from PyTorch and
from its file, then the same of an engine with one operand changed (tests/faults.py). ``scales`` takes the ranges of
each calibration method over each set of images, and prints how many activations are refuted as they are, eight times
larger and eight times smaller. Images are (N, C, H, W), 0..255, of the graph's own size.
"""

from __future__ import annotations

import argparse
import importlib
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx

from calibration import excess_noise, observe, qdq, ranges
from calibration.histogram import Peak
from exporters import engines, float16, reference
from exporters.number_formats import INT8
from pipeline.parity import answers
from pipeline.parity.drift import drift
from pipeline.parity.examine import GROSS_EXCESS_DB

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from numpy.typing import NDArray

    from calibration.histogram import Histogram

    Floats = NDArray[np.float32]

TESTS = Path(__file__).resolve().parent.parent / "tests"
BATCH = 8
# What becomes of the first integer convolution, by the place of the operand.
CHANGES: dict[str, tuple[int, Callable[[Floats], Floats]]] = {
    "weights transposed": (3, lambda weights: weights.transpose(0, 1, 3, 2)),
    "weights reversed": (3, lambda weights: weights[::-1]),
    "input scale × 2": (1, lambda scale: scale * 2),
    "weight scales rolled": (4, lambda scales: np.roll(scales, 1)),
    "output scale × 2": (6, lambda scale: scale * 2),
    "bias lost": (8, np.zeros_like),
}
FACTORS = (1.0, 8.0, 1 / 8)


def _batches(images: Floats) -> Iterator[Floats]:
    for start in range(0, len(images), BATCH):
        yield images[start : start + BATCH].astype(np.float32)


def _logits(path: Path, images: Floats) -> Floats:
    run = answers.of_file(path).run
    return np.concatenate([run(batch) for batch in _batches(images)])


def _row(name: str, before: Floats, after: Floats) -> str:
    moved = drift(before, after)
    figures = (moved.sqnr_db, moved.centred_db)
    cells = ["same" if figure is None else f"{figure:.1f}" for figure in figures]
    return f"| {name} | {cells[0]} | {cells[1]} | {100 * moved.top1_agreement:.2f} |"


def steps(good: Path, bad: Path, images: Floats) -> None:
    """Print the Markdown table of one network."""
    sys.path.insert(0, str(TESTS))  # the tests are no package
    faults = importlib.import_module("faults")

    with tempfile.TemporaryDirectory() as folder:
        engine, half, other = (Path(folder) / name for name in ("engine.ort.onnx", "half.onnx", "other.ort.onnx"))
        engines.named("onnxruntime").build(bad, engine, {}, lambda *_: None)
        observer = observe.Observer(bad, observe.activations(bad), Peak)
        observer.take(_batches(images[:32]))
        float16.float16(bad, half, {name: peak.amax for name, peak in observer.seen.items()})
        pytorch, file = _logits(good, images), _logits(bad, images)
        sys.stdout.write("| | SQNR dB | less their mean | agreement % |\n|---|---|---|---|\n")
        sys.stdout.write(_row("INT8 in all", pytorch, file) + "\n")
        for name, path in {"engine": engine, "halve": half}.items():
            found = _logits(path, images)
            sys.stdout.write(_row(f"{name} in all", pytorch, found) + "\n" + _row(f"{name} step", file, found) + "\n")
        for name, (place, change) in CHANGES.items():
            model = onnx.load(engine)
            faults.compiled(place, change)(model)
            onnx.save(model, other)
            sys.stdout.write(_row(f"step, {name}", file, _logits(other, images)) + "\n")


def scales(good: Path, bad: Path, images: Floats, calibrations: list[Path]) -> None:
    """Print the Markdown table of one network."""
    tensors = excess_noise.tensors(good, bad)
    seen = observe.observe(good, tensors, _batches(images), reference.LEVEL)
    sys.stdout.write(
        "| calibration | method | largest excess dB | refuted | of × 8 | of / 8 |\n|---|---|---|---|---|---|\n"
    )
    for path in calibrations:
        calibrated = observe.observe(good, tensors, _batches(np.load(path)), reference.LEVEL)
        for method, range_of in ranges.METHODS.items():
            amax = {name: range_of(histogram, INT8) for name, histogram in calibrated.items()}
            found = [_excess_db(good, amax, factor, seen) for factor in FACTORS]
            refuted = [sum(excess > GROSS_EXCESS_DB for excess in excesses) for excesses in found]
            counts = " | ".join(f"{count} of {len(tensors)}" for count in refuted)
            sys.stdout.write(f"| {path.stem} | {method} | {max(found[0]):.1f} | {counts} |\n")


def _excess_db(good: Path, amax: dict[str, float], factor: float, seen: Mapping[str, Histogram]) -> list[float]:
    """That of each activation, with its range times ``factor``."""
    with tempfile.TemporaryDirectory() as folder:
        other = Path(folder) / "other.onnx"
        qdq.quantise(good, other, {name: factor * value for name, value in amax.items()})
        noises = excess_noise.excess_noises(good, other, seen)
    by_tensor = {noise.activation: noise.excess_db for noise in noises if noise.activation is not None}
    return list(by_tensor.values())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("steps", "scales"))
    parser.add_argument("good", type=Path)
    parser.add_argument("bad", type=Path)
    parser.add_argument("test", type=Path)
    parser.add_argument("calibration", type=Path, nargs="*")
    parser.add_argument("--images", type=int, default=400)
    given = parser.parse_args()
    images = np.load(given.test)[: given.images]
    if given.what == "steps":
        steps(given.good, given.bad, images)
    else:
        scales(given.good, given.bad, images, given.calibration)


if __name__ == "__main__":
    main()
