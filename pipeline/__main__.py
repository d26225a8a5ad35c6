"""argv to one command and its exit code."""

from __future__ import annotations

import argparse
import importlib
import os
import signal
import sys
from typing import TYPE_CHECKING

from pipeline import __version__
from pipeline.commands import COMMANDS
from pipeline.errors import Exit, PipelineError, StageFailed, missing
from pipeline.workspace import explain

if TYPE_CHECKING:
    from collections.abc import Sequence


def parser() -> argparse.ArgumentParser:
    """The whole command line."""
    top = argparse.ArgumentParser(prog="python -m pipeline", description="A ResNet from PyTorch to a verified engine.")
    top.add_argument("--version", action="version", version=__version__)
    verbs = top.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name in COMMANDS:
        command = importlib.import_module(f"pipeline.commands.{name}")
        verb = verbs.add_parser(name, help=command.HELP, description=command.HELP)
        command.add_flags(verb)
        verb.add_argument("--debug", action="store_true", help="show the traceback of an error")
        verb.set_defaults(run=command.run)
    return top


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; every failure is one sentence and its exit code, and --debug shows the traceback."""
    arguments = parser().parse_args(argv)
    signal.signal(signal.SIGTERM, _interrupt)
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _interrupt)
    try:
        return int(arguments.run(arguments))
    except KeyboardInterrupt:
        sys.stderr.write("interrupted; the finished stages are kept and the next run goes on from them\n")
        return Exit.INTERRUPTED
    except BrokenPipeError:
        # Whoever read our output has seen enough; Python must not complain about it at exit either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return Exit.PASS
    except Exception as error:
        if arguments.debug:
            raise
        failure = _failure(error)
        sys.stderr.write(f"error: {failure}\n")
        return failure.exit_code


def _failure(error: Exception) -> PipelineError:
    """What a user is told: exit code 1 says that parity was refuted, so nothing else may end with Python's own 1."""
    if isinstance(error, PipelineError):
        return error
    if isinstance(error, ModuleNotFoundError):
        return missing(error)
    if isinstance(error, OSError):
        return StageFailed(explain(error))
    return StageFailed(f"a fault of this program ({type(error).__name__}: {explain(error)}); --debug shows where")


class Interrupted(KeyboardInterrupt):
    """A signal that asks us to end.

    Not KeyboardInterrupt itself: once that has crossed an exec() of a string (every dataclass of an imported library
    has one), Python dies of SIGINT at its exit, whoever caught it (Py_RunMain, unhandled_keyboard_interrupt).
    """


def _interrupt(*_: object) -> None:
    raise Interrupted


if __name__ == "__main__":
    sys.exit(main())
