"""A network trained on Fashion-MNIST in one of the cases, as a task for every quantiser."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.peers import cell, networks
from benchmarks.peers.cases import CASES
from pipeline.data import fashion_mnist
from pipeline.data.part import spread

if TYPE_CHECKING:
    from pathlib import Path

    from pipeline.data.images import Images


def task(work: Path, arch: str, case: str, count: int) -> cell.Task:
    """``arch`` in ``case``, judged on ``count`` test images."""
    folder = work / arch / case.replace(" ", "-")

    def source() -> Path:
        """The float graph of a build of ours: what it is does not depend on the placement."""
        return cell.built(made, "edge-resnet") / "04-fold_batchnorm.onnx"

    def build() -> list[str]:
        return _build(work, arch, case, folder)

    def calibration() -> Path:
        return _calibration(folder, case)

    made = cell.Task(folder, source, calibration, build, _test_images(count), work)
    return made


@cache
def _test_images(count: int) -> Images:
    test = fashion_mnist.read(None).test
    return networks.images(test.take(spread(test.labels, count, 0)))


def _build(work: Path, arch: str, case: str, folder: Path) -> list[str]:
    """What our own build is asked; writes the weights of this case, and its images."""
    _, is_rescaled, taken = CASES[case]
    weights = networks.checkpoint(arch, work)
    if is_rescaled:
        networks.rescaled(arch, weights, folder / "weights.safetensors")
        weights = folder / "weights.safetensors"
    np.save(folder / "calibration.npy", CASES[case][0]())
    asked = ["--arch", arch, "--weights", str(weights), "--data", "fashion-mnist"]
    asked += ["--input-size", str(networks.SIZE), "--precision", "int8", "--engine", "onnxruntime"]
    asked += ["--calib-data", str(folder / "calibration.npy"), "--test-samples", "500"]
    return [*asked, *(["--calib-samples", str(taken)] if taken else [])]


def _calibration(folder: Path, case: str) -> Path:
    """The array that the peers read: the first images of it where the case takes a part."""
    taken, path = CASES[case][2], folder / "calibration.npy"
    if taken is None:
        return path
    first = folder / "first.npy"
    np.save(first, np.load(path)[:taken])
    return first
