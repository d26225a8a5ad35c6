"""Whether TensorRT-RTX builds every produced graph: ``python -m benchmarks.rtx_acceptance [--size 224]``.

Random weights and images: only what the parser and the builder accept is asked, not accuracy. Prints a Markdown table.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np

from calibration import observe, qdq
from calibration.histogram import Peak
from calibration.ranges import minmax
from exporters import export, float16, fold_batchnorm, simplify
from exporters.engines import tensorrt_rtx
from exporters.number_formats import FP8, INT8
from pipeline.models import specs
from pipeline.models.resnet import ResNet

ARCHITECTURES = ("resnet18", "resnet50", "resnext50_32x4d", "resnext101_32x8d")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=224)
    size = parser.parse_args().size
    print("| network | fp32 | fp16 | int8 | int8-fp16 | fp8 |\n|---|---|---|---|---|---|")
    for arch in ARCHITECTURES:
        with tempfile.TemporaryDirectory() as folder:
            print(f"| {arch} | {' | '.join(cells(arch, size, Path(folder)))} |", flush=True)


def cells(arch: str, size: int, folder: Path) -> list[str]:
    images = np.random.default_rng(0).uniform(0, 255, (2, 3, size, size)).astype(np.float32)
    src = graph(arch, images, folder)
    files = {name: folder / f"{name}.onnx" for name in ("fp16", "int8", "int8-fp16", "e4m3", "fp8")}
    float16.float16(src, files["fp16"], peaks(src, images))
    for number_format, wide, half in ((INT8, files["int8"], "int8-fp16"), (FP8, files["e4m3"], "fp8")):
        seen = observe.observe(src, list(qdq.tensors(src)), [images])
        amax = {name: minmax(histogram) for name, histogram in seen.items()}
        qdq.quantise(src, wide, amax, number_format=number_format)
        float16.float16(wide, files[half], peaks(wide, images))
    return [built(path, folder) for path in (src, *(files[name] for name in ("fp16", "int8", "int8-fp16", "fp8")))]


def graph(arch: str, images: np.ndarray, folder: Path) -> Path:
    import torch

    torch.manual_seed(0)
    network = ResNet(specs.ARCHITECTURES[arch], 1000, 3, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    with torch.no_grad():
        network.train()(torch.from_numpy(images))  # running statistics that keep the activations in bounds
    raw, simple, folded = (folder / f"{name}.onnx" for name in ("raw", "simple", "folded"))
    export.export(network, raw, images.shape[1:], {})
    simplify.simplify(raw, simple)
    fold_batchnorm.fold_batchnorm(simple, folded)
    return folded


def peaks(src: Path, images: np.ndarray) -> dict[str, float]:
    observer = observe.Observer(src, observe.activations(src), Peak)
    observer.take([images])
    return {name: peak.amax for name, peak in observer.seen.items()}


def built(path: Path, folder: Path) -> str:
    try:
        made = tensorrt_rtx.BACKEND.build(path, folder / "engine")
    except RuntimeError as error:
        return f"refused: {error}"
    megabytes = (folder / "engine").stat().st_size / 1e6
    if made.eight_bit_convolutions is None:
        return f"{megabytes:.0f} MB"
    return f"{megabytes:.0f} MB, {made.eight_bit_convolutions} of {made.convolutions} in 8 bits"


if __name__ == "__main__":
    main()
