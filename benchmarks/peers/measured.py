"""What a piece of work cost this process; imports the standard library only, for the environments of the peers."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


def measured(work: Callable[[], object]) -> None:
    """Do ``work`` and print its seconds, CPU seconds and the peak memory of the process in GB, as one JSON line."""
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    # Not ru_maxrss: a child inherits its parent's.
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    print(json.dumps({"seconds": wall, "cpu_seconds": cpu, "peak_gb": int(line.split()[1]) * 1024 / 1e9}))
