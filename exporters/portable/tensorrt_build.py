"""What every TensorRT from 8.5 to 11, and TensorRT-RTX, is told and asked alike while it builds.

Enums go by name, since their numbers moved between versions.
"""

from __future__ import annotations

from typing import Any, Callable, Dict, Optional

from .child_process import say

# Of the parser's errors: the first ones name the cause, what follows are its consequences.
FIRST_ERRORS = 3


def major(trt: Any) -> int:
    """The version of the library ``trt``; TensorRT-RTX counts its own, and behaves as TensorRT 11."""
    if "rtx" in trt.__name__:
        return 11
    return int(trt.__version__.split(".")[0])


def network_flags(trt: Any) -> int:
    """Strongly typed and with an explicit batch wherever that is a choice: from 11 on there is nothing else."""
    version = major(trt)
    if version >= 11:
        return 0
    name = "EXPLICIT_BATCH" if version < 10 else "STRONGLY_TYPED"
    return 1 << int(getattr(trt.NetworkDefinitionCreationFlag, name))


def logger(trt: Any, heard: Callable[[str, str], None]) -> Any:
    """A logger that hands each message to ``heard``: its severity, as in WARNING, and its text."""

    class Logger(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: Any, text: str) -> None:
            heard(str(severity).rsplit(".", 1)[-1], text)

    return Logger()


def progress_monitor(trt: Any) -> Any:
    """What says each step to the parent process, as in ``Timing 3/20``; TensorRT has it from 10 on."""
    steps: Dict[str, int] = {}

    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)

        def phase_start(self, phase: str, _parent: Optional[str], count: int) -> None:
            steps[phase] = count

        def step_complete(self, phase: str, step: int) -> bool:
            say(f"{phase} {step + 1}/{steps.get(phase, 0)}")
            return True  # go on

        def phase_finish(self, phase: str) -> None:
            steps.pop(phase, None)

    return Monitor()


def parser_errors(parser: Any) -> str:
    """The parser's first errors, each with its node."""
    sentences = []
    for index in range(min(parser.num_errors, FIRST_ERRORS)):
        error = parser.get_error(index)
        sentences.append(f"{error.desc()} (node {_node(error)})")
    return "; ".join(sentences) or "no reason given"


def _node(error: Any) -> Any:
    """The name of the node, which TensorRT 8 gives as a number only."""
    return error.node_name() if hasattr(error, "node_name") else error.node()
