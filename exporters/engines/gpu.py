"""NVIDIA's driver through ctypes: is there a GPU, and memory on it, with no package to install."""

from __future__ import annotations

import ctypes
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np
    from numpy.typing import NDArray


@cache
def driver() -> ctypes.CDLL | None:
    """The initialised driver library, or None where there is no usable GPU."""
    try:
        library = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return None
    count = ctypes.c_int(0)
    if library.cuInit(0) != 0 or library.cuDeviceGetCount(ctypes.byref(count)) != 0 or count.value == 0:
        return None
    return library


def name() -> str | None:
    """The name of the first GPU, or None."""
    library = driver()
    if library is None:
        return None
    text = ctypes.create_string_buffer(256)
    library.cuDeviceGetName(text, 256, 0)
    return text.value.decode(errors="replace")


def _call(function: str, *arguments: object) -> None:
    library = driver()
    if library is None:
        raise RuntimeError("there is no NVIDIA GPU with a working driver on this machine")
    _retain(library)
    status = getattr(library, function)(*arguments)
    if status != 0:
        raise RuntimeError(f"the CUDA driver answered {status} to {function}")


@cache
def _retain(library: ctypes.CDLL) -> None:
    # The primary context is the one that TensorRT's runtime uses as well.
    context = ctypes.c_void_p()
    if library.cuDevicePrimaryCtxRetain(ctypes.byref(context), 0) or library.cuCtxSetCurrent(context):
        raise RuntimeError("the CUDA driver gives no context on the first GPU")


@contextmanager
def buffer(size: int) -> Iterator[ctypes.c_uint64]:
    """``size`` bytes of device memory, freed at the end."""
    pointer = ctypes.c_uint64()
    _call("cuMemAlloc_v2", ctypes.byref(pointer), ctypes.c_size_t(size))
    try:
        yield pointer
    finally:
        _call("cuMemFree_v2", pointer)


@contextmanager
def stream() -> Iterator[ctypes.c_void_p]:
    """A stream of its own; TensorRT synchronises needlessly on the default one."""
    handle = ctypes.c_void_p()
    _call("cuStreamCreate", ctypes.byref(handle), 1)
    try:
        yield handle
    finally:
        _call("cuStreamDestroy_v2", handle)


def wait(handle: ctypes.c_void_p) -> None:
    """Until everything queued on the stream is done."""
    _call("cuStreamSynchronize", handle)


def to_device(pointer: ctypes.c_uint64, array: NDArray[np.float32]) -> None:
    """Copy ``array`` to the device."""
    _call("cuMemcpyHtoD_v2", pointer, ctypes.c_void_p(array.ctypes.data), ctypes.c_size_t(array.nbytes))


def to_host(array: NDArray[np.float32], pointer: ctypes.c_uint64) -> None:
    """Copy from the device into ``array``."""
    _call("cuMemcpyDtoH_v2", ctypes.c_void_p(array.ctypes.data), pointer, ctypes.c_size_t(array.nbytes))
