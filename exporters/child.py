"""Foreign native code in a process of its own: when it crashes or hangs, that is an error and not the end of us."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from typing import Any

PR_SET_PDEATHSIG = 1
# What Python, C++ and the system say when there is no more memory to be had.
STARVED = ("MemoryError", "std::bad_alloc", "Cannot allocate memory")


def call(function: str, *arguments: str, seconds: float = 1800, memory: int = 64 * 2**30) -> Any:
    """The JSON value that ``module:function(*arguments)`` returns in a new interpreter.

    Raises RuntimeError when the child fails, crashes, outlives ``seconds`` or needs more than ``memory`` bytes.
    """
    command = [sys.executable, "-m", "exporters.child", str(memory), function, *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds, check=False)  # noqa: S603
    except subprocess.TimeoutExpired as error:
        raise RuntimeError(f"{function} did not end within {seconds:.0f} s and was stopped") from error
    if done.returncode != 0 and any(word in done.stderr for word in STARVED):
        raise RuntimeError(f"{function} needed more than its limit of {memory / 2**30:.1f} GiB of memory")
    if done.returncode < 0:
        raise RuntimeError(f"{function} crashed ({signal.Signals(-done.returncode).name}){_last_line(done.stderr)}")
    if done.returncode > 0:
        raise RuntimeError(f"{function} failed{_last_line(done.stderr)}")
    return json.loads(done.stdout.splitlines()[-1])


def _last_line(text: str) -> str:
    lines = text.strip().splitlines()
    return f": {lines[-1]}" if lines else ""


def main() -> None:
    """The child's side: import, call, print the answer as the last line."""
    import ctypes
    import importlib
    import resource

    # When the parent is killed the child goes with it, and nothing writes into its directory any more.
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    # Data, not address space: libraries map far more than they ever touch.
    resource.setrlimit(resource.RLIMIT_DATA, (int(sys.argv[1]),) * 2)
    module, _, name = sys.argv[2].partition(":")
    print(json.dumps(getattr(importlib.import_module(module), name)(*sys.argv[3:])))  # noqa: T201


if __name__ == "__main__":
    main()
