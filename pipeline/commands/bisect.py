"""``python -m pipeline bisect DIR``: the quantised layers that cost the accuracy, and what it is without them."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.errors import EXITS, BadRequest
from pipeline.recipe import refuse_margins, whole

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

HELP = "find the quantised layers that cost the accuracy, by switching Q/DQ pairs off"


def add_flags(parser: argparse.ArgumentParser) -> None:
    """The flags of this command."""
    parser.add_argument("directory", type=Path, help="what -o named when it was built")
    parser.add_argument("--stage", help="the quantised stage (default: that of the build)")
    parser.add_argument("--sqnr", type=float, help="least median SQNR in dB to reach (default: the stage's bound)")
    parser.add_argument("--max-drop", type=float, help="loss of top-1 that is allowed (default: as it was built)")
    parser.add_argument("--samples", type=whole(2, 10**6), default=256, help="images to judge with (default: 256)")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")


def run(arguments: argparse.Namespace) -> int:
    """Exit 0 where nothing is to blame, 1 where layers are named; whether a build passes is for check to say."""
    from pipeline.data import sampling
    from pipeline.finished.bisect import bisect
    from pipeline.finished.finished_build import FinishedBuild

    refuse_margins(arguments.max_drop)
    if arguments.sqnr is not None and not math.isfinite(arguments.sqnr):
        raise BadRequest(f"--sqnr {arguments.sqnr} is no number of dB; give a finite one")

    build = FinishedBuild.open(arguments.directory)
    stage = arguments.stage or build.quantised_stage()
    good, bad = build.stage_files(stage)
    bounds = build.bounds(stage, sqnr_db=arguments.sqnr, drop=arguments.max_drop)
    images = sampling.some(build.test_images(), arguments.samples)
    result = bisect(good, bad, images, bounds)

    recover = build.recipe.recover
    if arguments.json:
        json.dump(result, sys.stdout, indent=1, allow_nan=False)
        sys.stdout.write("\n")
    else:
        sys.stdout.write("\n".join(lines(result)) + "\n")
        if result["in_float"] and recover != "auto":
            sys.stdout.write(f"it was built with --recover {recover}; auto equalises channels, and may mend this\n")
    return EXITS[result["verdict"]]


def lines(result: dict[str, Any]) -> Iterator[str]:
    """The answer in a few sentences."""
    bounds = result["bounds"]
    at_least = f"{bounds['sqnr_db']:g} dB, {100 * bounds['agreement']:g} % the same answers"
    at_most = f"{100 * (bounds['drop'] or 0):g} points of top-1 lost"
    yield f"{result['bad']} next to {result['good']} on {result['images']} images"
    yield f"asked:               at least {at_least}, at most {at_most}"
    yield f"as it is:            {_figures(result['before'])}"
    yield f"all layers in float: {_figures(result['all_in_float'])}"

    count = f"{result['evaluations']} evaluations of {result['layers']} layers"
    if result["in_float"] is None:
        yield f"even with every layer in float it does not hold its bounds: the fault is not in a Q/DQ pair ({count})"
    elif not result["in_float"]:
        yield f"no layer is to blame on so few images as it is ({count}); --samples, --sqnr or --max-drop asks for more"
    else:
        yield f"to be in float:      {', '.join(result['in_float'])}"
        yield f"then:                {_figures(result['after'])} ({count})"
        for layer, reason in result["because"].items():
            yield f"{layer}: {reason}"


def _figures(trial: dict[str, Any]) -> str:
    """The figures of one evaluation."""
    sqnr = "same" if trial["sqnr_db"] is None else f"{trial['sqnr_db']:.1f} dB"
    accuracy = f"{100 * trial['top1_agreement']:.2f} % the same, top-1 {100 * trial['top1']:.2f} %"
    drop = trial["drop"]
    points = f"{100 * drop['value']:.2f} points lost (between {100 * drop['lower']:.2f} and {100 * drop['upper']:.2f})"
    return f"SQNR {sqnr}, {accuracy}, {points}"
