"""Sessions of ONNX Runtime: what every one is told, here and on a device, and what its optimisers get wrong."""

from __future__ import annotations

import os
import platform
import re
from typing import Any, Sequence

from .errors import NativeError

CPU = "CPUExecutionProvider"
# The types, as the data of devices name them, that it computes in on the CPU: it has no kernels for FP8.
COMPUTES_IN = ("fp32", "fp16", "int8")
# It quantises biases by the product of two scales, which underflows where the scales are float16.
WRONG_FOR_FLOAT16_SCALES = ("WeightBiasQuantization",)
# x86 without VNNI adds UINT8 x INT8 products in 16 bits and saturates; with this the weights are UINT8, the sums exact.
EXACT_SUMS = ("session.x64quantprecision", "1")
X86 = ("x86_64", "AMD64")
VNNI = re.compile(r"\bavx(512)?_vnni\b")


def sums_saturate() -> bool:
    """Whether this processor's sums of UINT8 x INT8 products saturate, of which ONNX Runtime says nothing.

    EXACT_SUMS is the cure. Elsewhere the sums are the same with it, and slower.
    """
    if platform.machine() not in X86:
        return False
    with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
        return VNNI.search(file.read()) is None


def settings(level: str) -> Any:
    """SessionOptions with the optimisations of ``level``, a name of GraphOptimizationLevel."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, level)
    # The processors this process may use, which ONNX Runtime's own default (all cores) ignores in a container.
    options.intra_op_num_threads = len(os.sched_getaffinity(0))
    options.log_severity_level = 3  # errors
    return options


def session(model: Any, options: Any, provider: str = CPU, disabled: Sequence[str] = ()) -> Any:
    """An InferenceSession of ``model``, a path or the bytes of a file, on ``provider`` alone.

    ``disabled`` are optimisers by name. Raises NativeError where another provider would answer, and what ONNX Runtime
    raises where it refuses the model.
    """
    import onnxruntime

    inference = onnxruntime.InferenceSession(model, options, providers=[provider], disabled_optimizers=list(disabled))
    # ONNX Runtime falls back to another provider without an error.
    first = inference.get_providers()[0]
    if first != provider:
        raise NativeError(f"asked ONNX Runtime for {provider}, it runs {first}")
    return inference
