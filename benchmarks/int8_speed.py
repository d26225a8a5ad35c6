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

ARCHITECTURES, BATCHES = ("resnet18", "resnext50_32x4d"), (1, 16)


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
            images = np.random.default_rng(0).uniform(0, 255, (16, 3, 224, 224)).astype(np.float32)
            paths = files(arch, images[:4], Path(folder))
            sessions = [*map(session, paths), session(paths[-1], precise=True)]
            for batch in BATCHES:
                best = fastest(sessions, images[:batch], rounds)
                print(f"| {arch} | {batch} | {' | '.join(f'{best[0] / each:.2f}' for each in best)} |", flush=True)


def files(arch: str, images: np.ndarray, folder: Path) -> list[Path]:
    """The float file, ours compiled under both placements, and that of ONNX Runtime's own quantiser."""
    from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static

    class Reader(CalibrationDataReader):  # type: ignore[misc]  # it brings no types
        left = iter([{"images": images}])

        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(self.left, None)

    src = graph(arch, images, folder)
    made = [src]
    for placement in qdq.PLACEMENTS:
        formats = qdq.tensors(src, placement)
        observer = observe.Observer(src, list(formats), Histogram)
        observer.take([images])
        amax = {name: mse(histogram, formats[name]) for name, histogram in observer.seen.items()}
        qdq.quantise(src, folder / f"{placement}.onnx", amax, placement)
        made.append(folder / f"{placement}.ort.onnx")
        engine.BACKEND.build(folder / f"{placement}.onnx", made[-1])
    own = folder / "own.onnx"
    quantize_static(src, own, Reader(), activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8, per_channel=True)
    return [*made, own]


def session(path: Path, *, precise: bool = False) -> Any:
    import onnxruntime

    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = 1
    settings.log_severity_level = 3
    settings.add_session_config_entry("session.x64quantprecision", str(int(precise)))
    return onnxruntime.InferenceSession(str(path), settings, providers=["CPUExecutionProvider"])


def fastest(sessions: list[Any], images: np.ndarray, rounds: int) -> list[float]:
    """CPU seconds of one run of each."""
    best = [float("inf")] * len(sessions)
    for _ in range(rounds):
        for index, each in enumerate(sessions):
            begun = time.process_time()
            each.run(None, {"images": images})
            best[index] = min(best[index], time.process_time() - begun)
    return best


if __name__ == "__main__":
    main()
