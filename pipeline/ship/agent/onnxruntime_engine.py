"""ONNX Runtime on the CPU, where there is no TensorRT."""

from __future__ import annotations

import os
import re
from typing import Any, Callable, Dict, Optional

import numpy as np

from .errors import Broken

FILE = "engine.onnx"
PROVIDER = "CPUExecutionProvider"
VNNI = re.compile(r"\bavx(512)?_vnni\b")


def version() -> Optional[str]:
    """The version of ONNX Runtime, None where it is not installed or does not load."""
    try:
        import onnxruntime
    except Exception:  # noqa: BLE001 - a library for another driver fails as it likes
        return None
    return str(onnxruntime.__version__)


def build(job: Dict[str, Any]) -> Dict[str, Any]:
    """Compile ``model`` to ``engine`` for this processor; its warnings."""
    _session(job["model"], job, job["engine"])
    return {"warnings": []}


def load(job: Dict[str, Any]) -> Callable[[Any], Any]:
    """What answers logits (n, classes) float32 to images (n, C, H, W), any number of them."""
    session = _session(job["engine"], job, None)
    (images,) = session.get_inputs()
    return lambda pixels: np.asarray(session.run(None, {images.name: pixels})[0], np.float32)


def _session(path: str, job: Dict[str, Any], compiled: Optional[str]) -> Any:
    import onnxruntime

    settings = onnxruntime.SessionOptions()
    levels = onnxruntime.GraphOptimizationLevel
    settings.graph_optimization_level = levels.ORT_ENABLE_EXTENDED if compiled else levels.ORT_ENABLE_ALL
    settings.intra_op_num_threads = len(os.sched_getaffinity(0))
    settings.log_severity_level = 3
    with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
        adds_exactly = VNNI.search(file.read())
    if not adds_exactly:
        # Without it INT8 sums saturate on x86, and nobody says so; with VNNI they do not, and it is the slower way.
        settings.add_session_config_entry("session.x64quantprecision", "1")
    if compiled:
        settings.optimized_model_filepath = compiled
    # It quantises biases by the product of two scales, which float16 cannot hold.
    disabled = ["WeightBiasQuantization"] if "fp16" in job["precision"] else []
    try:
        made = onnxruntime.InferenceSession(path, settings, providers=[PROVIDER], disabled_optimizers=disabled)
    except Exception as error:  # ONNX Runtime's errors share no class
        raise Broken(f"ONNX Runtime refuses {os.path.basename(path)}: {' '.join(str(error).split())}") from error
    if made.get_providers()[0] != PROVIDER:
        raise Broken(f"asked ONNX Runtime for {PROVIDER}, it runs {made.get_providers()[0]}")
    return made
