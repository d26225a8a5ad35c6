"""The logits of any file, found by its suffix.

Engines are opened by their backends (exporters.engines). Another kind of file is a new row in RUNNERS.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pipeline.console.progress import bar

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray
    from torch import Tensor, nn

    from exporters.engines.backend import Backend
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
        batches = -(-len(images) // size)
        logits = []
        with bar(label, batches) as advance:
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

    network, _ = frozen.read(path)
    return Runner(_torch_runner(torch.compile(network)), "PyTorch CPU, compiled")


def of_model(model: bytes) -> Runner:
    """A serialised ONNX model that is in no file."""
    return _onnx(model)


def of_file(path: Path, *, fastest: bool = False) -> Runner:
    """The file, loaded afresh; ``fastest``: as ONNX Runtime runs it by itself, to be timed and not to be judged.

    Raises BadRequest where to open it would run what nobody knows, ValueError where nothing here runs it.
    """
    from exporters import engines

    # First the engines: some have the suffix of a graph behind their own.
    for name in engines.BACKENDS:
        backend = engines.named(name)
        if backend.runs_here and path.name.endswith(backend.suffix):
            return _engine(backend, path)
    openers = FASTEST if fastest else RUNNERS
    for suffix, open_file in openers.items():
        if path.name.endswith(suffix):
            return open_file(path)
    raise ValueError(f"{path.name}: nothing here can run such a file")


def _engine(backend: Backend, path: Path) -> Runner:
    """An engine, opened only where that is safe."""
    from pipeline import engine_seal

    made_for = backend.made_for()
    # To open such a file is to run what it holds.
    if made_for is not None:
        engine_seal.refuse(path, made_for)
    loaded = backend.load(path)
    return Runner(loaded.run, loaded.provider)


def _torch_runner(network: Callable[[Tensor], Tensor]) -> Run:
    import torch

    def run(batch: NDArray[np.float32]) -> NDArray[np.float32]:
        with torch.inference_mode():
            return np.asarray(network(torch.from_numpy(batch)).numpy())

    return run


def _safetensors(path: Path) -> Runner:
    from pipeline.models import frozen

    network, _ = frozen.read(path)
    return Runner(_torch_runner(network), "PyTorch CPU")


def _onnx(model: Path | bytes) -> Runner:
    """A graph as it is written, with no optimisation."""
    from exporters import reference
    from exporters.engines import ort_session

    loaded = ort_session.loaded(reference.session(model, alone=True))
    return Runner(loaded.run, loaded.provider)


def _optimised(path: Path) -> Runner:
    from exporters.engines import ort_session

    loaded = ort_session.optimised(path)
    return Runner(loaded.run, loaded.provider)


# What opens a file that is no engine, by its suffix.
RUNNERS: dict[str, Callable[[Path], Runner]] = {".safetensors": _safetensors, ".onnx": _onnx}
FASTEST = {**RUNNERS, ".onnx": _optimised}
