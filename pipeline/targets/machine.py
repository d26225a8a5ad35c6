"""What this machine can do: each backend, or what is missing and the command that installs it."""

from __future__ import annotations

import os
import platform
from pathlib import Path

from exporters import engines
from pipeline import provenance
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
    packages = [_package(*need) for need in NEEDS]
    backends = [_backend(name) for name in engines.BACKENDS]
    return [_machine(), _gpu(), *packages, *backends]


def _machine() -> Answer:
    cores = len(os.sched_getaffinity(0))
    sentence = f"{platform.machine()}, {cores} processors, Python {platform.python_version()}"
    if TEGRA.is_file():
        release = TEGRA.read_text().splitlines()[0].lstrip("# ")
        sentence += f", Jetson: {release}"
    return Answer("go", sentence, "")


def _gpu() -> Answer:
    from exporters.portable import cuda

    name = cuda.name()
    if name is None:
        return Answer("refused", "no NVIDIA GPU with a working driver", "")
    return Answer("go", f"GPU: {name}", "")


def _package(import_name: str, package: str, purpose: str) -> Answer:
    installed = []
    # Some come from another distribution where there is a GPU, as onnxruntime-gpu.
    for distribution, version in provenance.versions((package, f"{package}-gpu")).items():
        if version:
            installed.append(f"{distribution} {version}")
    if installed:
        return Answer("go", f"{', '.join(installed)}: {purpose}", "")
    return Answer("refused", f"{package} is not installed ({purpose}); run: {cure(import_name)}", "")


def _backend(name: str) -> Answer:
    backend = engines.named(name)
    reason = backend.available()
    if reason:
        return Answer("refused", f"--engine {name}: {reason}", "")
    what = "builds and runs" if backend.runs_here else "builds, and runs nothing"
    return Answer("go", f"--engine {name} {what} here", "")
