"""What a builder is asked for, by the names of a recipe's knobs, in every TensorRT's own words.

Enums go by name, since their numbers moved between versions; what a version lacks is an error with its name.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

# Images per run, smallest, best and largest, where nobody said.
BATCHES = (1, 8, 16)
# Knobs that are one flag of the builder.
FLAGS = {
    "version_compatible": "VERSION_COMPATIBLE",
    "error_on_timing_cache_miss": "ERROR_ON_TIMING_CACHE_MISS",
}


def configure(trt: Any, builder: Any, network: Any, options: Mapping[str, Any], weak_flags: Sequence[str]) -> Any:
    """The builder's configuration for ``options``; ``weak_flags`` are of the types that a weakly typed network needs.

    Raises SystemExit with a sentence where this TensorRT lacks what is asked for.
    """
    config = builder.create_builder_config()
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    _add_profiles(builder, config, network.get_input(0), options.get("profiles") or (BATCHES,))

    for flag in weak_flags:
        _flag(trt, config, flag)
    # A DLA runs some layers only; the others would be errors.
    if "dla_core" in options and not options.get("no_gpu_fallback"):
        _flag(trt, config, "GPU_FALLBACK")
    for knob, value in options.items():
        if knob in FLAGS:
            _flag(trt, config, FLAGS[knob])
        elif knob in SETTINGS:
            SETTINGS[knob](trt, config, value)
    return config


def _add_profiles(builder: Any, config: Any, images: Any, profiles: Sequence[Sequence[int]]) -> None:
    """One profile for each of ``profiles``, whose numbers of images are the smallest, the best and the largest."""
    _, *image_shape = images.shape
    for batches in profiles:
        profile = builder.create_optimization_profile()
        shapes = [(batch, *image_shape) for batch in batches]
        profile.set_shape(images.name, *shapes)
        config.add_optimization_profile(profile)


def _flag(trt: Any, config: Any, name: str) -> None:
    config.set_flag(_member(trt, "BuilderFlag", name))


def _member(trt: Any, enum: str, name: str) -> Any:
    member = getattr(getattr(trt, enum), name, None)
    if member is None:
        raise SystemExit(f"TensorRT {trt.__version__} has no {enum}.{name}")
    return member


def _workspace(trt: Any, config: Any, size: int) -> None:
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, size)


def _level(_: Any, config: Any, level: int) -> None:
    config.builder_optimization_level = level


def _hardware(trt: Any, config: Any, level: str) -> None:
    config.hardware_compatibility_level = _member(trt, "HardwareCompatibilityLevel", level.upper().replace("-", "_"))


def _dla(trt: Any, config: Any, core: int) -> None:
    config.default_device_type = trt.DeviceType.DLA
    config.DLA_core = core


def _capabilities(trt: Any, config: Any, targets: Sequence[str]) -> None:
    config.num_compute_capabilities = len(targets)
    for index, target in enumerate(targets):
        config.set_compute_capability(_member(trt, "ComputeCapability", f"SM{target}"), index)


SETTINGS: dict[str, Callable[[Any, Any, Any], None]] = {
    "workspace": _workspace,
    "builder_optimization_level": _level,
    "hardware_compatibility": _hardware,
    "dla_core": _dla,
    "rtx_sm": _capabilities,
}


def timing_cache(config: Any, path: Path) -> Any:
    """The timing cache in ``path``, set into ``config``; an empty one where there is no such file.

    Raises SystemExit where another GPU or TensorRT wrote it.
    """
    content = path.read_bytes() if path.exists() else b""
    cache = config.create_timing_cache(content)
    if cache is None or not config.set_timing_cache(cache, ignore_mismatch=False):
        raise SystemExit(
            f"{path} is no timing cache of this GPU and TensorRT; name another file, and a new one is written there"
        )
    return cache


def keep(cache: Any, path: Path) -> None:
    """Write ``cache`` to ``path``, whole or not at all."""
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    fresh.write_bytes(bytes(cache.serialize()))
    fresh.replace(path)
