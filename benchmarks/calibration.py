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


def network(folder: Path) -> Path:
    import torch

    from exporters import export, fold_batchnorm, simplify
    from pipeline.models import specs
    from pipeline.models.resnet import ResNet

    torch.manual_seed(0)
    made = ResNet(specs.ARCHITECTURES["resnext50_32x4d"], 1000, 3, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    with torch.no_grad():
        made.train()(torch.rand(8, 3, 224, 224) * 255)  # running statistics that keep the activations in bounds
    paths = [folder / f"{name}.onnx" for name in ("raw", "simple", "folded")]
    export.export(made, paths[0], (3, 224, 224), {})
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

    observer = observe.Observer(src, list(qdq.tensors(src)), Histogram)
    measured(lambda: observer.take(batches))


def default(src: Path, batches: list[np.ndarray]) -> None:
    from calibration.recovery.equalise import equalise
    from pipeline.building.plan import EQUALISE

    dst = src.with_suffix(".equalised.onnx")

    def both() -> None:
        equalise(src, dst, batches[:EQUALISE])
        observed(dst, batches)

    measured(both)


def observed(src: Path, batches: list[np.ndarray]) -> None:
    from calibration import observe, qdq
    from calibration.histogram import Histogram

    observe.Observer(src, list(qdq.tensors(src)), Histogram).take(batches)


def minmax(src: Path, batches: list[np.ndarray]) -> None:
    from onnxruntime.quantization import CalibrationMethod, calibrate

    class Reader(calibrate.CalibrationDataReader):  # type: ignore[misc]  # it brings no types
        def __init__(self) -> None:
            self.left = iter(batches)

        def get_next(self) -> dict[str, np.ndarray] | None:
            batch = next(self.left, None)
            return None if batch is None else {"images": batch}

    made = calibrate.create_calibrator(
        src, ["Conv", "Gemm"], str(src.with_suffix(".minmax.onnx")), CalibrationMethod.MinMax
    )
    measured(lambda: (made.collect_data(Reader()), made.compute_data()))


WAYS = {
    "plain forward": forward,
    "edge-resnet, all methods": ours,
    "edge-resnet, equalised first": default,
    "onnxruntime minmax": minmax,
}
PEERS = {"ModelOpt max": ("modelopt", "modelopt", "max"), "NNCF": ("nncf", "nncf_onnx", "default")}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--images", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--peers", action="store_true", help="ModelOpt and NNCF as well")
    parser.add_argument("--work", type=Path, default=Path(platformdirs.user_cache_dir("edge-resnet"), "peers"))
    parser.add_argument("--way", choices=WAYS)
    parser.add_argument("--src", type=Path)
    asked = parser.parse_args()
    some = np.random.default_rng(0).uniform(0, 255, (8, 3, 224, 224)).astype(np.float32)
    if asked.way:
        WAYS[asked.way](asked.src, [some[i % 8 : i % 8 + BATCH] for i in range(0, asked.images, BATCH)])
        return
    with tempfile.TemporaryDirectory() as folder:
        src = network(Path(folder))
        np.save(Path(folder, "images.npy"), np.resize(some, (asked.images, *some.shape[1:])))
        found: dict[str, list[list[float]]] = {way: [] for way in (*WAYS, *(PEERS if asked.peers else ()))}
        for _ in range(asked.rounds):
            for way, row in found.items():
                row.append(cost(way, src, asked))
    show(asked, found)


def cost(way: str, src: Path, asked: argparse.Namespace) -> list[float]:
    """Seconds, CPU seconds and peak GB of ``way`` in a process of its own."""
    paths = {**os.environ, "PYTHONPATH": str(Path(__file__).parent / "peers")}
    command = [sys.executable, "-m", "benchmarks.calibration", "--way", way, "--src", src, "--images", asked.images]
    if way in PEERS:
        environment, script, method = PEERS[way]
        file = Path(__file__).parent / "peers" / "quantisers" / f"{script}.py"
        images, made = src.parent / "images.npy", src.parent / "made.onnx"
        command = [environments.python(environment, asked.work), file, method, src, images, made]
    line = list(map(str, command))
    done = subprocess.run(line, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=True, env=paths, text=True)
    last = next(line for line in reversed(done.stdout.splitlines()) if line.startswith('{"seconds'))
    return list(json.loads(last).values())


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
