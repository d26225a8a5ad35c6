"""The engine of a Jetson is built on the Jetson: a shell script for trtexec, which every JetPack has."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    Version = tuple[int, ...]


# Versions from here on keep all types of a graph; older ones keep those that flags of its precision name.
STRONGLY_TYPED: Version = (10, 0)
# What asks for it, from the first version that takes it (trtexec's help of each version): 11 knows nothing else.
TYPED: Mapping[Version, Sequence[str]] = {(8, 4): (), STRONGLY_TYPED: ("--stronglyTyped",), (11, 0): ()}
# What keeps trtexec from timing the engine as well.
ONLY_BUILD: Mapping[Version, str] = {(8, 4): "--buildOnly", (8, 6): "--skipInference"}
# Knobs of a recipe as trtexec's flags, and the first version that has them.
FLAGS: Mapping[str, tuple[str, Version]] = {
    "timing_cache": ("--timingCacheFile={}", (8, 4)),
    "error_on_timing_cache_miss": ("--errorOnTimingCacheMiss", (10, 0)),
    "builder_optimization_level": ("--builderOptimizationLevel={}", (8, 6)),
    "dla_core": ("--useDLACore={}", (8, 4)),
    "version_compatible": ("--versionCompatible", (8, 6)),
}
# Of the two, JetPack 5 and 6 have the first, JetPack 7 the second, and NVIDIA's containers the third.
PLACES = ("/usr/src/tensorrt/bin/trtexec", "/usr/bin/trtexec", "/opt/tensorrt/bin/trtexec")

SCRIPT = """\
#!/bin/sh
# Builds the engine of {model} on {device}: sh {name} [ENGINE]
set -eu
fail() {{ echo "$1" >&2; exit 2; }}
cd "$(dirname "$0")"
engine=${{1:-{engine}}}
[ -f {model} ] || fail "{model} is not beside this script: copy it there"
echo "{sha256}  {model}" | sha256sum -c - >/dev/null 2>&1 ||
  fail "{model} is not the file that was judged: copy it again from the build"
trtexec=
for each in {places} "$(command -v trtexec || true)"; do
  if [ -z "$trtexec" ] && [ -x "$each" ]; then trtexec=$each; fi
done
[ -n "$trtexec" ] || fail "there is no trtexec here: install TensorRT's samples (package libnvinfer-bin)"
# Its first line names its version, as in [TensorRT v8502] or [TensorRT v101602].
found=$("$trtexec" --help 2>&1 | sed -n 's/.*\\[TensorRT v\\([0-9]*\\)\\].*/\\1/p' | head -n 1)
here=${{found:-an unknown one}}
[ "$found" = {number} ] ||
  fail "made for TensorRT {version} ({number}) of {device}, here is $here: build again with --target for this device"
"$trtexec" --onnx={model} --saveEngine="$engine.unfinished" \\
  {flags}
mv "$engine.unfinished" "$engine"
echo "$engine: built for this device by TensorRT {version}"
"""


def script(name: str, model: str, sha256: str, shape: Sequence[int], precision: str, options: Mapping[str, Any]) -> str:
    """The script ``name`` for the ONNX file ``model`` with images of ``shape`` (C, H, W).

    ``options`` are knobs of a recipe; ``target`` and ``tensorrt`` among them name the device. ``precision`` is only a
    name: which TensorRT keeps its types is ``typing`` among them (``any``, ``weak`` or ``strong``), and ``weak_flags``
    are the builder's flags for the weak one, where that can. Raises ValueError where the TensorRT there lacks what is
    asked for.
    """
    quoted_flags = [shlex.quote(flag) for flag in flags(shape, precision, options)]
    return SCRIPT.format(
        name=shlex.quote(name),
        model=shlex.quote(model),
        engine=f"{model.removesuffix('.onnx')}.engine",
        sha256=sha256,
        device=options["target"],
        version=options["tensorrt"],
        number=_number(_version(options)),
        places=" ".join(PLACES),
        flags=" \\\n  ".join(quoted_flags),
    )


def flags(shape: Sequence[int], precision: str, options: Mapping[str, Any]) -> list[str]:
    """What trtexec of ``options`` is told beside the names of the files; raises ValueError as ``script`` does."""
    version = _version(options)
    told = [
        *_typing_flags(version, precision, options),
        _since(ONLY_BUILD, version),
        *_shape_flags(shape, options.get("profiles")),
        "--profilingVerbosity=detailed",
    ]
    if "workspace" in options:
        # trtexec counts in MiB.
        mebibytes = max(1, options["workspace"] >> 20)
        told.append(f"--memPoolSize=workspace:{mebibytes}")
    for knob, (flag, since) in FLAGS.items():
        if knob not in options:
            continue
        if version < since:
            raise ValueError(f"TensorRT {options['tensorrt']} has no {flag.split('=')[0]}")
        told.append(flag.format(options[knob]))
    # What the DLA cannot run is an error without it.
    if "dla_core" in options and "no_gpu_fallback" not in options:
        told.append("--allowGPUFallback")
    return told


def _version(options: Mapping[str, Any]) -> Version:
    return tuple(int(part) for part in options["tensorrt"].split("."))


def _typing_flags(version: Version, precision: str, options: Mapping[str, Any]) -> list[str]:
    """What keeps the types of the graph; raises ValueError where this TensorRT does not keep them."""
    asked_by: Sequence[str] = _since(TYPED, version)
    weak_flags = options.get("weak_flags")
    if version < STRONGLY_TYPED and weak_flags is not None:
        return [f"--{flag.lower()}" for flag in weak_flags]
    if version >= STRONGLY_TYPED and options["typing"] in {"any", "strong"}:
        return [*asked_by]
    raise ValueError(f"TensorRT {_dotted(version)} does not keep the types of {precision}")


def _since(table: Mapping[Version, Any], version: Version) -> Any:
    """The row of the newest version at or before this one; raises ValueError before the first."""
    newest = None
    for since, row in table.items():
        if since <= version:
            newest = row
    if newest is None:
        raise ValueError(f"there is no recipe for TensorRT {_dotted(version)}")
    return newest


def _shape_flags(shape: Sequence[int], profiles: Sequence[Sequence[int]] | None) -> list[str]:
    """The smallest, best and largest batch of the one profile that trtexec builds; one image where nobody said."""
    ((least, best, most),) = profiles or [(1, 1, 1)]
    sizes = "x".join(map(str, shape))
    return [
        f"--minShapes=images:{least}x{sizes}",
        f"--optShapes=images:{best}x{sizes}",
        f"--maxShapes=images:{most}x{sizes}",
    ]


def _dotted(version: Version) -> str:
    return ".".join(map(str, version))


def _number(version: Version) -> int:
    """How trtexec writes its version: 8502 for 8.5.2, 101602 for 10.16.2."""
    major, minor, patch = (*version, 0, 0)[:3]
    # From 10 on the minor number has two digits.
    minor_digits = 10 if major < 10 else 100
    return (major * minor_digits + minor) * 100 + patch
