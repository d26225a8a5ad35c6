"""What this device is, read from where Linux, L4T and NVIDIA's tools say it; None where nobody says."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
from dataclasses import asdict, dataclass
from typing import Any, Dict, List, Optional

# The module by the device tree's own words; the first that fits.
MODULES = (
    ("Orin Nano", "jetson-orin-nano"),
    ("Orin NX", "jetson-orin-nx"),
    ("AGX Orin", "jetson-agx-orin"),
    ("Thor", "jetson-thor"),
    ("Xavier NX", "jetson-xavier-nx"),
    ("AGX Xavier|Jetson-AGX", "jetson-agx-xavier"),
    ("TX2|quill", "jetson-tx2"),
    ("Jetson Nano|Jetson-Nano", "jetson-nano"),
)
L4T = re.compile(r"R(\d+) \(release\), REVISION: ([\d.]+)")
POWER = re.compile(r"NV Power Mode:\s*(\S+)")
TREE, RELEASE, MEMORY = "proc/device-tree/model", "etc/nv_tegra_release", "proc/meminfo"
CLOCKS = "sys/class/devfreq"
CORE = re.compile(r"^CPU implementer\s*: (\S+)$.*?^CPU part\s*: (\S+)$", re.MULTILINE | re.DOTALL)
# x86 without VNNI saturates its sums; ARM has other kernels with each.
UNITS = (("VNNI", r"\bavx(512)?_vnni\b"), ("dot products", r"\basimddp\b"), ("INT8 matrices", r"\bi8mm\b"))


@dataclass(frozen=True)
class Facts:
    """Sizes are bytes; ``gpu_clocks`` has the least, current and largest frequency in Hz."""

    machine: str
    processor: Optional[str]
    model: Optional[str]
    module: Optional[str]
    l4t: Optional[str]
    gpu: Optional[str]
    sm: Optional[str]
    tensorrt: Optional[str]
    onnxruntime: Optional[str]
    memory: int
    available: int
    power_mode: Optional[str]
    gpu_clocks: Optional[List[int]]

    def device(self, engine: str) -> Dict[str, Any]:
        """What an engine depends on: it is used where all of this is the same, and nowhere else."""
        names = {"tensorrt": ("model", "l4t", "gpu", "sm", "tensorrt"), "onnxruntime": ("processor", "onnxruntime")}
        return {"engine": engine, "machine": self.machine, **{name: asdict(self)[name] for name in names[engine]}}


def read(root: str = "/") -> Facts:
    """The facts of this device; ``root`` is where /proc, /etc and /sys are read."""
    from exporters.portable import cuda

    from . import onnxruntime_engine, tensorrt_engine

    model, memory = _text(root, TREE), _memory(_text(root, MEMORY) or "")
    release = L4T.search(_text(root, RELEASE) or "")
    return Facts(
        machine=platform.machine(),
        processor=_processor(_text(root, "proc/cpuinfo") or ""),
        model=model,
        module=module_of(model or ""),
        l4t=f"{release.group(1)}.{release.group(2)}" if release else None,
        gpu=cuda.name(),
        sm=cuda.compute_capability(),
        tensorrt=tensorrt_engine.version(),
        onnxruntime=onnxruntime_engine.version(),
        memory=memory.get("MemTotal", 0),
        available=memory.get("MemAvailable", 0),
        power_mode=power_mode(),
        gpu_clocks=gpu_clocks(root),
    )


def module_of(model: str) -> Optional[str]:
    """The module's name in our data, or None where it is no Jetson that we know."""
    return next((name for words, name in MODULES if re.search(words, model)), None)


def power_mode() -> Optional[str]:
    """The name of the power mode, as ``nvpmodel -q`` prints it: its number means another mode on another module."""
    tool = shutil.which("nvpmodel") or "/usr/sbin/nvpmodel"
    try:
        done = subprocess.run([tool, "-q"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=10, check=False)  # noqa: S603
    except (OSError, subprocess.TimeoutExpired):
        return None
    found = POWER.search(done.stdout.decode(errors="replace"))
    return found.group(1) if found else None


def gpu_clocks(root: str = "/") -> Optional[List[int]]:
    """The least, current and largest frequency of the GPU, in Hz."""
    folder = os.path.join(root, CLOCKS)
    names = sorted(os.listdir(folder)) if os.path.isdir(folder) else []
    for name in names:
        if re.search(r"gpu|ga10b|gv11b|gp10b|gm20b|gpc", name):
            said = [_text(folder, os.path.join(name, each)) for each in ("min_freq", "cur_freq", "max_freq")]
            if all(value is not None and value.isdigit() for value in said):
                return [int(value) for value in said if value]
    return None


def _processor(text: str) -> Optional[str]:
    """The processor and its units for INT8: a compiled graph depends on both. A core of ARM has numbers for a name."""
    cores = sorted(set(CORE.findall(text)))
    found = re.search(r"^model name\s*:\s*(.*)$", text, re.MULTILINE)
    if not cores and found is None:
        return None
    name = " + ".join(f"ARM {designer}/{part}" for designer, part in cores) or (found.group(1) if found else "")
    units = [unit for unit, words in UNITS if re.search(words, text)]
    return f"{name} with {', '.join(units)}" if units else name


def _memory(text: str) -> Dict[str, int]:
    return {name: int(size) * 1024 for name, size in re.findall(r"^(\w+):\s+(\d+) kB$", text, re.MULTILINE)}


def _text(root: str, name: str) -> Optional[str]:
    try:
        with open(os.path.join(root, name), encoding="utf-8", errors="replace") as file:
            return file.read().strip().strip("\0")
    except OSError:
        return None
