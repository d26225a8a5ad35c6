"""An ONNX file run as it is written: ONNX Runtime with every optimiser off, so that nothing is fused unseen."""

from __future__ import annotations

from typing import TYPE_CHECKING

from exporters.portable import onnxruntime_session

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    import onnxruntime

# At its default level ONNX Runtime folds BatchNorm by itself, fuses Q/DQ by whole quantisation steps, and computes
# wrong logits where Q/DQ scales are float16 (its WeightBiasQuantization underflows): useless as a reference.
LEVEL = "ORT_DISABLE_ALL"
DISABLED = onnxruntime_session.WRONG_FOR_FLOAT16_SCALES
PROVIDER = onnxruntime_session.CPU
M_MMAP_THRESHOLD = -3  # glibc's malloc.h
MEGABYTE = 2**20


def give_back_memory() -> None:
    """Let every block of a megabyte and more go back to the system as soon as it is free (glibc only).

    glibc raises its own threshold with every large block that is freed, and keeps up to 32 MB blocks from then on:
    a ResNeXt-50 in pieces at 224 pixels then holds 2.9 GB, and 1.6 GB with this.
    """
    import ctypes

    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_MMAP_THRESHOLD, MEGABYTE)


def trim() -> None:
    """Give what is free back to the system now (glibc only): a model that was read leaves half of its size behind."""
    import ctypes
    import gc

    gc.collect()  # nodes and values of a graph hold each other
    malloc_trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if malloc_trim is not None:
        malloc_trim(0)


def refusals() -> tuple[type[Exception], ...]:
    """What ONNX Runtime raises for a model or inputs that it cannot run; they share no class of their own."""
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    return state.Fail, state.InvalidArgument, state.InvalidGraph, state.NotImplemented, state.RuntimeException


def silent() -> onnxruntime.RunOptions:
    """Settings of a run that may fail: its error is raised, and not written to the standard error as well."""
    import onnxruntime

    options = onnxruntime.RunOptions()
    options.log_severity_level = 4  # fatal
    return options


def session(
    model: Path | bytes,
    level: str = LEVEL,
    disabled: Sequence[str] = DISABLED,
    compiled: Path | None = None,
    entries: Mapping[str, str] | None = None,
    *,
    alone: bool = False,
    provider: str = PROVIDER,
) -> onnxruntime.InferenceSession:
    """A session of ``provider`` alone at ``level``, the optimised graph written to ``compiled`` if that is given.

    ``entries`` are further entries of its configuration.
    ``alone``: it is the one busy session, and keeps its memory from run to run and its threads awake within one.
    Raises RuntimeError where another provider than the one asked for would answer.
    """
    import onnxruntime

    available = onnxruntime.get_available_providers()
    if provider not in available:
        raise RuntimeError(f"asked ONNX Runtime for {provider}, it has {', '.join(available)}")

    options = onnxruntime_session.settings(level)
    # What a run needs goes back to the system after it: dozens of sessions live side by side in pieces of a network.
    options.enable_cpu_mem_arena = alone
    if alone:
        # Awake while it runs, asleep after it: where two are timed in turns the idle one would take the other's cores.
        options.add_session_config_entry("session.force_spinning_stop", "1")
    else:
        # Threads that have nothing to do sleep: with over a hundred sessions side by side those that spin use up the
        # processors, and debug of a ResNet-18 on a shared machine took 77 seconds instead of 3.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if compiled is not None:
        options.optimized_model_filepath = str(compiled)
    for key, value in (entries or {}).items():
        options.add_session_config_entry(key, value)
    if provider != PROVIDER:
        # Else what the provider does not take would run on the CPU, unseen.
        options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")

    source = model if isinstance(model, bytes) else str(model)
    made: onnxruntime.InferenceSession = onnxruntime_session.session(source, options, provider, disabled)
    return made
