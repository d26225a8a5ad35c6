"""The engine of a Jetson is built on the Jetson: a shell script for trtexec, which every JetPack has."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    Version = tuple[int, ...]

# What says how the types of a graph are kept, from the first version that says it so (trtexec's help of each version).
TYPED: Mapping[Version, Mapping[str, Sequence[str]]] = {
    (8, 4): {"fp32": (), "fp16": ("--fp16",), "int8-trt8": ("--int8", "--fp16")},
    (10, 0): dict.fromkeys(("fp32", "fp16", "int8", "int8-trt8", "int8-fp16", "fp8"), ("--stronglyTyped",)),
    (11, 0): dict.fromkeys(("fp32", "fp16", "int8", "int8-trt8", "int8-fp16", "fp8"), ()),
}
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

    ``options`` are knobs of a recipe; ``target`` and ``tensorrt`` among them name the device. Raises ValueError where
    the TensorRT there lacks what is asked for.
    """
    return SCRIPT.format(
        name=shlex.quote(name),
        model=shlex.quote(model),
        engine=f"{model.removesuffix('.onnx')}.engine",
        sha256=sha256,
        device=options["target"],
        version=options["tensorrt"],
        number=_number(_version(options)),
        places=" ".join(PLACES),
        flags=" \\\n  ".join(map(shlex.quote, flags(shape, precision, options))),
    )


def flags(shape: Sequence[int], precision: str, options: Mapping[str, Any]) -> list[str]:
    """What trtexec of ``options`` is told beside the names of the files; raises ValueError as ``script`` does."""
    version = _version(options)
    found = [*_typed(version, precision), _since(ONLY_BUILD, version), *_shapes(shape, options.get("profiles"))]
    found.append("--profilingVerbosity=detailed")
    if "workspace" in options:
        found.append(f"--memPoolSize=workspace:{max(1, options['workspace'] >> 20)}")
    for knob, (flag, since) in FLAGS.items():
        if knob in options and version < since:
            raise ValueError(f"TensorRT {options['tensorrt']} has no {flag.split('=')[0]}")
        if knob in options:
            found.append(flag.format(options[knob]))
    if "dla_core" in options and "no_gpu_fallback" not in options:
        found.append("--allowGPUFallback")
    return found


def _version(options: Mapping[str, Any]) -> Version:
    return tuple(int(part) for part in options["tensorrt"].split("."))


def _typed(version: Version, precision: str) -> Sequence[str]:
    known = _since(TYPED, version)
    if precision not in known:
        raise ValueError(f"TensorRT {'.'.join(map(str, version))} does not keep the types of {precision}")
    flags: Sequence[str] = known[precision]
    return flags


def _since(table: Mapping[Version, Any], version: Version) -> Any:
    """The row of the newest version at or before this one; raises ValueError before the first."""
    found = [row for since, row in table.items() if since <= version]
    if not found:
        raise ValueError(f"there is no recipe for TensorRT {'.'.join(map(str, version))}")
    return found[-1]


def _shapes(shape: Sequence[int], profiles: Sequence[Sequence[int]] | None) -> list[str]:
    (batches,) = profiles or [(1, 1, 1)]
    sizes = "x".join(map(str, shape))
    return [f"--{end}Shapes=images:{n}x{sizes}" for end, n in zip(("min", "opt", "max"), batches, strict=True)]


def _number(version: Version) -> int:
    """How trtexec writes its version: 8502 for 8.5.2, 101602 for 10.16.2."""
    major, minor, patch = (*version, 0, 0)[:3]
    return (major * 10 if major < 10 else major * 100) * 100 + minor * 100 + patch
