"""The logits of any file, found by its suffix. A new kind of file is a new row in RUNNERS."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pipeline.console.progress import bar

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray
    from onnxruntime import InferenceSession
    from torch import Tensor, nn

    from pipeline.data.images import Images

    Run = Callable[[NDArray[np.float32]], NDArray[np.float32]]


@dataclass(frozen=True)
class Runner:
    """Something that answers: ``run`` turns images (n, C, H, W) float32 0..255 into logits (n, classes) float32."""

    run: Run
    provider: str

    def answers(self, images: Images, label: str) -> NDArray[np.float32]:
        """The logits of all images, (N, classes)."""
        size = images.batch_size
        logits = []
        with bar(label, -(-len(images) // size)) as advance:
            for batch in images.batches(size):
                logits.append(self.run(batch))
                advance()
        return np.concatenate(logits)


def of_network(network: nn.Module) -> Runner:
    """A PyTorch network in inference mode on the CPU."""
    return Runner(_torch_runner(network), "PyTorch CPU")


def of_compiled(path: Path) -> Runner:
    """Frozen weights as torch.compile runs them on the CPU."""
    import torch

    from pipeline.models import frozen

    return Runner(_torch_runner(torch.compile(frozen.read(path)[0])), "PyTorch CPU, compiled")


def of_file(path: Path, *, fastest: bool = False) -> Runner:
    """The file, loaded afresh; ``fastest``: as ONNX Runtime runs it by itself, to be timed and not to be judged."""
    for suffix, open_file in (FASTEST if fastest else RUNNERS).items():
        if path.name.endswith(suffix):
            return Runner(*open_file(path))
    raise ValueError(f"{path.name}: nothing here can run such a file")


def _torch_runner(network: Callable[[Tensor], Tensor]) -> Run:
    import torch

    def run(batch: NDArray[np.float32]) -> NDArray[np.float32]:
        with torch.inference_mode():
            return np.asarray(network(torch.from_numpy(batch)).numpy())

    return run


def _safetensors(path: Path) -> tuple[Run, str]:
    from pipeline.models import frozen

    return _torch_runner(frozen.read(path)[0]), "PyTorch CPU"


def of_model(model: bytes) -> Runner:
    """A serialised ONNX model that is in no file."""
    return Runner(*_onnx(model))


def _onnx(model: Path | bytes) -> tuple[Run, str]:
    from exporters import reference

    return _session(reference.session(model, alone=True))


def _optimised(path: Path) -> tuple[Run, str]:
    from exporters.engines import onnxruntime

    return _session(onnxruntime.optimised(path))


def _compiled(path: Path) -> tuple[Run, str]:
    from exporters.engines import onnxruntime

    return _session(onnxruntime.load(path))


def _cuda(path: Path) -> tuple[Run, str]:
    from exporters.engines import onnxruntime_cuda

    return _session(onnxruntime_cuda.load(path))


def _session(session: InferenceSession) -> tuple[Run, str]:
    pixels = as_bytes if session.get_inputs()[0].type == "tensor(uint8)" else np.asarray
    return lambda batch: np.asarray(session.run(["logits"], {"images": pixels(batch)})[0]), session.get_providers()[0]


def as_bytes(batch: NDArray[np.float32]) -> NDArray[np.uint8]:
    """The same pixels as uint8; raises ValueError where they are no whole numbers from 0 to 255."""
    pixels = batch.clip(0, 255).astype(np.uint8)
    if not np.array_equal(pixels, batch):
        raise ValueError("these pixels are no whole numbers from 0 to 255, and the file takes uint8: build for float32")
    return pixels


def _engine(path: Path) -> tuple[Run, str]:
    from exporters.engines import tensorrt
    from pipeline import engine_seal

    engine_seal.refuse(path, tensorrt.made_for())
    return tensorrt.load(path), "TensorRT"


# The first suffix that fits decides.
RUNNERS: dict[str, Callable[[Path], tuple[Run, str]]] = {
    ".safetensors": _safetensors,
    ".ort.onnx": _compiled,
    ".cuda.onnx": _cuda,
    ".onnx": _onnx,
    ".engine": _engine,
}
FASTEST = {**RUNNERS, ".onnx": _optimised}
