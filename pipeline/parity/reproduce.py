"""Runs bad.onnx on inputs.npz; exit code 10 while its answer lies further from expected.npy than case.json allows.

Needs numpy and onnxruntime, and the files beside it.
"""

import json
import sys
from pathlib import Path

import numpy as np

# Not 1: with that Python ends any script that could not run.
FAILS = 10


def main() -> int:
    """Print the SQNR in dB and its bound."""
    import onnxruntime

    here = Path(__file__).parent
    case = json.loads((here / "case.json").read_text())
    settings = onnxruntime.SessionOptions()
    settings.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(str(here / "bad.onnx"), settings, providers=["CPUExecutionProvider"])
    with np.load(here / "inputs.npz", allow_pickle=False) as stored:
        given = [stored[name] for name in stored.files]
    kinds = {"tensor(float16)": np.float16}
    inputs = {
        value.name: array.astype(kinds.get(value.type, array.dtype))
        for value, array in zip(session.get_inputs(), given, strict=True)
    }
    expected = np.load(here / "expected.npy", allow_pickle=False).astype(np.float64)
    answered = np.asarray(session.run(None, inputs)[0], np.float64)
    sys.stdout.write(f"{case['module']}: {case['found']}\n")
    if answered.shape != expected.shape:
        sys.stdout.write(f"its answer has shape {answered.shape}, not {expected.shape}\n")
        return FAILS
    with np.errstate(divide="ignore", invalid="ignore"):
        found = 10 * np.log10((expected**2).sum() / ((answered - expected) ** 2).sum())
    sys.stdout.write(f"SQNR {found:.2f} dB, bound {case['bound_db']:.2f} dB\n")
    return 0 if found >= case["bound_db"] else FAILS


if __name__ == "__main__":
    sys.exit(main())
