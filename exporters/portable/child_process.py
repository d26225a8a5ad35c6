"""Foreign native code in a process of its own: when it crashes or hangs, that is an ending with words, not our end."""

from __future__ import annotations

import ctypes
import signal
import subprocess
import sys
import tempfile
import threading
from dataclasses import dataclass
from typing import Callable, Dict, List, Optional

# prctl(2).
PR_SET_PDEATHSIG = 1


@dataclass(frozen=True)
class Ending:
    """How a child process ended.

    ``code`` is its exit code, or the negative number of the signal that ended it. ``late``: it was stopped because its
    time was over. ``last_line`` is the last line of its error stream that is not empty, ``output`` all that it printed.
    """

    code: int
    late: bool
    last_line: str
    output: str

    def reason(self, seconds: float) -> str:
        """Why there is no answer within ``seconds``, to stand behind the name of what was called."""
        if self.late:
            return f"did not end within {seconds:g} s and was stopped"
        if self.code < 0:
            return f"crashed ({signal.Signals(-self.code).name})"
        return "failed"


def run(
    command: List[str],
    seconds: float,
    heard: Callable[[str], None],
    job: str = "",
    environment: Optional[Dict[str, str]] = None,
) -> Ending:
    """Run ``command`` for at most ``seconds``, with ``job`` as its input; how it ended.

    ``heard`` gets the last line of its error stream that is not empty, whenever a line arrives.
    """
    late = threading.Event()
    # Files for input and output: only the error stream is read meanwhile, and a full pipe would stop the child.
    with tempfile.TemporaryFile("w+") as question, tempfile.TemporaryFile("w+") as answer:
        question.write(job)
        question.seek(0)
        with subprocess.Popen(  # noqa: S603
            command,
            stdin=question,
            stdout=answer,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            env=environment,
        ) as process:
            timer = threading.Timer(seconds, _stop, (process, late))
            timer.start()
            last_line = ""
            try:
                for line in process.stderr or ():
                    last_line = line.strip() or last_line
                    heard(last_line)
                code = process.wait()
            finally:
                timer.cancel()
                process.kill()  # where Ctrl-C ended the wait
        answer.seek(0)
        return Ending(code, late.is_set(), last_line, answer.read())


def _stop(process: subprocess.Popen[str], late: threading.Event) -> None:
    late.set()
    process.kill()


def die_with_parent() -> None:
    """In the child: when the parent is killed this process goes with it, and nothing writes for it any more."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def say(text: str) -> None:
    """In the child: a line for the parent, at once."""
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()
