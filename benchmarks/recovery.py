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
from pipeline.data.images import Images
from pipeline.data.part import spread
from pipeline.finished.finished_build import FinishedBuild
from pipeline.parity import answers
from pipeline.parity.drift import drift

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from pipeline.data.part import Part

    Batches = list[NDArray[np.float32]]

# Channels are divided by up to e to this power, and multiplied by as much.
SPAN = 3.0
# In each block, the convolution that writes the inner channels and the one that reads them.
INNER = [("conv1", "conv2"), ("conv2", "conv3")]
# Images in a batch of calibration.
BATCH = 25


def rescaled(src: Path, dst: Path, seed: int = 0) -> None:
    """The same float network with the inner channels of every block divided by exp(U(-3, 3)).

    Written against the names of the layers, with nothing of what is measured.
    """
    model = onnx.load(src)
    generator = np.random.default_rng(seed)
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    arrays = {name: numpy_helper.to_array(tensor).copy() for name, tensor in tensors.items()}
    blocks = sorted({name.rsplit(".", 2)[0] for name in arrays if name.endswith(".conv1.weight")})
    for block in blocks:
        for writer, reader in INNER:
            # A basic block has no third convolution.
            if f"{block}.{reader}.weight" in arrays:
                rescale_between(arrays, f"{block}.{writer}", f"{block}.{reader}", generator)

    for name, tensor in tensors.items():
        tensor.CopyFrom(numpy_helper.from_array(arrays[name], name))
    onnx.save(model, dst)


def rescale_between(
    arrays: dict[str, NDArray[np.float32]], writer: str, reader: str, generator: np.random.Generator
) -> None:
    """Divide the channels that ``writer`` writes, and multiply the weights with which ``reader`` reads them."""
    channels = len(arrays[f"{writer}.bias"])
    factors = np.exp(generator.uniform(-SPAN, SPAN, channels)).astype(np.float32)
    arrays[f"{writer}.weight"] /= factors[:, None, None, None]
    arrays[f"{writer}.bias"] /= factors

    reader_weight = arrays[f"{reader}.weight"]  # (outputs, inputs / groups, height, width)
    groups = channels // reader_weight.shape[1]
    # Each output reads the channels of its own group.
    factors_of_group = factors.reshape(groups, -1)
    factors_of_output = np.repeat(factors_of_group, len(reader_weight) // groups, axis=0)
    reader_weight *= factors_of_output[:, :, None, None]


def outliers(batches: Batches) -> Batches:
    """One image in a hundred with its pixels times ten."""
    changed = np.concatenate(batches)
    changed[3::100] *= 10
    return np.array_split(changed, len(batches))


def amaxes(src: Path, batches: Batches, methods: Sequence[str]) -> Iterator[dict[str, float]]:
    """Each method's range of each tensor."""
    histograms = observe.observe(src, list(qdq.tensors(src)), batches)
    for method in methods:
        range_of = ranges.METHODS[method]
        yield {name: range_of(histogram, INT8) for name, histogram in histograms.items()}


def row(reference: NDArray[np.float32], labels: NDArray[np.int64], logits: NDArray[np.float32]) -> str:
    """Points of top-1 lost, agreement and SQNR, as cells."""
    moved = drift(reference, logits)
    lost = (reference.argmax(1) == labels).mean() - (logits.argmax(1) == labels).mean()
    return f"{100 * lost:.2f} · {100 * moved.top1_agreement:.2f} · {moved.sqnr_db:.1f}"


def measure(src: Path, calibration: Images, test: Images, arguments: argparse.Namespace, folder: Path) -> None:
    """Print the lines of the table for ``src``."""
    batches = list(calibration.batches(BATCH))
    rescaled(src, folder / "rescaled.onnx")
    reference = answers.of_file(src).answers(test, "float")
    cases = {
        "plain": (src, batches),
        "rescaled": (folder / "rescaled.onnx", batches),
        "outliers": (src, outliers(batches)),
        "rescaled, outliers": (folder / "rescaled.onnx", outliers(batches)),
    }
    for case, (path, case_batches) in cases.items():
        for recovery, source in recovered(path, case_batches, arguments.equalise, folder).items():
            cells = []
            for amax in amaxes(source, case_batches, arguments.methods):
                qdq.quantise(source, folder / "int8.onnx", amax)
                logits = answers.of_file(folder / "int8.onnx").answers(test, "INT8")
                cells.append(row(reference, test.labels, logits))
            print(f"| {case} | {recovery} | {' | '.join(cells)} |", flush=True)


def recovered(src: Path, batches: Batches, counts: Sequence[int], folder: Path) -> dict[str, Path]:
    """``src`` by itself and equalised on each of ``counts`` of the first images, by the name in the table."""
    images = np.concatenate(batches)
    files = {"none": src}
    for count in counts:
        equalised = folder / f"equalised-{count}.onnx"
        batch_count = -(-count // BATCH)
        equalise(src, equalised, np.array_split(images[:count], batch_count))
        files[f"equalised on {count}"] = equalised
    return files


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("builds", nargs="+", type=Path)
    parser.add_argument("--calib-samples", type=int, default=100)
    parser.add_argument("--test-samples", type=int, default=900)
    parser.add_argument("--equalise", type=int, nargs="+", default=[EQUALISE], help="on so many of the first images")
    parser.add_argument("--methods", nargs="+", choices=ranges.METHODS, default=list(ranges.METHODS))
    arguments = parser.parse_args()

    for build in arguments.builds:
        recipe = FinishedBuild.open(build).recipe
        data = sets.load(recipe)
        preprocessing = data.preprocessing.adjusted(recipe)
        calibration = Images(spread_over(data.calibration, arguments.calib_samples), preprocessing)
        test = Images(spread_over(data.test, arguments.test_samples), preprocessing)

        print(f"\n{recipe.arch}, {arguments.calib_samples} images calibrate, {arguments.test_samples} judge\n")
        print(f"| case | recovery | {' | '.join(arguments.methods)}: drop · agree % · SQNR dB |")
        print("|---|---|" + "---|" * len(arguments.methods))
        with tempfile.TemporaryDirectory() as folder:
            measure(build / "04-fold_batchnorm.onnx", calibration, test, arguments, Path(folder))


def spread_over(part: Part, count: int) -> Part:
    """``count`` images of ``part``, of every class alike."""
    return part.take(spread(part.labels, count, 0))


if __name__ == "__main__":
    main()
