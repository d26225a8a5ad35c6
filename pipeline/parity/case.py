"""Writes the smallest case that fails by itself.

It is one piece of a file, the tensors of one image or of a few, and a script that runs them.
"""

from __future__ import annotations

import subprocess
import sys
from dataclasses import asdict
from importlib import resources
from typing import TYPE_CHECKING, Any

import numpy as np
from onnx import numpy_helper

from exporters.portable.sqnr import CAP_DB, capped_sqnr_db
from pipeline import provenance, workspace
from pipeline.errors import BadRequest, StageFailed
from pipeline.parity.reproduce import EXIT_FAILS

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import onnx
    from numpy.typing import NDArray

    from exporters.subgraphs import Run, Subgraphs
    from pipeline.parity.depth import Pair, Tensors
    from pipeline.parity.fault import Fault

FILES = {"good.onnx", "bad.onnx", "inputs.npz", "expected.npy", "case.json", "reproduce.py"}
# How long the case may run before it counts as one that does not.
TIMEOUT_S = 300


def write(
    directory: Path,
    fault: Fault,
    pair: Pair,
    files: tuple[Subgraphs, Subgraphs],
    tries: Sequence[NDArray[np.float32]],
) -> dict[str, Any] | None:
    """Write the case of ``fault``, run it from there, and return what case.json says.

    ``tries`` are images (n, C, H, W): the first that show the fault are taken; None where none do. Raises BadRequest
    where ``directory`` holds anything else, StageFailed where what was written does not fail.
    """
    if directory.exists() and not _is_case(directory):
        raise BadRequest(f"-o {directory}: something else than an earlier case is there; choose another -o")
    good = files[0]
    needed_tensors = list(dict.fromkeys((*pair.good.inputs, *pair.bad.inputs)))
    models = _models(fault, pair, files)
    for images in tries:
        inputs = good.values(needed_tensors, images)
        expected = _run_good(fault, pair)(inputs)[0]
        answered = _answered(fault, pair, inputs)
        measured_db = -CAP_DB if answered is None else min(capped_sqnr_db(expected, answered))
        bound_db = _bound_db(fault, pair, good, expected, inputs, measured_db)
        if bound_db is not None and not measured_db >= bound_db:
            break
    else:
        return None

    about = {
        **asdict(fault),
        "operator": pair.step.operator,
        "runs": answered is not None,
        "bound_db": round(bound_db, 3),
        "measured_db": round(measured_db, 3),
        "versions": provenance.versions(("onnx", "onnxruntime", "onnxruntime-gpu", "numpy")),
    }
    script = resources.files("pipeline.parity").joinpath("reproduce.py").read_bytes()
    with workspace.directory(directory) as unfinished:
        for name, model in zip(("good.onnx", "bad.onnx"), models, strict=True):
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


def _models(fault: Fault, pair: Pair, files: tuple[Subgraphs, Subgraphs]) -> tuple[onnx.ModelProto, onnx.ModelProto]:
    """The earlier and the later piece; without their rounding where it is without that they differ."""
    if fault.kind == "beyond" and pair.unrounded is not None:
        return pair.unrounded.models
    good, bad = files
    return good.model(pair.good), bad.model(pair.bad)


def _run_good(fault: Fault, pair: Pair) -> Run:
    if fault.kind == "beyond" and pair.unrounded is not None:
        return pair.unrounded.run_good
    return pair.run_good


def _answered(fault: Fault, pair: Pair, inputs: Tensors) -> NDArray[np.float32] | None:
    """What the later piece answers; None where no runtime takes it."""
    from exporters import reference

    run = pair.unrounded.run_bad if fault.kind == "beyond" and pair.unrounded is not None else pair.run_bad
    if run is None:
        return None
    try:
        return run(inputs)[0]
    except reference.refusals():
        return None


def _bound_db(
    fault: Fault, pair: Pair, good: Subgraphs, expected: NDArray[np.float32], inputs: Tensors, measured_db: float
) -> float | None:
    """The SQNR in dB that the later piece should reach; None where no bound is left by what it answers."""
    if fault.kind == "waste":
        # Halfway between what is there and what honest scales would give.
        return (measured_db + _reachable_db(pair, good, expected, inputs)) / 2
    return fault.bound_db


def _reachable_db(pair: Pair, good: Subgraphs, expected: NDArray[np.float32], inputs: Tensors) -> float:
    """The SQNR in dB that INT8 reaches here with honest scales: amax / 127 of each channel and of each input."""
    from calibration.qdq import rounded

    model = good.model(pair.good)
    for tensor in model.graph.initializer:
        if tensor.name in pair.good.worker.input[1:2]:
            tensor.CopyFrom(numpy_helper.from_array(rounded(numpy_helper.to_array(tensor), axis=0), tensor.name))
    rounded_inputs = {}
    for name, values in inputs.items():
        rounded_inputs[name] = rounded(values) if name in pair.bad.dequantised else values
    return min(capped_sqnr_db(expected, good.runner(model, pair.good.inputs)(rounded_inputs)[0]))


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
