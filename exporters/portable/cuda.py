"""NVIDIA's driver through ctypes, with no package to install: the GPU, memory on it, copies and a stream."""

from __future__ import annotations

import ctypes
from contextlib import contextmanager
from functools import lru_cache
from typing import Any, Iterator, Optional

from .errors import NativeError

# CUdevice_attribute (cuda.h): both numbers of the compute capability.
CAPABILITY_MAJOR = 75
CAPABILITY_MINOR = 76
# CUstream_flags (cuda.h): the stream does not wait for the default one.
NON_BLOCKING = 1
LONGEST_NAME = 256


@lru_cache(maxsize=None)
def driver() -> Optional[ctypes.CDLL]:
    """The initialised driver library, or None where there is no GPU that it can use."""
    try:
        library = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return None
    if library.cuInit(0) != 0:
        return None
    count = ctypes.c_int(0)
    if library.cuDeviceGetCount(ctypes.byref(count)) != 0 or count.value == 0:
        return None
    return library


def name() -> Optional[str]:
    """The name of the first GPU, or None."""
    library = driver()
    if library is None:
        return None
    text = ctypes.create_string_buffer(LONGEST_NAME)
    library.cuDeviceGetName(text, LONGEST_NAME, 0)
    return text.value.decode(errors="replace")


def compute_capability() -> Optional[str]:
    """The SM of the first GPU, as in 8.7, or None."""
    library = driver()
    if library is None:
        return None
    numbers = []
    for attribute in (CAPABILITY_MAJOR, CAPABILITY_MINOR):
        value = ctypes.c_int(0)
        library.cuDeviceGetAttribute(ctypes.byref(value), attribute, 0)
        numbers.append(str(value.value))
    return ".".join(numbers)


def _call(function: str, *arguments: Any) -> None:
    library = driver()
    if library is None:
        raise NativeError("there is no NVIDIA GPU with a working driver on this machine")
    _retain_context(library)
    status = getattr(library, function)(*arguments)
    if status != 0:
        raise NativeError(f"the CUDA driver answered {status} to {function}")


@lru_cache(maxsize=None)
def _retain_context(library: ctypes.CDLL) -> None:
    # The primary context is the one that TensorRT's runtime uses as well.
    context = ctypes.c_void_p()
    if library.cuDevicePrimaryCtxRetain(ctypes.byref(context), 0) or library.cuCtxSetCurrent(context):
        raise NativeError("the CUDA driver gives no context on the first GPU")


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
    _call("cuStreamCreate", ctypes.byref(handle), NON_BLOCKING)
    try:
        yield handle
    finally:
        _call("cuStreamDestroy_v2", handle)


def wait(handle: ctypes.c_void_p) -> None:
    """Until everything queued on the stream is done."""
    _call("cuStreamSynchronize", handle)


def to_device(pointer: ctypes.c_uint64, array: Any) -> None:
    """Copy the contiguous numpy ``array`` to the device."""
    _call("cuMemcpyHtoD_v2", pointer, ctypes.c_void_p(array.ctypes.data), ctypes.c_size_t(array.nbytes))


def to_host(array: Any, pointer: ctypes.c_uint64) -> None:
    """Copy from the device into the contiguous numpy ``array``."""
    _call("cuMemcpyDtoH_v2", ctypes.c_void_p(array.ctypes.data), pointer, ctypes.c_size_t(array.nbytes))
