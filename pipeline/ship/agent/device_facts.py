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
# The GPU is one of the folders of CLOCKS, named by its kind or its chip, as in 17000000.gpu.
GPU = re.compile(r"gpu|ga10b|gv11b|gp10b|gm20b|gpc")
FREQUENCIES = ("min_freq", "cur_freq", "max_freq")
TREE = "proc/device-tree/model"
RELEASE = "etc/nv_tegra_release"
MEMORY = "proc/meminfo"
CLOCKS = "sys/class/devfreq"
CORE = re.compile(r"^CPU implementer\s*: (\S+)$.*?^CPU part\s*: (\S+)$", re.MULTILINE | re.DOTALL)
# x86 without VNNI saturates its sums; ARM has other kernels with each.
UNITS = (("VNNI", r"\bavx(512)?_vnni\b"), ("dot products", r"\basimddp\b"), ("INT8 matrices", r"\bi8mm\b"))
# What an engine of each kind depends on, beside the type of the machine.
DEPENDS_ON = {"tensorrt": ("model", "l4t", "gpu", "sm", "tensorrt"), "onnxruntime": ("processor", "onnxruntime")}


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
        facts = asdict(self)
        described = {"engine": engine, "machine": self.machine}
        for name in DEPENDS_ON[engine]:
            described[name] = facts[name]
        return described


def read(root: str = "/") -> Facts:
    """The facts of this device; ``root`` is where /proc, /etc and /sys are read."""
    from exporters.portable import cuda

    from . import onnxruntime_engine, tensorrt_engine

    model = _text(root, TREE)
    memory = _memory(_text(root, MEMORY) or "")
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
    for words, name in MODULES:
        if re.search(words, model):
            return name
    return None


def power_mode() -> Optional[str]:
    """The name of the power mode, as ``nvpmodel -q`` prints it: its number means another mode on another module."""
    tool = shutil.which("nvpmodel") or "/usr/sbin/nvpmodel"
    try:
        done = subprocess.run(  # noqa: S603
            [tool, "-q"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=10, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    match = POWER.search(done.stdout.decode(errors="replace"))
    return match.group(1) if match else None


def gpu_clocks(root: str = "/") -> Optional[List[int]]:
    """The least, current and largest frequency of the GPU, in Hz."""
    folder = os.path.join(root, CLOCKS)
    if not os.path.isdir(folder):
        return None
    for name in sorted(os.listdir(folder)):
        if not GPU.search(name):
            continue
        texts = [_text(folder, os.path.join(name, frequency)) or "" for frequency in FREQUENCIES]
        if all(text.isdigit() for text in texts):
            return [int(text) for text in texts]
    return None


def _processor(text: str) -> Optional[str]:
    """The processor and its units for INT8: a compiled graph depends on both. A core of ARM has numbers for a name."""
    cores = sorted(set(CORE.findall(text)))
    model_name = re.search(r"^model name\s*:\s*(.*)$", text, re.MULTILINE)
    if cores:
        # L4T prints a model name as well, and the same one on every Jetson.
        name = " + ".join(f"ARM {designer}/{part}" for designer, part in cores)
    elif model_name is not None:
        name = model_name.group(1)
    else:
        return None
    units = [unit for unit, words in UNITS if re.search(words, text)]
    return f"{name} with {', '.join(units)}" if units else name


def _memory(text: str) -> Dict[str, int]:
    """The lines of /proc/meminfo, in bytes."""
    sizes = re.findall(r"^(\w+):\s+(\d+) kB$", text, re.MULTILINE)
    return {name: int(kibibytes) * 1024 for name, kibibytes in sizes}


def _text(root: str, name: str) -> Optional[str]:
    try:
        with open(os.path.join(root, name), encoding="utf-8", errors="replace") as file:
            return file.read().strip().strip("\0")
    except OSError:
        return None
