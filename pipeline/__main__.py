"""argv to one command and its exit code."""

from __future__ import annotations

import argparse
import importlib
import signal
import sys
from contextlib import redirect_stdout
from typing import TYPE_CHECKING

from pipeline import __version__, config
from pipeline.commands import COMMANDS
from pipeline.console import news
from pipeline.errors import Exit, PipelineError, StageFailed, missing
from pipeline.models import user_network
from pipeline.workspace import explain

if TYPE_CHECKING:
    from collections.abc import Sequence

# Short ways to a level of --log-level.
LOUDNESS = (
    (("-v", "--verbose"), "debug", "say more: what is made again, and why"),
    (("--quiet",), "error", "no news and no progress bars, only the result"),
)
# Commands that take --config.
CONFIGURED = ("build", "train")


def parser(only: str | None = None) -> tuple[argparse.ArgumentParser, dict[str, argparse.ArgumentParser]]:
    """The command line, and the part of each command; with ``only``, the flags of that one alone, to answer at once."""
    top = argparse.ArgumentParser(prog="python -m pipeline", description="A ResNet from PyTorch to a verified engine.")
    top.add_argument("--version", action="version", version=__version__)
    verbs = top.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name in COMMANDS:
        command = importlib.import_module(f"pipeline.commands.{name}")
        verb = verbs.add_parser(
            name,
            help=command.HELP,
            description=command.HELP,
            epilog=getattr(command, "EXAMPLES", None),
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        # A command of several actions answers with their parsers, which take the shared flags in its place.
        actions = None
        if only in (None, name):
            actions = command.add_flags(verb)
        for taking in actions or [verb]:
            _add_shared_flags(taking)
        verb.set_defaults(run=command.run)
    return top, verbs.choices


def _add_shared_flags(command: argparse.ArgumentParser) -> None:
    """The flags that every command has."""
    loudness = command.add_mutually_exclusive_group()
    loudness.add_argument("--log-level", choices=news.LEVELS, default="info", help="what is said beside the result")
    for names, level, text in LOUDNESS:
        loudness.add_argument(*names, action="store_const", dest="log_level", const=level, help=text)
    command.add_argument("--debug", action="store_true", help="show the traceback of an error")
    command.add_argument(
        "--trust", metavar="MODULE:FUNCTION", help="run this function of your own, of which DIR was built"
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; every failure is one sentence and its exit code, and --debug shows the traceback."""
    words = list(sys.argv[1:] if argv is None else argv)
    # Where SIGINT is ignored, as in the background of a shell, it stays so.
    signal.signal(signal.SIGTERM, _interrupt)
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _interrupt)
    try:
        return _run(words)
    except KeyboardInterrupt:
        sentence = "interrupted"
        if words[:1] == ["build"]:
            sentence += "; the finished stages are kept and the next run goes on from them"
        sys.stderr.write(f"{sentence}\n")
        return Exit.INTERRUPTED
    except Exception as error:
        # The arguments may not have been read yet: only the words are there.
        if "--debug" in words:
            raise
        failure = _failure(error)
        sys.stderr.write(f"error: {failure}\n")
        return failure.exit_code


def _run(words: list[str]) -> int:
    name = words[0] if words else ""
    top, verbs = parser(name)
    if name in CONFIGURED:
        words = [name, *config.expanded(verbs[name], words[1:])]
    with redirect_stdout(news.Output(sys.stdout)) as output:
        try:
            arguments = top.parse_args(words)
            news.level = arguments.log_level
            if arguments.trust:
                user_network.TRUSTED.add(arguments.trust)
            return int(arguments.run(arguments))
        finally:
            # A reader who left is noticed here, and not when Python exits.
            output.flush()


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
