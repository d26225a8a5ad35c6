"""Runs bad.onnx on inputs.npz; exit code 10 while its answer lies further from expected.npy than case.json allows.

Needs numpy and onnxruntime, and the files beside it.
"""

import json
import sys
from pathlib import Path
from types import ModuleType

import numpy as np

# Not 1: with that Python ends any script that could not run.
EXIT_FAILS = 10
# ONNX Runtime's name of each input type that is not stored as it is: inputs.npz holds float32.
INPUT_TYPES = {"tensor(float16)": np.float16, "tensor(uint8)": np.uint8}


def main() -> int:
    """Print the SQNR in dB and its bound."""
    import onnxruntime

    here = Path(__file__).parent
    case = json.loads((here / "case.json").read_text())
    expected = np.load(here / "expected.npy", allow_pickle=False).astype(np.float64)
    sys.stdout.write(f"{case['module']}: {case['found']}\n")
    try:
        answered = run(here, onnxruntime)
    except Exception as error:
        if case["runs"]:
            raise
        sys.stdout.write(f"onnxruntime cannot run it: {error}\n")
        return EXIT_FAILS

    if answered.shape != expected.shape:
        sys.stdout.write(f"its answer has shape {answered.shape}, not {expected.shape}\n")
        return EXIT_FAILS
    sqnr_db = worst_sqnr_db(expected, answered)
    sys.stdout.write(f"SQNR {sqnr_db:.2f} dB, bound {case['bound_db']:.2f} dB\n")
    # NaN is no answer, and reaches no bound.
    return 0 if sqnr_db >= case["bound_db"] else EXIT_FAILS


def run(here: Path, onnxruntime: ModuleType) -> np.ndarray:
    """What bad.onnx answers."""
    settings = onnxruntime.SessionOptions()
    settings.log_severity_level = 4  # what it cannot run is raised
    settings.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(str(here / "bad.onnx"), settings, providers=["CPUExecutionProvider"])
    with np.load(here / "inputs.npz", allow_pickle=False) as stored:
        arrays = [stored[name] for name in stored.files]
    # The arrays stand in the order of the inputs, without their names.
    inputs = {}
    for value, array in zip(session.get_inputs(), arrays, strict=True):
        inputs[value.name] = array.astype(INPUT_TYPES.get(value.type, array.dtype))
    return np.asarray(session.run(None, inputs)[0], np.float64)


def worst_sqnr_db(expected: np.ndarray, answered: np.ndarray) -> float:
    """The ratio of signal to noise of the image for which it is least, in dB."""
    axes = tuple(range(1, expected.ndim))
    signal_power = (expected**2).sum(axes)
    noise_power = ((answered - expected) ** 2).sum(axes)
    with np.errstate(divide="ignore", invalid="ignore"):
        return float((10 * np.log10(signal_power / noise_power)).min())


if __name__ == "__main__":
    sys.exit(main())
