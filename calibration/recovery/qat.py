"""Tunes weights under the rounding of INT8 (quantisation-aware training), with the float network as the teacher.

As in Jacob et al. 2018, arXiv 1712.05877, section 3, every tensor that will carry a Q/DQ pair is rounded in the forward
pass and passed through in the backward one. The loss is how far the logits lie from those of the float network on the
same images, so that no labels are needed (Hinton et al. 2015, arXiv 1503.02531).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from calibration import qdq
from calibration.recovery.student import Student
from exporters import onnx_file

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    import torch
    from numpy.typing import NDArray

    Select = Callable[[NDArray[np.int64]], NDArray[np.float32]]

# The least error that is told from none, in shares of the logits' power: 300 dB.
LEAST_ERROR = 1e-30
# The error before and after is measured on as many images as so many batches have.
PROBE_BATCHES = 4


@dataclass(frozen=True)
class Tuning:
    """Every number of the recipe.

    ``rate`` is the size of a weight's first step, as a share of the mean magnitude of its tensor.
    """

    steps: int = 200
    batch: int = 16
    rate: float = 0.0005


RECIPE = Tuning()


def qat(
    src: Path,
    dst: Path,
    amax: Mapping[str, float],
    placement: str,
    images: Select,
    count: int,
    seed: int,
    advance: Callable[[], object] = lambda: None,
) -> str:
    """Write ``src`` to ``dst`` with weights and biases that under INT8 answer more like ``src``.

    ``amax`` is the range of every tensor of qdq.tensors; ``images`` gives pixels (N, C, H, W) 0..255 of some of
    ``count`` indices. The same ``seed`` gives the same bytes on the same machine. Raises ValueError where the graph
    holds an operator that cannot be trained through.
    """
    import torch

    model = onnx_file.read(src)
    formats = qdq.tensors(src, placement)
    pairs = {name: (amax[name], formats[name]) for name in formats}
    student = Student(model.graph, pairs)
    with torch.random.fork_rng(devices=[]):
        error_before, error_after = _tune(student, images, count, seed, advance)

    for name, tuned in student.weights.items():
        value = model.graph.initializers[name]
        array = tuned.detach().numpy().astype(np.float32)
        if not np.isfinite(array).all():
            raise ValueError(f"tuning gave {name} values that are no numbers")
        value.const_value = ir.tensor(array, name=name)
    onnx_file.write(model, dst)

    gained = f"{_sqnr_db(error_before):.1f} → {_sqnr_db(error_after):.1f} dB"
    return f"weights tuned under INT8 for {RECIPE.steps} steps, {gained} on {count} images"


def _sqnr_db(error: float) -> float:
    """The SQNR in dB of logits with this error, a share of their power."""
    return float(-10 * np.log10(max(error, LEAST_ERROR)))


def _tune(
    student: Student, images: Select, count: int, seed: int, advance: Callable[[], object]
) -> tuple[float, float]:
    """Tune the weights of ``student`` in place; returns the error of its logits before and after.

    Both are shares of the power of the float network's logits.
    """
    import torch

    # Adam's step is about its rate, whatever the gradient: each tensor gets one in its own units.
    groups = []
    for weight in student.weights.values():
        mean_magnitude = float(weight.detach().abs().mean())
        groups.append({"params": [weight], "lr": RECIPE.rate * mean_magnitude})
    optimizer = torch.optim.Adam(groups)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, RECIPE.steps)
    generator = np.random.default_rng(seed)

    # The same images before and after.
    probe = np.arange(count)[: PROBE_BATCHES * RECIPE.batch]
    probe_pixels = torch.from_numpy(images(probe))
    with torch.no_grad():
        probe_target = student(probe_pixels, student.teacher)
        error_before = float(_error(student(probe_pixels, student.weights, rounded=True), probe_target))
    # Its memory goes to the steps.
    del probe_pixels

    batch_size = min(RECIPE.batch, count)
    for _ in range(RECIPE.steps):
        batch = np.sort(generator.choice(count, batch_size, replace=False))
        pixels = torch.from_numpy(images(batch))
        with torch.no_grad():
            target = student(pixels, student.teacher)
        loss = _error(student(pixels, student.weights, rounded=True), target)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
        advance()

    with torch.no_grad():
        tuned_logits = student(torch.from_numpy(images(probe)), student.weights, rounded=True)
        return error_before, float(_error(tuned_logits, probe_target))


def _error(logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """The squared error of ``logits`` as a share of the power of ``target``."""
    return ((logits - target) ** 2).mean() / (target**2).mean()
