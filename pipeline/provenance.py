"""What made this: versions, the commit, and a hash of this project's own source."""

from __future__ import annotations

import hashlib
import os
import platform
import subprocess
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from pipeline import __version__

ROOT = Path(__file__).resolve().parent.parent
# The folders of this project's own code, in ROOT.
PACKAGES = ("pipeline", "exporters", "calibration")
# Distributions whose version may change a result.
TOOLS = (
    "torch", "onnx", "onnx-ir", "onnxsim", "onnxruntime", "onnxruntime-gpu", "tensorrt", "tensorrt-rtx", "numpy",
    "pillow", "safetensors", "scikit-learn",
)  # fmt: skip


@cache
def source_hash(*files: str) -> str:
    """SHA-256 over these files of this project, or over every Python file of the three packages."""
    paths = [ROOT / file for file in files]
    if not files:
        for package in PACKAGES:
            paths.extend((ROOT / package).rglob("*.py"))

    digest = hashlib.sha256()
    for path in sorted(paths):
        # The name too: a file that moved is another source.
        name = path.relative_to(ROOT).as_posix()
        digest.update(name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


@cache
def commit() -> str | None:
    """The commit of the checkout that this code runs from, or None outside one."""
    if not (ROOT / ".git").exists():
        return None
    command = ["git", "-C", str(ROOT), "rev-parse", "HEAD"]
    try:
        finished = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)  # noqa: S603
    except OSError:  # git is not installed
        return None
    return finished.stdout.strip() or None


def versions(names: tuple[str, ...] = TOOLS) -> dict[str, str | None]:
    """The installed version of each tool, None where it is not installed."""
    return {name: _version(name) for name in names}


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def environment() -> dict[str, Any]:
    """The machine and the tools, for the report."""
    import torch

    from exporters import reference
    from exporters.portable import cuda

    return {
        "pipeline": __version__,
        "commit": commit(),
        "source": source_hash(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpu": _cpu(),
        "cores": len(os.sched_getaffinity(0)),
        "gpu": cuda.name(),
        "threads": torch.get_num_threads(),
        "versions": versions(),
        "providers": {"reference": reference.PROVIDER, "level": reference.LEVEL, "disabled": list(reference.DISABLED)},
    }


def _cpu() -> str:
    """The name of the processor; of its architecture where the system does not say it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    for line in lines:
        if line.startswith("model name"):
            _, _, name = line.partition(":")
            return name.strip()
    return platform.machine()
