"""NVIDIA's driver through ctypes, with neither torch nor pycuda: the GPU, memory on it, copies and a stream."""

from __future__ import annotations

import ctypes
from contextlib import contextmanager
from functools import lru_cache
from typing import Any, Dict, Iterator, Optional

from .errors import Broken

# CUdevice_attribute (cuda.h).
MAJOR, MINOR = 75, 76


@lru_cache(maxsize=None)
def driver() -> Optional[ctypes.CDLL]:
    """The initialised driver, None where there is no GPU that it can use."""
    try:
        library = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return None
    count = ctypes.c_int(0)
    if library.cuInit(0) or library.cuDeviceGetCount(ctypes.byref(count)) or count.value == 0:
        return None
    return library


def gpu() -> Optional[Dict[str, str]]:
    """The name and the SM of the first GPU."""
    library = driver()
    if library is None:
        return None
    name, numbers = ctypes.create_string_buffer(256), []
    library.cuDeviceGetName(name, 256, 0)
    for attribute in (MAJOR, MINOR):
        value = ctypes.c_int(0)
        library.cuDeviceGetAttribute(ctypes.byref(value), attribute, 0)
        numbers.append(str(value.value))
    return {"name": name.value.decode(errors="replace"), "sm": ".".join(numbers)}


def _call(function: str, *arguments: Any) -> None:
    library = driver()
    if library is None:
        raise Broken("there is no NVIDIA GPU with a working driver here")
    _retain(library)
    status = getattr(library, function)(*arguments)
    if status:
        raise Broken(f"the CUDA driver answered {status} to {function}")


@lru_cache(maxsize=None)
def _retain(library: ctypes.CDLL) -> None:
    """The primary context, which TensorRT uses as well."""
    context = ctypes.c_void_p()
    if library.cuDevicePrimaryCtxRetain(ctypes.byref(context), 0) or library.cuCtxSetCurrent(context):
        raise Broken("the CUDA driver gives no context on the first GPU")


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
    """A stream of its own: on the default one TensorRT waits where it need not."""
    handle = ctypes.c_void_p()
    _call("cuStreamCreate", ctypes.byref(handle), 1)
    try:
        yield handle
    finally:
        _call("cuStreamDestroy_v2", handle)


def wait(handle: ctypes.c_void_p) -> None:
    """Until all that was queued on the stream is done."""
    _call("cuStreamSynchronize", handle)


def to_device(pointer: ctypes.c_uint64, array: Any) -> None:
    """Copy a contiguous array to the device."""
    _call("cuMemcpyHtoD_v2", pointer, ctypes.c_void_p(array.ctypes.data), ctypes.c_size_t(array.nbytes))


def to_host(array: Any, pointer: ctypes.c_uint64) -> None:
    """Copy from the device into a contiguous array."""
    _call("cuMemcpyDtoH_v2", ctypes.c_void_p(array.ctypes.data), pointer, ctypes.c_size_t(array.nbytes))
