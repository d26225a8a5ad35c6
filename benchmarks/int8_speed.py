"""INT8 on the CPU: how much faster than float32 in ONNX Runtime, by who placed the Q/DQ pairs.

    python -m benchmarks.int8_speed [--rounds 7]

ResNet-18 and ResNeXt-50 at 224 px with random weights, one thread, batches of 1 and 16, in turns; the fastest of each.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.rtx_acceptance import graph
from calibration import observe, qdq
from calibration.histogram import Histogram
from calibration.ranges import mse
from exporters.engines import onnxruntime as engine

ARCHITECTURES = ("resnet18", "resnext50_32x4d")
BATCHES = (1, 16)
# Images whose activations give the ranges.
CALIBRATION = 4


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    rounds = parser.parse_args().rounds
    print(f"onnxruntime {version('onnxruntime')}, {engine.processor()}, one thread\n")
    print(
        "| network | batch | float32 | placed for TensorRT | placed for ONNX Runtime | its own quantize_static, UINT8 "
        "| the same, sums that cannot saturate |"
    )
    print("|---|---|---|---|---|---|---|")
    for arch in ARCHITECTURES:
        with tempfile.TemporaryDirectory() as folder:
            images = np.random.default_rng(0).uniform(0, 255, (max(BATCHES), 3, 224, 224)).astype(np.float32)
            paths = files(arch, images[:CALIBRATION], Path(folder))
            sessions = [session(path) for path in paths]
            sessions.append(session(paths[-1], exact=True))
            for batch in BATCHES:
                seconds = fastest(sessions, images[:batch], rounds)
                # The first is the float file: every cell is how many times as fast.
                ratios = [f"{seconds[0] / taken:.2f}" for taken in seconds]
                print(f"| {arch} | {batch} | {' | '.join(ratios)} |", flush=True)


def files(arch: str, images: np.ndarray, folder: Path) -> list[Path]:
    """The float file, ours compiled under both placements, and that of ONNX Runtime's own quantiser."""
    from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static

    class Reader(CalibrationDataReader):  # type: ignore[misc]  # it brings no types
        left = iter([{"images": images}])

        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(self.left, None)

    src = graph(arch, images, folder)
    paths = [src]
    for placement in qdq.PLACEMENTS:
        quantised = folder / f"{placement}.onnx"
        compiled = folder / f"{placement}.ort.onnx"
        formats = qdq.tensors(src, placement)
        observer = observe.Observer(src, list(formats), Histogram)
        observer.take([images])
        amax = {name: mse(histogram, formats[name]) for name, histogram in observer.seen.items()}
        qdq.quantise(src, quantised, amax, placement)
        engine.BACKEND.build(quantised, compiled)
        paths.append(compiled)

    own = folder / "own.onnx"
    quantize_static(src, own, Reader(), activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8, per_channel=True)
    return [*paths, own]


def session(path: Path, *, exact: bool = False) -> Any:
    import onnxruntime

    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = 1
    settings.log_severity_level = 3
    settings.add_session_config_entry("session.x64quantprecision", str(int(exact)))
    return onnxruntime.InferenceSession(str(path), settings, providers=["CPUExecutionProvider"])


def fastest(sessions: list[Any], images: np.ndarray, rounds: int) -> list[float]:
    """CPU seconds of one run of each: the least of all rounds."""
    best = [float("inf")] * len(sessions)
    for _ in range(rounds):
        for index, timed in enumerate(sessions):
            begun = time.process_time()
            timed.run(None, {"images": images})
            taken = time.process_time() - begun
            best[index] = min(best[index], taken)
    return best


if __name__ == "__main__":
    main()
