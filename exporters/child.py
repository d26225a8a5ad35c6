"""Foreign native code in a process of its own: when it crashes or hangs, that is an error and not the end of us."""

from __future__ import annotations

import importlib
import json
import resource
import sys
from typing import TYPE_CHECKING, Any

from exporters.portable import child_process

if TYPE_CHECKING:
    from collections.abc import Callable

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
    starved = False

    def listen(line: str) -> None:
        nonlocal starved
        # Not only in the last line: a library may say more while it unwinds.
        if any(word in line for word in STARVED):
            starved = True
        if heard is not None:
            heard(line)

    command = [sys.executable, "-m", "exporters.child", str(memory), function, *arguments]
    ending = child_process.run(command, seconds, listen)
    if ending.code == 0:
        # Libraries print as well; the answer is the last line.
        return json.loads(ending.output.splitlines()[-1])

    reason = ending.reason(seconds)
    if starved and not ending.late:
        reason = f"needed more than its limit of {memory / 2**30:.1f} GiB of memory"
    last_words = f": {ending.last_line}" if ending.last_line else ""
    raise RuntimeError(f"{function} {reason}{last_words}")


def main() -> None:
    """The child's side: import, call, print the answer as the last line."""
    limit = int(sys.argv[1])
    module, _, name = sys.argv[2].partition(":")
    arguments = sys.argv[3:]

    child_process.die_with_parent()
    # Data, not address space: libraries map far more than they ever touch.
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    function = getattr(importlib.import_module(module), name)
    sys.stdout.write(json.dumps(function(*arguments)) + "\n")


if __name__ == "__main__":
    main()
