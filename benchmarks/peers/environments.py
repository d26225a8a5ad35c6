"""The environments of the peers: what each installs, made once, with pip."""

from __future__ import annotations

import fcntl
import subprocess
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
    "nncf": ("nncf==3.4.0", "openvino==2026.4.1", "onnx", "onnxruntime==1.32.0"),
    "esp-ppq": (TORCH, "esp-ppq==1.3.12", "onnxruntime==1.32.0"),
    "aimet": (TORCH, "aimet-onnx==2.42.0", "onnxruntime==1.32.0"),
    # What runs the file of dlib_face, to prove its conversion.
    "dlib": ("dlib-bin==20.0.1.post1", "numpy"),
}


# Times that pip is asked: a registry may not answer once.
TRIES = 2


class CannotBeMadeError(Exception):
    """An environment that pip cannot make."""


def python(name: str, work: Path) -> Path:
    """The interpreter of the environment ``name``, made where it is not there; raises CannotBeMadeError.

    Only one process makes it, the others wait.
    """
    folder = work / "environments" / name
    found, done = folder / "bin" / "python", folder / "done"
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not done.exists():
            venv.create(folder, with_pip=True, clear=True)
            torch_first = [(TORCH,)] if TORCH in ENVIRONMENTS[name] else []
            for packages in (*torch_first, ENVIRONMENTS[name]):
                _install(name, found, packages)
            done.touch()
    return found


def _install(name: str, interpreter: Path, packages: tuple[str, ...]) -> None:
    for _ in range(TRIES):
        command = ["-m", "pip", "install", "-q", "--no-cache-dir", *packages]
        installed = subprocess.run([interpreter, *command], check=False, capture_output=True, text=True)
        if not installed.returncode:
            return
    said = [line for line in installed.stderr.splitlines() if line.startswith("ERROR")] or ["it said nothing"]
    raise CannotBeMadeError(f"its environment {name} cannot be made: pip says {said[-1]}")


def versions(name: str, work: Path) -> str:
    """The versions that the environment ``name`` really holds, of the packages that were asked for."""
    asked = {package.split("==")[0].split("[")[0] for package in ENVIRONMENTS[name]} - {"torch", "requests", "onnx"}
    listed = subprocess.run([python(name, work), "-m", "pip", "freeze"], check=True, capture_output=True, text=True)
    return ", ".join(sorted(line for line in listed.stdout.splitlines() if line.split("==")[0].lower() in asked))
