"""ONNX Runtime on the CPU, where there is no TensorRT."""

from __future__ import annotations

import os
from typing import Any, Callable, Dict, Optional

import numpy as np

from exporters.portable import onnxruntime_session
from exporters.portable.errors import NativeError

from .errors import Broken

# In two steps: what is compiled into the file, and the memory layouts that are chosen anew whenever it is loaded.
COMPILED_LEVEL = "ORT_ENABLE_EXTENDED"
LOADED_LEVEL = "ORT_ENABLE_ALL"


def version() -> Optional[str]:
    """The version of ONNX Runtime, None where it is not installed or does not load."""
    try:
        import onnxruntime
    except Exception:  # noqa: BLE001 - a library for another driver fails as it likes
        return None
    return str(onnxruntime.__version__)


def build(job: Dict[str, Any]) -> Dict[str, Any]:
    """Compile ``model`` to ``engine`` for this processor; its warnings."""
    options = _options(COMPILED_LEVEL)
    options.optimized_model_filepath = job["engine"]
    _session(job["model"], options, job)
    return {"warnings": []}


def load(job: Dict[str, Any]) -> Callable[[Any], Any]:
    """What answers logits (n, classes) float32 to images (n, C, H, W), any number of them."""
    session = _session(job["engine"], _options(LOADED_LEVEL), job)
    (images_input,) = session.get_inputs()

    def run(images: Any) -> Any:
        logits = session.run(None, {images_input.name: images})[0]
        return np.asarray(logits, np.float32)

    return run


def _options(level: str) -> Any:
    options = onnxruntime_session.settings(level)
    if onnxruntime_session.sums_saturate():
        options.add_session_config_entry(*onnxruntime_session.EXACT_SUMS)
    return options


def _session(path: str, options: Any, job: Dict[str, Any]) -> Any:
    disabled = onnxruntime_session.WRONG_FOR_FLOAT16_SCALES if job["scales"] == "float16" else ()
    try:
        return onnxruntime_session.session(path, options, disabled=disabled)
    except NativeError:
        raise
    except Exception as error:  # ONNX Runtime's errors share no class
        raise Broken(f"ONNX Runtime refuses {os.path.basename(path)}: {' '.join(str(error).split())}") from error
