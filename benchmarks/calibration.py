"""What calibration costs: time over a plain forward of ONNX Runtime on the same images, and peak memory.

    python -m benchmarks.calibration [--images 128] [--rounds 3]

A ResNeXt-50 at 224 pixels with random weights; each measurement in a process of its own, in turns, medians.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

import numpy as np

BATCH = 1


def network(folder: Path) -> Path:
    import torch

    from exporters import fold_batchnorm, onnx_graph, simplify
    from pipeline.models import specs
    from pipeline.models.resnet import ResNet

    torch.manual_seed(0)
    made = ResNet(specs.ARCHITECTURES["resnext50_32x4d"], 1000, 3, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    with torch.no_grad():
        made.train()(torch.rand(8, 3, 224, 224) * 255)  # running statistics that keep the activations in bounds
    paths = [folder / f"{name}.onnx" for name in ("raw", "simple", "folded")]
    onnx_graph.export(made, paths[0], (3, 224, 224), {})
    simplify.simplify(paths[0], paths[1])
    fold_batchnorm.fold_batchnorm(paths[1], paths[2])
    return paths[2]


def forward(src: Path, batches: list[np.ndarray]) -> None:
    from exporters import reference

    session = reference.session(src, "ORT_ENABLE_ALL", alone=True)
    measured(lambda: [session.run(None, {"images": batch}) for batch in batches])


def ours(src: Path, batches: list[np.ndarray]) -> None:
    from calibration import observe, qdq
    from calibration.histogram import Histogram

    observer = observe.Observer(src, qdq.tensors(src), Histogram)
    measured(lambda: observer.take(batches))


def minmax(src: Path, batches: list[np.ndarray]) -> None:
    from onnxruntime.quantization import CalibrationMethod, calibrate

    class Reader(calibrate.CalibrationDataReader):
        def __init__(self) -> None:
            self.left = iter(batches)

        def get_next(self) -> dict[str, np.ndarray] | None:
            batch = next(self.left, None)
            return None if batch is None else {"images": batch}

    made = calibrate.create_calibrator(
        src, ["Conv", "Gemm"], str(src.with_suffix(".minmax.onnx")), CalibrationMethod.MinMax
    )
    measured(lambda: (made.collect_data(Reader()), made.compute_data()))


def measured(work: object) -> None:
    wall, cpu = time.perf_counter(), time.process_time()
    work()  # type: ignore[operator]
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    # Not ru_maxrss: a child inherits its parent's.
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    peak = int(line.split()[1]) * 1024 / 1e9
    print(json.dumps([wall, cpu, peak]))


WAYS = {"plain forward": forward, "edge-resnet, all methods": ours, "onnxruntime minmax": minmax}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--images", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--way", choices=WAYS)
    parser.add_argument("--src", type=Path)
    asked = parser.parse_args()
    if asked.way:
        some = np.random.default_rng(0).uniform(0, 255, (8, 3, 224, 224)).astype(np.float32)
        WAYS[asked.way](asked.src, [some[i % 8 : i % 8 + BATCH] for i in range(0, asked.images, BATCH)])
        return
    with tempfile.TemporaryDirectory() as folder:
        src = network(Path(folder))
        found: dict[str, list[list[float]]] = {way: [] for way in WAYS}
        for _ in range(asked.rounds):
            for way, row in found.items():
                command = [sys.executable, "-m", "benchmarks.calibration", "--way", way, "--src", str(src)]
                done = subprocess.run([*command, "--images", str(asked.images)], stdout=subprocess.PIPE, check=True)
                row.append(json.loads(done.stdout))
    show(asked, found)


def show(asked: argparse.Namespace, found: dict[str, list[list[float]]]) -> None:
    plain = found["plain forward"]
    tools = ", ".join(f"{name} {version(name)}" for name in ("onnxruntime", "numpy"))
    cores = len(os.sched_getaffinity(0))
    print(f"ResNeXt-50 32x4d at 224 px, {asked.images} images, median of {asked.rounds}, {cores} cores, {tools}\n")
    print(
        "| | time, of the forward | CPU time, of the forward | CPU seconds | peak memory, GB |\n|---|---|---|---|---|"
    )
    for way, rows in found.items():
        ratios = [[one[k] / other[k] for k in (0, 1)] for one, other in zip(rows, plain, strict=True)]
        middle = [statistics.median(column) for column in zip(*ratios, strict=True)]
        cpu, peak = (statistics.median(row[k] for row in rows) for k in (1, 2))
        print(f"| {way} | {middle[0]:.2f} | {middle[1]:.2f} | {cpu:.1f} | {peak:.2f} |")


if __name__ == "__main__":
    main()
