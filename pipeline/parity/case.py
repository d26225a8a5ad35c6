"""Writes the smallest case that fails by itself.

It is one piece of a file, the tensors of one image, and a script that runs them.
"""

from __future__ import annotations

import subprocess
import sys
from dataclasses import asdict
from importlib import resources
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline import provenance, workspace
from pipeline.errors import BadRequest, StageFailed
from pipeline.parity.depth import capped_sqnr_db
from pipeline.parity.fault import LEAST_BEYOND_DB, LEAST_OWN_DB
from pipeline.parity.reproduce import EXIT_FAILS

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from exporters.subgraphs import Subgraphs
    from pipeline.parity.depth import Pair, Tensors
    from pipeline.parity.fault import Fault

FILES = {"good.onnx", "bad.onnx", "inputs.npz", "expected.npy", "case.json", "reproduce.py"}
# How long the case may run before it counts as one that does not.
TIMEOUT_S = 300


def write(
    directory: Path, fault: Fault, pair: Pair, files: tuple[Subgraphs, Subgraphs], image: NDArray[np.float32]
) -> dict[str, Any]:
    """Write the case of ``fault`` on ``image`` (1, C, H, W), run it from there, and return what case.json says.

    Raises BadRequest where ``directory`` holds anything else, StageFailed where what was written does not fail.
    """
    if directory.exists() and not _is_case(directory):
        raise BadRequest(f"-o {directory}: something else than an earlier case is there; choose another -o")
    good, bad = files
    needed_tensors = list(dict.fromkeys((*pair.good.inputs, *pair.bad.inputs)))
    inputs = good.values(needed_tensors, image)

    expected, bound_db = _expected(fault, pair, inputs)
    measured_db = _sqnr_db(expected, pair.run_bad(inputs)[0])
    if bound_db is None:
        # Halfway between what is there and what honest scales would give.
        bound_db = (measured_db + _reachable_db(pair, good, inputs)) / 2
    about = {
        **asdict(fault),
        "operator": pair.step.operator,
        "bound_db": round(bound_db, 3),
        "measured_db": round(measured_db, 3),
        "versions": provenance.versions(("onnx", "onnxruntime", "onnxruntime-gpu", "numpy")),
    }

    models = {"good.onnx": good.model(pair.good), "bad.onnx": bad.model(pair.bad)}
    script = resources.files("pipeline.parity").joinpath("reproduce.py").read_bytes()
    with workspace.directory(directory) as unfinished:
        for name, model in models.items():
            workspace.write_bytes(directory / name, model.SerializeToString(deterministic=True), unfinished)
        # In the order of the graph's inputs: their names are paths, which an archive should not hold.
        np.savez(unfinished / "inputs.npz", *(inputs[name] for name in pair.bad.inputs))
        np.save(unfinished / "expected.npy", expected)
        for name in ("inputs.npz", "expected.npy"):
            workspace.place(unfinished / name, directory / name)
        workspace.write_bytes(directory / "reproduce.py", script, unfinished)
        workspace.write_json(directory / "case.json", about, unfinished)
    _prove(directory)
    return about


def _is_case(directory: Path) -> bool:
    """Whether nothing stands there but files of an earlier case, which may be overwritten."""
    return directory.is_dir() and {path.name for path in directory.iterdir()} <= FILES


def _sqnr_db(expected: NDArray[np.float32], answered: NDArray[np.float32]) -> float:
    """SQNR of the one image in dB."""
    return capped_sqnr_db(expected, answered)[0]


def _expected(fault: Fault, pair: Pair, inputs: Tensors) -> tuple[NDArray[np.float32], float | None]:
    """What the piece should answer to ``inputs``, and the SQNR in dB that it should reach to that.

    The bound is None where it depends on what honest scales would reach.
    """
    if fault.kind == "beyond" and pair.run_rounded is not None:
        _, _, operands = pair.accused(inputs)
        return pair.run_rounded({**inputs, **operands})[0], LEAST_BEYOND_DB
    least_db = LEAST_OWN_DB[pair.kind] if fault.kind == "own" else None
    return pair.run_good(inputs)[0], least_db


def _reachable_db(pair: Pair, good: Subgraphs, inputs: Tensors) -> float:
    """The SQNR in dB that INT8 reaches here with honest scales: amax / 127 of each channel and of each input."""
    from calibration.qdq import rounded

    weights = {}
    for name in pair.good.worker.input[1:2]:
        if name in good.weights:
            weights[name] = rounded(good.array(name), axis=0)
    rounded_inputs = {}
    for name, values in inputs.items():
        rounded_inputs[name] = rounded(values) if name in pair.bad.dequantised else values

    run = good.runner(good.model(pair.good, weights=weights), pair.good.inputs)
    return _sqnr_db(pair.run_good(inputs)[0], run(rounded_inputs)[0])


def _prove(directory: Path) -> None:
    """Run the case as a stranger would; one that does not fail is taken away again, and StageFailed raised."""
    command = [sys.executable, "reproduce.py"]
    exit_code: int | None = None
    try:
        done = subprocess.run(command, cwd=directory, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)  # noqa: S603
    except subprocess.TimeoutExpired:
        last_line = f"no answer within {TIMEOUT_S} s"
    else:
        exit_code = done.returncode
        last_line = "".join((done.stdout + done.stderr).strip().splitlines()[-1:])
    if exit_code != EXIT_FAILS:
        for name in FILES:
            (directory / name).unlink(missing_ok=True)
        raise StageFailed(f"the case for {directory} does not fail when it is run again ({last_line}); report this")
