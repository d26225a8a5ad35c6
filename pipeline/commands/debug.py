"""``python -m pipeline debug``: the first module at fault between two files, and the smallest case that shows it."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.errors import EXITS, BadRequest
from pipeline.recipe import whole

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

    from pipeline.data.arrays import Pixels

HELP = "compare two files along their depth and name the first module at fault"
# Of the longest bar, in characters; from so many dB on there is none.
WIDTH = 30
QUIET = 60
# Modules that are named where none is at fault.
LOUDEST = 3


def add_flags(parser: argparse.ArgumentParser) -> None:
    """The flags of this command."""
    parser.add_argument("paths", type=Path, nargs="+", metavar="DIR | GOOD BAD", help="a finished build, or two files")
    parser.add_argument("--stage", help="the stage of DIR (default: the first that failed, else the noisiest)")
    parser.add_argument("--images", type=Path, help="a folder of images or .npy/.npz pixels (default: DIR's own)")
    parser.add_argument("--samples", type=whole(1, 10**6), default=32, help="images to look at (default: 32)")
    parser.add_argument("-o", "--output", type=Path, help="where the failing case goes (default: beside the file)")
    parser.add_argument("--json", action="store_true", help="print the diagnosis as JSON")


def run(arguments: argparse.Namespace) -> int:
    """Exit 0 where no module leaves its bound, 1 where one is named."""
    from pipeline.finished.debug import diagnose
    from pipeline.finished.finished_build import FinishedBuild

    if len(arguments.paths) == 1:
        good, bad = FinishedBuild.open(arguments.paths[0]).stage_files(arguments.stage)
    elif len(arguments.paths) == 2 and arguments.images is not None and arguments.stage is None:
        good, bad = arguments.paths
        if not good.is_file():
            raise BadRequest(f"{good}: there is no such file")
    else:
        raise BadRequest("debug takes the directory of a build, or two files and --images")
    images = _images(arguments, good)
    diagnosis = diagnose(good, bad, images, arguments.output)
    if arguments.json:
        json.dump(diagnosis, sys.stdout, indent=1, allow_nan=False)
        sys.stdout.write("\n")
    else:
        sys.stdout.write("\n".join(lines(diagnosis)) + "\n")
    return EXITS[diagnosis["verdict"]]


def _images(arguments: argparse.Namespace, good: Path) -> Pixels:
    from pipeline.data import sampling
    from pipeline.data.arrays import Arrays
    from pipeline.finished.finished_build import FinishedBuild

    if arguments.images is None:
        return sampling.some(FinishedBuild.open(arguments.paths[0]).test_images(), arguments.samples)
    shape = _plain_shape(good)
    if shape is not None:
        return Arrays(arguments.images, shape, arguments.samples)
    return sampling.some(sampling.users_images(arguments.images, good), arguments.samples)


def _plain_shape(path: Path) -> list[int | None] | None:
    """The shape of one image that the ONNX file takes, which does not say how it wants them; None where it says so."""
    from exporters import onnx_file

    try:
        model = onnx_file.read(path)
    except ValueError as error:
        raise BadRequest(str(error)) from error
    if "preprocessing" in model.metadata_props:
        return None
    inputs = [value for value in model.graph.inputs if value.const_value is None]
    if len(inputs) != 1 or inputs[0].shape is None:
        raise BadRequest(
            f"{path.name} takes {len(inputs)} tensors, or one of no known shape; debug feeds it pixels alone"
        )
    return [length if isinstance(length, int) else None for length in inputs[0].shape[1:]]


def lines(diagnosis: dict[str, Any]) -> Iterator[str]:
    """The drift along the depth as a picture, and the verdict in sentences."""
    faulty = {fault["tensor"] for fault in diagnosis["faults"]}
    # What hands on its input as it came says nothing, unless it is at fault all the same.
    steps = [step for step in diagnosis["steps"] if step["own_db"] is not None or step["tensor"] in faulty]

    yield f"{diagnosis['bad']} next to {diagnosis['good']} on {diagnosis['images']} images, SQNR in dB"
    yield f"{'module':<28} {'operator':<18} {'own':>6} {'total':>6}   drift so far"
    for step in steps:
        own = _db(step["own_db"])
        total = _db(step["accumulated_db"])
        mark = "  <" if step["tensor"] in faulty else ""
        line = f"{step['module']:<28} {step['operator']:<18} {own} {total}   {_bar(step['accumulated_db'])}{mark}"
        yield line.rstrip()

    if diagnosis["note"]:
        yield diagnosis["note"]
    if diagnosis["observing_db"] is not None:
        yield f"observing changes the result: whole and in pieces are {diagnosis['observing_db']:.1f} dB apart"
    for fault in diagnosis["faults"][1:]:
        yield f"also {fault['module']}: {fault['found']}"
    if diagnosis["first"]:
        yield f"first at fault: {diagnosis['first']['module']}: {diagnosis['first']['found']}"
        case = diagnosis["case"]
        if case["directory"] is None:
            yield f"no case was written: {case['missing']}"
        else:
            yield f"it fails by itself: python {case['directory']}/reproduce.py"
        return

    noisy = [step for step in steps if step["own_db"] is not None]
    if not noisy:
        yield "no module leaves its bound by itself"
        return
    loudest = sorted(noisy, key=lambda step: float(step["own_db"]))[:LOUDEST]
    yield "no module leaves its bound by itself; the drift adds up, most of it from"
    yield ", ".join(f"{step['module']} ({step['own_db']:.1f} dB)" for step in loudest)


def _bar(decibels: float | None) -> str:
    """The less signal over noise the longer, from QUIET on."""
    if decibels is None:
        return ""
    share = min(1, max(0, 1 - decibels / QUIET))
    return "█" * round(WIDTH * share)


def _db(value: float | None) -> str:
    return f"{'same':>6}" if value is None else f"{value:6.1f}"
