"""What this machine can do: each backend, or what is missing and the command that installs it."""

from __future__ import annotations

import os
import platform
from pathlib import Path

from pipeline import provenance
from pipeline.building import engines
from pipeline.errors import cure
from pipeline.targets.compatibility import Answer

TEGRA = Path("/etc/nv_tegra_release")
# What a stage needs, by the package that brings it: the import, the distribution, what it is for.
NEEDS = (
    ("torch", "torch", "training, freezing and exporting"),
    ("onnxsim", "onnxsim", "simplifying"),
    ("onnxruntime", "onnxruntime", "judging every file, and the CPU engine"),
    ("tensorrt", "tensorrt", "engines for the GPU of this machine"),
    ("tensorrt_rtx", "tensorrt-rtx", "engines ahead of time, with no GPU"),
)


def answers() -> list[Answer]:
    """The machine, its GPU, and every package and backend; nothing heavy is imported."""
    return [_machine(), _gpu(), *map(_package, NEEDS), *map(_backend, engines.BACKENDS)]


def _machine() -> Answer:
    cores = len(os.sched_getaffinity(0))
    sentence = f"{platform.machine()}, {cores} processors, Python {platform.python_version()}"
    if TEGRA.is_file():
        sentence += f", Jetson: {TEGRA.read_text().splitlines()[0].lstrip('# ')}"
    return Answer("go", sentence, "")


def _gpu() -> Answer:
    from exporters.engines import gpu

    name = gpu.name()
    return Answer("go", f"GPU: {name}", "") if name else Answer("refused", "no NVIDIA GPU with a working driver", "")


def _package(need: tuple[str, str, str]) -> Answer:
    module, name, purpose = need
    found = {each: held for each, held in provenance.versions((name, f"{name}-gpu")).items() if held}
    if found:
        held = ", ".join(f"{each} {version}" for each, version in found.items())
        return Answer("go", f"{held}: {purpose}", "")
    return Answer("refused", f"{name} is not installed ({purpose}); run: {cure(module)}", "")


def _backend(name: str) -> Answer:
    module = engines.module(name)
    reason = module.available()
    if reason:
        return Answer("refused", f"--engine {name}: {reason}", "")
    what = "builds and runs" if module.RUNS_HERE else "builds, and runs nothing"
    return Answer("go", f"--engine {name} {what} here", "")
