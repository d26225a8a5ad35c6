"""Native code in a process of its own: a crash, a hang or too little memory there is a sentence here."""

from __future__ import annotations

import ctypes
import importlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from typing import Any, Callable, Dict, Optional

from .errors import AgentError, Broken

PR_SET_PDEATHSIG = 1
# The folder, or the zip, that this package lies in.
HOME = os.path.abspath(__file__)
for _ in __name__.split("."):
    HOME = os.path.dirname(HOME)


def call(function: str, job: Dict[str, Any], seconds: float, heard: Callable[[str], None]) -> Any:
    """The JSON value that ``module:function(job)`` of this package returns in a new interpreter.

    ``heard`` gets each line that it says. Raises Broken, with the last of them, where it fails, crashes or outlives
    ``seconds``; what it raises as an AgentError is raised here.
    """
    path = os.pathsep.join(filter(None, [HOME, os.environ.get("PYTHONPATH")]))
    line = [sys.executable, "-m", __name__, function]
    late = threading.Event()
    with tempfile.TemporaryFile("w+") as asked, tempfile.TemporaryFile("w+") as answer:
        json.dump(job, asked)
        asked.seek(0)
        with subprocess.Popen(  # noqa: S603
            line, stdin=asked, stdout=answer, stderr=subprocess.PIPE, text=True, errors="replace",
            env=dict(os.environ, PYTHONPATH=path),
        ) as process:  # fmt: skip
            timer = threading.Timer(seconds, _stop, (process, late))
            timer.start()
            last = ""
            try:
                for said in process.stderr or ():
                    last = said.strip() or last
                    heard(last)
                code = process.wait()
            finally:
                timer.cancel()
                process.kill()
        answer.seek(0)
        found = _answer(answer.read())
    if found is None or code:
        raise Broken(f"{function} {_ending(code, seconds if late.is_set() else None)}" + (f": {last}" if last else ""))
    if "failed" in found:
        kinds = {each.exit_code: each for each in AgentError.__subclasses__()}
        raise kinds[found["exit"]](found["failed"])
    return found["answer"]


def _stop(process: subprocess.Popen[str], late: threading.Event) -> None:
    late.set()
    process.kill()


def _answer(text: str) -> Optional[Dict[str, Any]]:
    try:
        return dict(json.loads(text.splitlines()[-1]))
    except (ValueError, IndexError):
        return None


def _ending(code: int, late: Optional[float]) -> str:
    if late is not None:
        return f"did not end within {late:g} s and was stopped"
    if code == -signal.SIGKILL:
        return "was killed, as the system does where memory runs out"
    return f"crashed ({signal.Signals(-code).name})" if code < 0 else "failed"


def say(text: str) -> None:
    """A line for the parent."""
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


def main() -> None:
    """The child's side."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    module, _, name = sys.argv[1].partition(":")
    function = getattr(importlib.import_module(f"{__package__}.{module}"), name)
    try:
        found = {"answer": function(json.load(sys.stdin))}
    except AgentError as error:
        found = {"failed": str(error), "exit": error.exit_code}
    except OSError as error:
        from .disk import explained

        found = {"failed": str(explained(error, name)), "exit": Broken.exit_code}
    sys.stdout.write(f"\n{json.dumps(found)}\n")


if __name__ == "__main__":
    main()
