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

LOUDNESS = (
    (("-v", "--verbose"), "debug", "say more: what is made again, and why"),
    (("--quiet",), "error", "no news and no progress bars, only the result"),
)


def parser(asked: str | None = None) -> tuple[argparse.ArgumentParser, dict[str, argparse.ArgumentParser]]:
    """The command line, and the part of each command; with ``asked``, the flags of that one only, to answer at once."""
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
        # A command of several actions answers with their parsers, which take these flags instead.
        for each in (command.add_flags(verb) if asked in (None, name) else None) or [verb]:
            heard = each.add_mutually_exclusive_group()
            heard.add_argument(
                "--log-level", choices=news.LEVELS, default="info", help="what is said beside the result"
            )
            for names, level, text in LOUDNESS:
                heard.add_argument(*names, action="store_const", dest="log_level", const=level, help=text)
            each.add_argument("--debug", action="store_true", help="show the traceback of an error")
            each.add_argument(
                "--trust", metavar="MODULE:FUNCTION", help="run this function of your own, of which DIR was built"
            )
        verb.set_defaults(run=command.run)
    return top, verbs.choices


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; every failure is one sentence and its exit code, and --debug shows the traceback."""
    line = list(sys.argv[1:] if argv is None else argv)
    signal.signal(signal.SIGTERM, _interrupt)
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _interrupt)
    try:
        return _run(line)
    except KeyboardInterrupt:
        kept = "; the finished stages are kept and the next run goes on from them" if line[:1] == ["build"] else ""
        sys.stderr.write(f"interrupted{kept}\n")
        return Exit.INTERRUPTED
    except Exception as error:
        if "--debug" in line:
            raise
        failure = _failure(error)
        sys.stderr.write(f"error: {failure}\n")
        return failure.exit_code


def _run(line: list[str]) -> int:
    top, verbs = parser(line[0] if line else "")
    if line[:1] in (["build"], ["train"]):
        line = [line[0], *config.expanded(verbs[line[0]], line[1:])]
    with redirect_stdout(news.Output(sys.stdout)) as output:
        try:
            arguments = top.parse_args(line)
            news.level = arguments.log_level
            user_network.TRUSTED.update(filter(None, [arguments.trust]))
            return int(arguments.run(arguments))
        finally:
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
