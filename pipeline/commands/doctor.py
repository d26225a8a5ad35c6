"""``python -m pipeline doctor [--target T]``: what can be had on this machine, or on a device."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from pipeline.errors import BadRequest, Exit

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

HELP = "what this machine can do, or whether a precision, TensorRT or DLA can be had on a device"
# Refused is what a build would answer to the same request; unknown is undecided.
CODES = {"go": Exit.PASS, "refused": Exit.BAD_REQUEST, "unknown": Exit.UNDECIDED}


def add_flags(parser: argparse.ArgumentParser) -> None:
    """The flags of this command."""
    from pipeline.precisions import PRECISIONS

    parser.add_argument("--target", metavar="DEVICE[@jpX.Y]", help="a Jetson, as in jetson-orin-nx@jp6.2")
    parser.add_argument("--tensorrt", metavar="VERSION", help="default: the one that the JetPack brings")
    parser.add_argument("--precision", choices=tuple(PRECISIONS))
    parser.add_argument("--dla", action="store_true", help="on its Deep Learning Accelerator")
    parser.add_argument("--json", action="store_true", help="print the answers as JSON")


def run(arguments: argparse.Namespace) -> int:
    """Exit 0 where it can be had, 2 where it is refused, 4 where nothing is known."""
    result = _of_a_device(arguments) if arguments.target else _of_this_machine(arguments)
    if arguments.json:
        json.dump(result, sys.stdout, indent=1, allow_nan=False)
        sys.stdout.write("\n")
    else:
        sys.stdout.write("\n".join(_lines(result)) + "\n")
    return CODES[result["verdict"]]


def _of_a_device(arguments: argparse.Namespace) -> dict[str, Any]:
    from pipeline.targets import compatibility, table

    # Without a version the target's JetPack decides.
    version = table.version(arguments.tensorrt) if arguments.tensorrt else None
    answers = compatibility.ask(table.target(arguments.target), version, arguments.precision, arguments.dla)
    return {
        "about": arguments.target,
        "verdict": compatibility.worst(answers),
        "answers": [asdict(answer) for answer in answers],
    }


def _of_this_machine(arguments: argparse.Namespace) -> dict[str, Any]:
    from pipeline.targets import machine

    if arguments.tensorrt or arguments.precision or arguments.dla:
        raise BadRequest("--tensorrt, --precision and --dla go with --target")
    answers = machine.answers()
    return {"about": "this machine", "verdict": "go", "answers": [asdict(answer) for answer in answers]}


def _lines(result: dict[str, Any]) -> Iterator[str]:
    for answer in result["answers"]:
        line = f"{answer['verdict']:<8} {answer['sentence']}"
        if answer["source"]:
            line += f" [{answer['source']}]"
        yield line
    yield f"verdict for {result['about']}: {result['verdict'].upper()}"
