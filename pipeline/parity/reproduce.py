"""Runs bad.onnx on inputs.npz; exit code 10 while its answer lies further from expected.npy than case.json allows.

Needs numpy and onnxruntime, and the files beside it.
"""

import json
import sys
from pathlib import Path

import numpy as np

# Not 1: with that Python ends any script that could not run.
EXIT_FAILS = 10
# ONNX Runtime's name of each input type that is not stored as it is: inputs.npz holds float32.
INPUT_TYPES = {"tensor(float16)": np.float16}


def main() -> int:
    """Print the SQNR in dB and its bound."""
    import onnxruntime

    here = Path(__file__).parent
    case = json.loads((here / "case.json").read_text())
    settings = onnxruntime.SessionOptions()
    settings.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(str(here / "bad.onnx"), settings, providers=["CPUExecutionProvider"])
    with np.load(here / "inputs.npz", allow_pickle=False) as stored:
        arrays = [stored[name] for name in stored.files]
    # The arrays stand in the order of the inputs, without their names.
    inputs = {}
    for value, array in zip(session.get_inputs(), arrays, strict=True):
        inputs[value.name] = array.astype(INPUT_TYPES.get(value.type, array.dtype))
    expected = np.load(here / "expected.npy", allow_pickle=False).astype(np.float64)
    answered = np.asarray(session.run(None, inputs)[0], np.float64)

    sys.stdout.write(f"{case['module']}: {case['found']}\n")
    if answered.shape != expected.shape:
        sys.stdout.write(f"its answer has shape {answered.shape}, not {expected.shape}\n")
        return EXIT_FAILS
    signal_power = (expected**2).sum()
    noise_power = ((answered - expected) ** 2).sum()
    with np.errstate(divide="ignore", invalid="ignore"):
        sqnr_db = 10 * np.log10(signal_power / noise_power)
    sys.stdout.write(f"SQNR {sqnr_db:.2f} dB, bound {case['bound_db']:.2f} dB\n")
    # NaN is no answer, and reaches no bound.
    return 0 if sqnr_db >= case["bound_db"] else EXIT_FAILS


if __name__ == "__main__":
    sys.exit(main())
