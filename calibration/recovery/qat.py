"""Weights tuned under the rounding of INT8 (quantisation-aware training), with the float network as the teacher.

Jacob et al. 2018, arXiv 1712.05877, section 3: every tensor that will carry a Q/DQ pair is rounded in the forward pass
and passed through in the backward one. The loss is how far the logits lie from those of the float network on the same
images, so that no labels are needed (Hinton et al. 2015, arXiv 1503.02531).
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


@dataclass(frozen=True)
class Tuning:
    """Every number of the recipe; ``rate`` is the first step of a weight, as a share of its tensor's mean magnitude."""

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
    student = Student(model.graph, {name: (amax[name], formats[name]) for name in formats})
    with torch.random.fork_rng(devices=[]):
        lost = _tune(student, images, count, seed, advance)
    for name, tuned in student.weights.items():
        value = model.graph.initializers[name]
        array = tuned.detach().numpy().astype(np.float32)
        if not np.isfinite(array).all():
            raise ValueError(f"tuning gave {name} values that are no numbers")
        value.const_value = ir.tensor(array, name=name)
    onnx_file.write(model, dst)
    first, last = (-10 * np.log10(max(each, 1e-30)) for each in lost)
    return f"weights tuned under INT8 for {RECIPE.steps} steps, {first:.1f} → {last:.1f} dB on {count} images"


def _tune(
    student: Student, images: Select, count: int, seed: int, advance: Callable[[], object]
) -> tuple[float, float]:
    """The error of the logits before and after, each as a share of the power of the float network's."""
    import torch

    # Adam's step is about its rate, whatever the gradient: each tensor gets one in its own units.
    groups = [
        {"params": [each], "lr": RECIPE.rate * float(each.detach().abs().mean())} for each in student.weights.values()
    ]
    optimizer = torch.optim.Adam(groups)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, RECIPE.steps)
    draw = np.random.default_rng(seed)
    probe = np.arange(count)[: 4 * RECIPE.batch]
    pixels = torch.from_numpy(images(probe))
    with torch.no_grad():
        aim = student(pixels, student.teacher)
        before = float(_lost(student(pixels, student.weights, rounded=True), aim))
    for _ in range(RECIPE.steps):
        pixels = torch.from_numpy(images(np.sort(draw.choice(count, min(RECIPE.batch, count), replace=False))))
        with torch.no_grad():
            target = student(pixels, student.teacher)
        loss = _lost(student(pixels, student.weights, rounded=True), target)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
        advance()
    with torch.no_grad():
        return before, float(_lost(student(torch.from_numpy(images(probe)), student.weights, rounded=True), aim))


def _lost(logits: torch.Tensor, aim: torch.Tensor) -> torch.Tensor:
    return ((logits - aim) ** 2).mean() / (aim**2).mean()
