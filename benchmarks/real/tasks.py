"""A row of the benchmark as a task for every quantiser; what is slow to make is kept, and made once."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.peers import cell, judge
from benchmarks.real import conversion, fetch, photo_head, photos, sets
from benchmarks.real.networks import NETWORKS, ROWS

if TYPE_CHECKING:
    from pathlib import Path

    from benchmarks.real.networks import Network

PROOF_CROPS = 16


def task(cache: Path, name: str, count: int) -> cell.Task:
    """The row ``name``, judged on ``count`` crops; what it needs is fetched, converted and proven here."""
    work, environments = cache / "real", cache / "peers"
    row = ROWS[name]
    network = NETWORKS[row.network]
    fetched = work / "fetched"
    fetch.photographs(fetched)
    files = photos.sources(fetched)
    # Other photographs are other tasks.
    folder = work / photos.digest(files) / name
    folder.mkdir(parents=True, exist_ok=True)

    proof = photos.crops(files[:PROOF_CROPS], PROOF_CROPS, network.size, 0).astype(np.float32)
    weights = conversion.converted(network, work / row.network, fetched, proof, environments)
    if row.names_photographs:
        weights = photo_head.trained(network, weights, files, folder / "weights.safetensors")
    graph = conversion.float_graph(network, weights, folder / "float.onnx")

    calibration, test = folder / "calibration.npz", folder / f"test-{count}.npz"
    if not (calibration.exists() and test.exists()):
        make = sets.of_different_strips if row.names_photographs else sets.of_different_photographs
        for path, crops in zip((calibration, test), make(files, network.size, count), strict=True):
            _keep(path, crops, None if row.names_photographs else graph)
    with np.load(test) as held:
        images = sets.images(held["pixels"], held["answers"])
    return cell.Task(
        folder,
        lambda: graph,
        partial(_array, folder),
        partial(_build, network, weights, calibration, test, folder),
        images,
        environments,
    )


def _keep(path: Path, crops: sets.Crops, graph: Path | None) -> None:
    """Crops with the ``answers`` that judge, and with the ``classes`` of their folders, in which each has an image.

    Both are the photographs, or where ``graph`` is given what it answers.
    """
    answers = classes = crops.photograph
    if graph is not None:
        logits = judge.answers(graph, sets.images(crops.pixels, crops.photograph)).logits
        answers, classes = np.asarray(logits.argmax(1), np.int64), sets.leaning(logits)
    np.savez(path, pixels=crops.pixels, answers=answers, classes=classes)


def _array(folder: Path) -> Path:
    """What calibrates, as the peers read it."""
    path = folder / "calibration.npy"
    if not path.exists():
        np.save(path, _held(folder / "calibration.npz", "pixels").astype(np.float32))
    return path


def _build(network: Network, weights: Path, calibration: Path, test: Path, folder: Path) -> list[str]:
    """What our own build is asked; mean and deviation in 0..1 units, as its flags are."""
    data = folder / f"images-{test.stem}"
    for part, path in (("train", calibration), ("val", test)):
        if not (data / part).exists():
            sets.write_folder(data, part, _held(path, "pixels"), _held(path, "classes"))
    size = str(network.size)
    asked = ["--arch", network.function, "--weights", str(weights), "--data", str(data)]
    asked += ["--input-size", size, "--resize", size, "--channels", "3"]
    asked += ["--mean", *(repr(value / 255) for value in network.mean), "--std", repr(network.std / 255)]
    return [*asked, "--precision", "int8", "--engine", "onnxruntime", "--calib-data", str(_array(folder))]


def _held(path: Path, name: str) -> Any:
    with np.load(path) as held:
        return held[name]
