"""``python -m pipeline conform DIR``: whether another loader makes the pixels that the build was judged with."""

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

HELP = "test another loader of images against the build's, name its fault and what it costs"


def add_flags(parser: argparse.ArgumentParser) -> None:
    """The flags of this command."""
    parser.add_argument("directory", type=Path, help="what -o named when it was built")
    parser.add_argument("--loader", metavar="MODULE:FUNCTION", help="takes a path, answers pixels (C, H, W) 0..255")
    parser.add_argument("--tensors", type=Path, metavar="NPZ", help="what it made, by the names of conformance/*.png")
    parser.add_argument("--samples", type=whole(1, 10**6), help="test images for its cost in top-1 (default: all)")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")


def run(arguments: argparse.Namespace) -> int:
    """Exit 0 where the loader conforms, 1 where it does not."""
    from pipeline.finished.conform import conform

    if (arguments.loader is None) == (arguments.tensors is None):
        raise BadRequest("conform takes either --loader module:function or --tensors FILE.npz, and one of them")
    if arguments.tensors is not None and arguments.samples is not None:
        raise BadRequest("--samples goes with --loader: tensors cannot be tried on test images")
    result = conform(arguments.directory, arguments.loader, arguments.tensors, arguments.samples)
    if arguments.json:
        json.dump(result, sys.stdout, indent=1, allow_nan=False)
        sys.stdout.write("\n")
    else:
        sys.stdout.write("\n".join(lines(result)) + "\n")
    return EXITS[result["verdict"]]


def lines(result: dict[str, Any]) -> Iterator[str]:
    """The answer in a few sentences."""
    bound = result["bound"]
    yield f"{result['loader']} next to the contract, in levels of 0..255"
    yield f"  {'image':<16} {'largest':>8} {'mean':>8}   (bound: {bound['largest']:g} and {bound['mean']:g})"
    for row in result["images"]:
        apart = "another shape" if row["mean"] is None else f"{row['largest']:>8.2f} {row['mean']:>8.3f}"
        mark = "" if row["conforms"] else "  <"
        yield f"  {row['name']:<16} {apart}{mark}"

    if result["faults"]:
        explanations = [" + ".join(faults) for faults in result["faults"]]
        yield f"likely fault: {'; or: '.join(explanations)}"
    elif result["verdict"] == "fail":
        yield "no known fault explains it"
        yield from result["known"]

    if result["cost"] is None:
        yield f"top-1 not measured: {result['no_cost']}"
    else:
        yield _cost(result["cost"])
    yield f"verdict: {result['verdict'].upper()}"


def _cost(cost: dict[str, Any]) -> str:
    """What the loader costs in top-1."""
    drop = cost["drop"]
    contract = 100 * cost["contract"]
    loader = 100 * cost["loader"]
    bounds = f"between {100 * drop['lower']:.2f} and {100 * drop['upper']:.2f}"
    return (
        f"top-1 ({cost['file']}, {cost['n']} images): {contract:.2f} % by the contract, {loader:.2f} % by this loader; "
        f"{100 * drop['value']:.2f} points lost ({bounds})"
    )
