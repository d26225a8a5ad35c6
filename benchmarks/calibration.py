"""What calibration costs: time over a plain forward of ONNX Runtime on the same images, and peak memory.

    python -m benchmarks.calibration [--images 128] [--rounds 3]

A ResNeXt-50 at 224 pixels with random weights; each measurement in a process of its own, in turns, medians. Of ModelOpt
and NNCF, in environments of their own, it is the whole of their quantisation: they offer no part of it.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

import numpy as np
import platformdirs

from benchmarks.peers import environments
from benchmarks.peers.measured import measured

BATCH = 1
# So many images are drawn; more are the same ones again.
DRAWN = 8


def network(folder: Path) -> Path:
    """A ResNeXt-50 with random weights as the folded graph that calibration gets."""
    import torch

    from exporters import export, fold_batchnorm, simplify
    from pipeline.models import specs
    from pipeline.models.resnet import ResNet

    torch.manual_seed(0)
    spec = specs.ARCHITECTURES["resnext50_32x4d"]
    module = ResNet(spec, 1000, 3, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    with torch.no_grad():
        module.train()(torch.rand(8, 3, 224, 224) * 255)  # running statistics that keep the activations in bounds

    raw = folder / "raw.onnx"
    simplified = folder / "simple.onnx"
    folded = folder / "folded.onnx"
    export.export(module, raw, (3, 224, 224), {})
    simplify.simplify(raw, simplified)
    fold_batchnorm.fold_batchnorm(simplified, folded)
    return folded


def forward(src: Path, batches: list[np.ndarray]) -> None:
    from exporters import reference

    session = reference.session(src, "ORT_ENABLE_ALL", alone=True)
    measured(lambda: [session.run(None, {"images": batch}) for batch in batches])


def all_methods(src: Path, batches: list[np.ndarray]) -> None:
    from calibration import observe, qdq
    from calibration.histogram import Histogram

    observer = observe.Observer(src, list(qdq.tensors(src)), Histogram)
    measured(lambda: observer.take(batches))


def equalised_first(src: Path, batches: list[np.ndarray]) -> None:
    from calibration import observe, qdq
    from calibration.histogram import Histogram
    from calibration.recovery.equalise import equalise
    from pipeline.building.plan import EQUALISE

    dst = src.with_suffix(".equalised.onnx")

    def both() -> None:
        equalise(src, dst, batches[:EQUALISE])
        observe.Observer(dst, list(qdq.tensors(dst)), Histogram).take(batches)

    measured(both)


def onnxruntime_minmax(src: Path, batches: list[np.ndarray]) -> None:
    from onnxruntime.quantization import CalibrationMethod, calibrate

    class Reader(calibrate.CalibrationDataReader):  # type: ignore[misc]  # it brings no types
        def __init__(self) -> None:
            self.remaining = iter(batches)

        def get_next(self) -> dict[str, np.ndarray] | None:
            batch = next(self.remaining, None)
            return None if batch is None else {"images": batch}

    graph_with_outputs = str(src.with_suffix(".minmax.onnx"))
    calibrator = calibrate.create_calibrator(src, ["Conv", "Gemm"], graph_with_outputs, CalibrationMethod.MinMax)
    measured(lambda: (calibrator.collect_data(Reader()), calibrator.compute_data()))


WAYS = {
    "plain forward": forward,
    "edge-resnet, all methods": all_methods,
    "edge-resnet, equalised first": equalised_first,
    "onnxruntime minmax": onnxruntime_minmax,
}
# Of each peer its environment, the script in benchmarks/peers/quantisers, and the method that the script is told.
PEERS = {"ModelOpt max": ("modelopt", "modelopt", "max"), "NNCF": ("nncf", "nncf_onnx", "default")}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--images", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--peers", action="store_true", help="ModelOpt and NNCF as well")
    parser.add_argument("--work", type=Path, default=Path(platformdirs.user_cache_dir("edge-resnet"), "peers"))
    parser.add_argument("--way", choices=WAYS)
    parser.add_argument("--src", type=Path)
    arguments = parser.parse_args()

    drawn = np.random.default_rng(0).uniform(0, 255, (DRAWN, 3, 224, 224)).astype(np.float32)
    if arguments.way:
        # One measurement, in a process of its own: cost() asks for it.
        starts = [number % DRAWN for number in range(0, arguments.images, BATCH)]
        batches = [drawn[start : start + BATCH] for start in starts]
        WAYS[arguments.way](arguments.src, batches)
        return

    ways = [*WAYS, *PEERS] if arguments.peers else list(WAYS)
    rows_of: dict[str, list[list[float]]] = {way: [] for way in ways}
    with tempfile.TemporaryDirectory() as folder:
        src = network(Path(folder))
        np.save(Path(folder, "images.npy"), np.resize(drawn, (arguments.images, *drawn.shape[1:])))
        for _ in range(arguments.rounds):
            for way, rows in rows_of.items():
                rows.append(cost(way, src, arguments))
    show(arguments, rows_of)


def cost(way: str, src: Path, arguments: argparse.Namespace) -> list[float]:
    """Seconds, CPU seconds and peak GB of ``way`` in a process of its own."""
    folder = Path(__file__).parent / "peers"
    if way in PEERS:
        environment, script, method = PEERS[way]
        file = folder / "quantisers" / f"{script}.py"
        python = environments.python(environment, arguments.work)
        command = [python, file, method, src, src.parent / "images.npy", src.parent / "made.onnx"]
    else:
        command = [sys.executable, "-m", "benchmarks.calibration", "--way", way]
        command += ["--src", src, "--images", arguments.images]

    done = subprocess.run(
        list(map(str, command)),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        check=True,
        env={**os.environ, "PYTHONPATH": str(folder)},
        text=True,
    )
    # A peer may print more behind it.
    figures = next(line for line in reversed(done.stdout.splitlines()) if line.startswith('{"seconds'))
    return list(json.loads(figures).values())


def show(arguments: argparse.Namespace, rows_of: dict[str, list[list[float]]]) -> None:
    """Print the table: medians over the rounds, and of each round's own plain forward."""
    tools = ", ".join(f"{name} {version(name)}" for name in ("onnxruntime", "numpy"))
    cores = len(os.sched_getaffinity(0))
    sample = f"{arguments.images} images, median of {arguments.rounds}"
    print(f"ResNeXt-50 32x4d at 224 px, {sample}, {cores} cores, {tools}\n")
    print(
        "| | time, of the forward | CPU time, of the forward | CPU seconds | peak memory, GB |\n|---|---|---|---|---|"
    )
    forward_rows = rows_of["plain forward"]
    for way, rows in rows_of.items():
        time_ratio = median_ratio(rows, forward_rows, 0)
        cpu_ratio = median_ratio(rows, forward_rows, 1)
        cpu_seconds = statistics.median(row[1] for row in rows)
        peak_gb = statistics.median(row[2] for row in rows)
        print(f"| {way} | {time_ratio:.2f} | {cpu_ratio:.2f} | {cpu_seconds:.1f} | {peak_gb:.2f} |")


def median_ratio(rows: list[list[float]], forward_rows: list[list[float]], column: int) -> float:
    """The median over the rounds of one column over that of the forward of the same round."""
    ratios = [row[column] / forward[column] for row, forward in zip(rows, forward_rows, strict=True)]
    return statistics.median(ratios)


if __name__ == "__main__":
    main()
