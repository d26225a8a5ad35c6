"""Engine backends, one module each with its ``BACKEND``; what each one is and does stands in ``backend.py``.

To add one, write its module and put its name into the list below: ``--engine``, ``doctor``, ``build``, ``describe`` and
the judge of finished files all go by this list.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from exporters.engines.backend import Backend

# What --engine takes, by preference: `auto` judges the first that can run here, and also builds those that run only
# elsewhere. A new one goes behind `onnxruntime`, unless it should be the default wherever it is installed.
BACKENDS = ("tensorrt", "onnxruntime-cuda", "onnxruntime", "tensorrt-rtx")
# Those that write a recipe for another machine. A target brings them in, and here is nothing to run or to describe.
RECIPES = ("device",)


def named(name: str) -> Backend:
    """The backend of that name, ``tensorrt-rtx`` from ``tensorrt_rtx.py``; the modules of the others stay unread.

    So ``--help`` lists the names without waiting for ONNX.
    """
    module = importlib.import_module(f"exporters.engines.{name.replace('-', '_')}")
    backend: Backend = module.BACKEND
    return backend
