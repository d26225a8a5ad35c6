"""Native code in a process of its own: a crash, a hang or too little memory there is a sentence here."""

from __future__ import annotations

import importlib
import json
import os
import signal
import sys
from typing import Any, Callable, Dict, Optional

from exporters.portable import child_process
from exporters.portable.errors import NativeError

from .disk import explained
from .errors import AgentError, Broken

# The folder, or the zip, that this package and exporters.portable lie in.
HOME = os.path.abspath(__file__)
for _ in __name__.split("."):
    HOME = os.path.dirname(HOME)
# HOME goes before the folder that the agent was called from: a checkout there has other files of the same names.
START = "import importlib, sys; sys.path.insert(0, sys.argv[1]); importlib.import_module(sys.argv[2]).main()"


def call(function: str, job: Dict[str, Any], seconds: float, heard: Callable[[str], None]) -> Any:
    """The JSON value that ``module:function(job)`` of this package returns in a new interpreter.

    ``heard`` gets each line that it says. Raises Broken, with the last of them, where it fails, crashes or outlives
    ``seconds``; what it raises as an AgentError is raised here.
    """
    command = [sys.executable, "-c", START, HOME, __name__, function]
    ending = child_process.run(command, seconds, heard, json.dumps(job))
    answer = _answer(ending.output)
    if answer is None or ending.code:
        reason = ending.reason(seconds)
        if ending.code == -signal.SIGKILL and not ending.late:
            reason = "was killed, as the system does where memory runs out"
        last_words = f": {ending.last_line}" if ending.last_line else ""
        raise Broken(f"{function} {reason}{last_words}")

    if "failed" in answer:
        # Errors cross the border of the process as a sentence and an exit code, which each kind has its own of.
        kinds = {kind.exit_code: kind for kind in AgentError.__subclasses__()}
        raise kinds[answer["exit"]](answer["failed"])
    return answer["answer"]


def _answer(output: str) -> Optional[Dict[str, Any]]:
    """The JSON object in the last line, None where there is none: libraries print as well."""
    try:
        return dict(json.loads(output.splitlines()[-1]))
    except (ValueError, IndexError):
        return None


def main() -> None:
    """The child's side: import, call, print the answer or the error as the last line."""
    child_process.die_with_parent()
    module, _, name = sys.argv[3].partition(":")
    function = getattr(importlib.import_module(f"{__package__}.{module}"), name)
    try:
        answer = {"answer": function(json.load(sys.stdin))}
    except AgentError as error:
        answer = {"failed": str(error), "exit": error.exit_code}
    except NativeError as error:
        answer = {"failed": str(error), "exit": Broken.exit_code}
    except OSError as error:
        answer = {"failed": str(explained(error, name)), "exit": Broken.exit_code}
    sys.stdout.write(f"\n{json.dumps(answer)}\n")
