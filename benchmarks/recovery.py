"""What each range method and equalisation buy: ``python -m benchmarks.recovery BUILD…``.

Of finished builds, ``04-fold_batchnorm.onnx`` as it is, with rescaled channels, and with 1 % of the calibration images
ten times too bright: prints a Markdown table, one column a method.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx
from onnx import numpy_helper

from calibration import observe, qdq, ranges
from calibration.recovery.equalise import equalise
from exporters.number_formats import INT8
from pipeline.building.plan import EQUALISE
from pipeline.data import sets
from pipeline.data.images import Images, spread
from pipeline.finished.finished_build import FinishedBuild
from pipeline.parity import answers
from pipeline.parity.drift import accuracy, drift

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    Batches = list[NDArray[np.float32]]

SPAN = 3.0
INNER = [("conv1", "conv2"), ("conv2", "conv3")]


def rescaled(src: Path, dst: Path, seed: int = 0) -> None:
    """The same float network with the inner channels of every block divided by exp(U(-3, 3)).

    Written against the names of the layers, with nothing of what is measured.
    """
    model, rng = onnx.load(src), np.random.default_rng(seed)
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    arrays = {name: numpy_helper.to_array(tensor).copy() for name, tensor in tensors.items()}
    blocks = sorted({name.rsplit(".", 2)[0] for name in arrays if name.endswith(".conv1.weight")})
    for block, (one, other) in [(block, pair) for block in blocks for pair in INNER]:
        if f"{block}.{other}.weight" not in arrays:
            continue
        channels, reader = len(arrays[f"{block}.{one}.bias"]), arrays[f"{block}.{other}.weight"]
        factors = np.exp(rng.uniform(-SPAN, SPAN, channels)).astype(np.float32)
        arrays[f"{block}.{one}.weight"] /= factors[:, None, None, None]
        arrays[f"{block}.{one}.bias"] /= factors
        groups = channels // reader.shape[1]
        reader *= np.repeat(factors.reshape(groups, -1), len(reader) // groups, axis=0)[:, :, None, None]
    for name, tensor in tensors.items():
        tensor.CopyFrom(numpy_helper.from_array(arrays[name], name))
    onnx.save(model, dst)


def outliers(batches: Batches) -> Batches:
    """One image in a hundred with its pixels times ten."""
    changed = np.concatenate(batches)
    changed[3::100] *= 10
    return np.array_split(changed, len(batches))


def amaxes(src: Path, batches: Batches, methods: Sequence[str]) -> Iterator[dict[str, float]]:
    """Each method's range of each tensor."""
    seen = observe.observe(src, list(qdq.tensors(src)), batches)
    for method in methods:
        yield {name: ranges.METHODS[method](each, INT8) for name, each in seen.items()}


def row(reference: NDArray[np.float32], labels: NDArray[np.int64], logits: NDArray[np.float32]) -> str:
    """Points of top-1 lost, agreement and SQNR, as cells."""
    far = drift(reference, logits)
    lost = accuracy(reference, labels).top1 - accuracy(logits, labels).top1
    return f"{100 * lost:.2f} · {100 * far.top1_agreement:.2f} · {far.sqnr_db:.1f}"


def measure(src: Path, calibration: Images, test: Images, asked: argparse.Namespace, folder: Path) -> None:
    """The lines of the table for ``src``."""
    batches = list(calibration.batches(25))
    rescaled(src, folder / "rescaled.onnx")
    reference = answers.of_file(src).answers(test, "float")
    cases = {
        "plain": (src, batches),
        "rescaled": (folder / "rescaled.onnx", batches),
        "outliers": (src, outliers(batches)),
        "rescaled, outliers": (folder / "rescaled.onnx", outliers(batches)),
    }
    for case, (path, seen) in cases.items():
        steps = {"none": path}
        for count in asked.equalise:
            steps[f"equalised on {count}"] = made = folder / f"equalised-{count}.onnx"
            equalise(path, made, np.array_split(np.concatenate(seen)[:count], -(-count // 25)))
        for step, source in steps.items():
            cells = []
            for amax in amaxes(source, seen, asked.methods):
                qdq.quantise(source, folder / "int8.onnx", amax)
                logits = answers.of_file(folder / "int8.onnx").answers(test, "INT8")
                cells.append(row(reference, test.labels, logits))
            print(f"| {case} | {step} | {' | '.join(cells)} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("builds", nargs="+", type=Path)
    parser.add_argument("--calib-samples", type=int, default=100)
    parser.add_argument("--test-samples", type=int, default=900)
    parser.add_argument("--equalise", type=int, nargs="+", default=[EQUALISE], help="on so many of the first images")
    parser.add_argument("--methods", nargs="+", choices=ranges.METHODS, default=list(ranges.METHODS))
    asked = parser.parse_args()
    for build in asked.builds:
        recipe = FinishedBuild.open(build).recipe
        data = sets.load(recipe)
        preprocessing = data.preprocessing.adjusted(recipe)
        parts = [(data.calibration, asked.calib_samples), (data.test, asked.test_samples)]
        calibration, test = (Images(part.take(spread(part.labels, count, 0)), preprocessing) for part, count in parts)
        print(f"\n{recipe.arch}, {asked.calib_samples} images calibrate, {asked.test_samples} judge\n")
        print(f"| case | recovery | {' | '.join(asked.methods)}: drop · agree % · SQNR dB |")
        print("|---|---|" + "---|" * len(asked.methods))
        with tempfile.TemporaryDirectory() as folder:
            measure(build / "04-fold_batchnorm.onnx", calibration, test, asked, Path(folder))


if __name__ == "__main__":
    main()
