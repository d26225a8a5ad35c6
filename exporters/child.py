"""Foreign native code in a process of its own: when it crashes or hangs, that is an error and not the end of us."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import tempfile
import threading
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

PR_SET_PDEATHSIG = 1
# What Python, C++ and the system say when there is no more memory to be had.
STARVED = ("MemoryError", "std::bad_alloc", "Cannot allocate memory")


def call(
    function: str,
    *arguments: str,
    seconds: float = 1800,
    memory: int = 64 * 2**30,
    heard: Callable[[str], None] | None = None,
) -> Any:
    """The JSON value that ``module:function(*arguments)`` returns in a new interpreter.

    ``heard`` gets every line of the child's error stream while it runs. Raises RuntimeError when the child fails,
    crashes, outlives ``seconds`` or needs more than ``memory`` bytes, with the last line that it said.
    """
    command = [sys.executable, "-m", "exporters.child", str(memory), function, *arguments]
    late = threading.Event()
    with (
        tempfile.TemporaryFile("w+") as answer,
        subprocess.Popen(command, stdout=answer, stderr=subprocess.PIPE, text=True, errors="replace") as process,  # noqa: S603
    ):
        timer = threading.Timer(seconds, _stop, (process, late))
        timer.start()
        try:
            last, starved = _listen(process, heard)
            code = process.wait()
        finally:
            timer.cancel()
            process.kill()  # where Ctrl-C ended the wait
        if code == 0:
            answer.seek(0)
            return json.loads(answer.read().splitlines()[-1])
    if late.is_set():
        raise RuntimeError(f"{function} did not end within {seconds:.0f} s and was stopped{last}")
    if starved:
        raise RuntimeError(f"{function} needed more than its limit of {memory / 2**30:.1f} GiB of memory{last}")
    if code < 0:
        raise RuntimeError(f"{function} crashed ({signal.Signals(-code).name}){last}")
    raise RuntimeError(f"{function} failed{last}")


def _stop(process: subprocess.Popen[str], late: threading.Event) -> None:
    late.set()
    process.kill()


def _listen(process: subprocess.Popen[str], heard: Callable[[str], None] | None) -> tuple[str, bool]:
    """The last line that the child said, and whether one told of no more memory."""
    last, starved = "", False
    for line in process.stderr or ():
        last, starved = line.strip() or last, starved or any(word in line for word in STARVED)
        if heard is not None:
            heard(last)
    return f": {last}" if last else "", starved


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
    sys.stdout.write(json.dumps(getattr(importlib.import_module(module), name)(*sys.argv[3:])) + "\n")


if __name__ == "__main__":
    main()
