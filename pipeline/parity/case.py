"""The smallest case that fails by itself: one piece of a file, one image's tensors, and a script that runs them."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import asdict
from importlib import resources
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline import provenance, workspace
from pipeline.errors import BadRequest, StageFailed
from pipeline.parity.depth import ratios
from pipeline.parity.fault import BEYOND, OWN
from pipeline.parity.reproduce import FAILS

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from exporters.subgraphs import Subgraphs
    from pipeline.parity.depth import Pair, Tensors
    from pipeline.parity.fault import Fault

FILES = {"good.onnx", "bad.onnx", "inputs.npz", "expected.npy", "case.json", "reproduce.py"}
SECONDS = 300


def write(
    directory: Path, fault: Fault, pair: Pair, files: tuple[Subgraphs, Subgraphs], image: NDArray[np.float32]
) -> dict[str, Any]:
    """Write the case of ``fault`` on ``image`` (1, C, H, W), run it from there, and answer what case.json says.

    Raises BadRequest where ``directory`` holds anything else, StageFailed where what was written does not fail.
    """
    if directory.exists() and not (directory.is_dir() and {path.name for path in directory.iterdir()} <= FILES):
        raise BadRequest(f"-o {directory}: something else than an earlier case is there; choose another -o")
    good, bad = files
    inputs = good.values(list(dict.fromkeys((*pair.good.inputs, *pair.bad.inputs))), image)
    expected, bound = _expected(fault, pair, inputs)
    measured = ratios(expected, pair.run_bad(inputs)[0])[0]
    about = {
        **asdict(fault),
        "operator": pair.step.operator,
        "bound_db": round(bound if bound is not None else (measured + _reachable(pair, good, inputs)) / 2, 3),
        "measured_db": round(measured, 3),
        "versions": provenance.versions(("onnx", "onnxruntime", "onnxruntime-gpu", "numpy")),
    }
    with workspace.directory(directory) as unfinished:
        for name, model in (("good.onnx", good.model(pair.good)), ("bad.onnx", bad.model(pair.bad))):
            workspace.write_bytes(directory / name, model.SerializeToString(deterministic=True), unfinished)
        # In the order of the graph's inputs: their names are paths, which an archive should not hold.
        np.savez(unfinished / "inputs.npz", *(inputs[name] for name in pair.bad.inputs))
        np.save(unfinished / "expected.npy", expected)
        for name in ("inputs.npz", "expected.npy"):
            workspace.place(unfinished / name, directory / name)
        script = resources.files("pipeline.parity").joinpath("reproduce.py").read_bytes()
        workspace.write_bytes(directory / "reproduce.py", script, unfinished)
        workspace.write_json(directory / "case.json", about, unfinished)
    _prove(directory)
    return about


def _expected(fault: Fault, pair: Pair, inputs: Tensors) -> tuple[NDArray[np.float32], float | None]:
    """What the piece should answer to ``inputs``, and the least SQNR to that; None where it depends on the scales."""
    if fault.kind == "beyond" and pair.run_rounded is not None:
        _, _, operands = pair.accused(inputs)
        return pair.run_rounded({**inputs, **operands})[0], BEYOND
    return pair.run_good(inputs)[0], OWN[pair.kind] if fault.kind == "own" else None


def _reachable(pair: Pair, good: Subgraphs, inputs: Tensors) -> float:
    """The SQNR in dB that INT8 reaches here with honest scales: amax / 127 of each channel and of each input."""
    from calibration.qdq import rounded

    weights = {name: rounded(good.array(name), axis=0) for name in pair.good.worker.input[1:2] if name in good.weights}
    fed = {name: rounded(inputs[name]) if name in pair.bad.dequantised else inputs[name] for name in inputs}
    run = good.runner(good.model(pair.good, weights=weights), pair.good.inputs)
    return ratios(pair.run_good(inputs)[0], run(fed)[0])[0]


def _prove(directory: Path) -> None:
    command = [sys.executable, "reproduce.py"]
    try:
        done = subprocess.run(command, cwd=directory, capture_output=True, text=True, timeout=SECONDS, check=False)  # noqa: S603
        code, said = done.returncode, "".join((done.stdout + done.stderr).strip().splitlines()[-1:])
    except subprocess.TimeoutExpired:
        code, said = None, f"no answer within {SECONDS} s"
    if code != FAILS:
        for name in FILES:
            (directory / name).unlink(missing_ok=True)
        raise StageFailed(f"the case for {directory} does not fail when it is run again ({said}); report this")
