"""An engine of TensorRT loaded and run, 8.5 to 11: images in, logits out, in batches that it was built for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Optional, Tuple

import numpy as np

from . import cuda
from .errors import NativeError


@dataclass(frozen=True)
class NativeEngine:
    """``engine`` is TensorRT's own object; it needs the runtime and the logger as long as it lives."""

    engine: Any
    runtime: Any
    logger: Any


def load(content: bytes) -> Optional[NativeEngine]:
    """The engine in ``content``, or None where TensorRT refuses it: built for another GPU or by another TensorRT."""
    import tensorrt as trt

    logger = trt.Logger(trt.Logger.ERROR)
    runtime = trt.Runtime(logger)
    engine = runtime.deserialize_cuda_engine(content)
    if engine is None:
        return None
    return NativeEngine(engine, runtime, logger)


class Runner:
    """An engine as a function from images (n, C, H, W), of the type that it takes, to logits (n, classes) float32.

    ``images_name`` and ``logits_name`` are its tensors; ``least`` and ``most`` are the images that its profile takes
    at once. ``profile`` is the number of that profile, None where there is one only, which every context begins with.
    ``classes`` is how many logits are expected, None where any number will do.
    """

    def __init__(
        self,
        loaded: NativeEngine,
        images_name: str,
        logits_name: str,
        batches: Tuple[int, int],
        profile: Optional[int] = None,
        classes: Optional[int] = None,
    ) -> None:
        self._loaded = loaded
        self._context = loaded.engine.create_execution_context()
        self._images_name = images_name
        self._logits_name = logits_name
        self._least, self._most = batches
        self._profile = profile
        self._classes = classes

    def __call__(self, images: Any) -> Any:
        """The logits of any number of images; raises NativeError where the engine refuses or fails."""
        logits = []
        for start in range(0, len(images), self._most):
            batch = images[start : start + self._most]
            # Copies of the last image where the engine takes no fewer; their logits are dropped.
            missing = max(self._least - len(batch), 0)
            padded = np.concatenate([batch, np.repeat(batch[-1:], missing, axis=0)])
            logits.append(self._execute(np.ascontiguousarray(padded))[: len(batch)])
        return np.concatenate(logits)

    def _execute(self, images: Any) -> Any:
        """The logits of one batch of a size that the profile takes."""
        context = self._context
        with cuda.stream() as stream:
            # A driver's handle of 0 is None in ctypes, and TensorRT takes numbers.
            handle = stream.value or 0
            if self._profile is not None and not context.set_optimization_profile_async(self._profile, handle):
                raise NativeError(f"the engine refuses its own profile {self._profile}")
            if not context.set_input_shape(self._images_name, tuple(images.shape)):
                raise NativeError(f"the engine refuses images of shape {images.shape}")
            logits = np.empty(self._logits_shape(len(images)), np.float32)

            with cuda.buffer(images.nbytes) as source, cuda.buffer(logits.nbytes) as answer:
                cuda.to_device(source, images)
                context.set_tensor_address(self._images_name, source.value)
                context.set_tensor_address(self._logits_name, answer.value)
                if not context.execute_async_v3(handle):
                    raise NativeError("the engine failed to run")
                cuda.wait(stream)
                cuda.to_host(logits, answer)
        return logits

    def _logits_shape(self, count: int) -> Tuple[int, ...]:
        shape = tuple(self._context.get_tensor_shape(self._logits_name))
        if self._classes is not None and shape != (count, self._classes):
            raise NativeError(f"the engine answers {shape}, not {(count, self._classes)}")
        return shape
