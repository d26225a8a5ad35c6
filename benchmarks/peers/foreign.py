"""The other quantisers: each in an environment of its own, from a float graph and an array to a file."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

from benchmarks.peers import environments

HERE = Path(__file__).parent
# Each quantiser: its environment, its script and the method that is asked of it.
PEERS: dict[str, tuple[str, str, str]] = {
    "ORT minmax": ("onnxruntime", "ort", "minmax"),
    "ORT defaults": ("onnxruntime", "ort", "defaults"),
    "ORT entropy": ("onnxruntime", "ort", "entropy"),
    "ORT percentile": ("onnxruntime", "ort", "percentile"),
    "ORT uint8": ("onnxruntime", "ort", "uint8"),
    "ModelOpt max": ("modelopt", "modelopt", "max"),
    "ModelOpt entropy": ("modelopt", "modelopt", "entropy"),
    "NNCF": ("nncf", "nncf_onnx", "default"),
    "esp-ppq": ("esp-ppq", "esp_ppq_trt", "equalise"),
    "AIMET": ("aimet", "aimet_cle", "tf-enhanced"),
}
MOST_GB, MOST_SECONDS = 16.0, 3600.0


def quantised(peer: str, source: Path, pixels: Path, dst: Path, work: Path) -> dict[str, Any]:
    """What ``peer`` cost, or ``failed`` and why; it writes ``dst``. Its environment is below ``work``.

    Raises CannotBeMadeError where there is no environment.
    """
    environment, script, method = PEERS[peer]
    interpreter = environments.python(environment, work)
    command = [str(interpreter), str(HERE / "quantisers" / f"{script}.py"), method, str(source), str(pixels), str(dst)]
    paths = {**os.environ, "PYTHONPATH": str(HERE), "CUDA_VISIBLE_DEVICES": ""}
    log = dst.with_suffix(".log")
    with log.open("w") as out:
        child = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT, env=paths, start_new_session=True)
        stopped = _watched(child)
    lines = log.read_text().splitlines()
    if stopped or child.returncode or not dst.exists():
        return {"failed": stopped or (lines or ["it said nothing"])[-1][:300]}
    return dict(json.loads(next(line for line in reversed(lines) if line.startswith('{"seconds'))))


def _watched(child: subprocess.Popen[bytes]) -> str | None:
    """Why the child was ended, None where it ended by itself."""
    begun = time.monotonic()
    while child.poll() is None:
        time.sleep(0.5)
        why = None
        if time.monotonic() - begun > MOST_SECONDS:
            why = f"not done after {MOST_SECONDS:.0f} s"
        elif _resident(child.pid) > MOST_GB:
            why = f"more than {MOST_GB:.0f} GB of memory"
        if why:
            os.killpg(child.pid, signal.SIGKILL)
            child.wait()
            return why
    return None


def _resident(pid: int) -> float:
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except (OSError, IndexError):
        return 0.0
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e9
