"""The environments of the peers: what each installs, made once, with pip."""

from __future__ import annotations

import subprocess
import sys
import venv
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

# A plain torch would bring gigabytes of CUDA where no CPU build is served; it is installed first, alone.
TORCH = "torch==2.13.0"
ENVIRONMENTS: dict[str, tuple[str, ...]] = {
    "onnxruntime": ("onnxruntime==1.32.0", "onnx==1.23.2"),
    "torch": (TORCH, "onnx==1.23.2", "onnxscript", "onnx-ir", "safetensors"),
    "modelopt": (TORCH, "nvidia-modelopt[onnx]==0.47.0", "requests"),
    "nncf": ("nncf", "openvino", "onnx", "onnxruntime"),
    "esp-ppq": (TORCH, "esp-ppq", "onnxruntime"),
    "aimet": (TORCH, "aimet-onnx", "onnxruntime"),
}


def python(name: str, work: Path) -> Path:
    """The interpreter of the environment ``name``; raises CalledProcessError where pip cannot make it."""
    folder = work / "environments" / name
    found, done = folder / "bin" / "python", folder / "done"
    if not done.exists():
        venv.create(folder, with_pip=True, clear=True)
        torch_first = [[TORCH]] if TORCH in ENVIRONMENTS[name] else []
        for packages in (*torch_first, ENVIRONMENTS[name]):
            subprocess.run([found, "-m", "pip", "install", "-q", *packages], check=True, stdout=sys.stderr)
        done.touch()
    return found


def versions(name: str, work: Path) -> str:
    """The versions that the environment ``name`` really holds, of the packages that were asked for."""
    asked = {package.split("==")[0].split("[")[0] for package in ENVIRONMENTS[name]} - {"torch", "requests", "onnx"}
    listed = subprocess.run([python(name, work), "-m", "pip", "freeze"], check=True, capture_output=True, text=True)
    return ", ".join(sorted(line for line in listed.stdout.splitlines() if line.split("==")[0].lower() in asked))
