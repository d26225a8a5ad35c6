"""What channels of different sizes cost INT8, and what equalisation wins back: ``python -m benchmarks.recovery BUILD``.

Of finished builds, ``04-fold_batchnorm.onnx`` as it is, with rescaled channels, and with 1 % of the calibration images
ten times too bright: prints a Markdown table.
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
from pipeline.data import sets
from pipeline.data.images import Images, spread
from pipeline.parity import answers
from pipeline.parity.drift import accuracy, drift
from pipeline.recipe import Recipe

if TYPE_CHECKING:
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
    changed[50::100] *= 10
    return np.array_split(changed, len(batches))


def int8(src: Path, dst: Path, batches: Batches) -> None:
    """The int8 stage as a build runs it by default."""
    seen = observe.observe(src, qdq.tensors(src), batches)
    qdq.quantise(src, dst, {name: ranges.mse(histogram) for name, histogram in seen.items()})


def row(reference: NDArray[np.float32], labels: NDArray[np.int64], logits: NDArray[np.float32]) -> str:
    """Points of top-1 lost, agreement and SQNR, as cells."""
    far = drift(reference, logits)
    lost = accuracy(reference, labels).top1 - accuracy(logits, labels).top1
    return f"{100 * lost:.2f} · {100 * far.top1_agreement:.2f} · {far.sqnr_db:.1f}"


def measure(src: Path, calibration: Images, test: Images, folder: Path) -> None:
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
        work = equalise(path, folder / "equalised.onnx", seen)
        cells = []
        for source in (path, folder / "equalised.onnx"):
            int8(source, folder / "int8.onnx", seen)
            logits = answers.of_file(folder / "int8.onnx").answers(test, "INT8")
            cells.append(row(reference, test.labels, logits))
        print(f"| {src.parent.name} | {case} | {' | '.join(cells)} | {work} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("builds", nargs="+", type=Path)
    parser.add_argument("--data", default="digits")
    parser.add_argument("--calib-samples", type=int, default=100)
    parser.add_argument("--test-samples", type=int, default=900)
    asked = parser.parse_args()
    print("| network | case | none: drop · agree % · SQNR dB | equalised | work |\n|---|---|---|---|---|")
    for build in asked.builds:
        src = build / "04-fold_batchnorm.onnx"
        data = sets.load(Recipe(arch="resnet18", data=asked.data))
        parts = [(data.calibration, asked.calib_samples), (data.test, asked.test_samples)]
        images = [Images(part.take(spread(part.labels, count, 0)), data.preprocessing) for part, count in parts]
        with tempfile.TemporaryDirectory() as folder:
            measure(src, *images, Path(folder))


if __name__ == "__main__":
    main()
