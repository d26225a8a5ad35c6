"""``python -m pipeline inspect --arch NAME``: the shape after every stage, parameters, multiplications, a picture."""

from __future__ import annotations

import argparse
import json
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.errors import BadRequest, Exit
from pipeline.recipe import whole

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pipeline.models.resnet_spec import ResNetSpec
    from pipeline.models.summary import Summary

HELP = "show a network without making it: shapes, parameters, multiplications, a picture"


def shape(text: str) -> tuple[int, ...]:
    """``1x3x224x224`` as numbers."""
    if not re.fullmatch(r"[1-9]\d{0,4}(x[1-9]\d{0,4}){3}", text):
        raise argparse.ArgumentTypeError(f"{text} is no shape; give images, channels, height, width, as in 1x3x224x224")
    return tuple(int(size) for size in text.split("x"))


def add_flags(parser: argparse.ArgumentParser) -> None:
    """The flags of this command."""
    parser.add_argument("--arch", required=True, help="a name that build knows, or a .toml file of its fields")
    parser.add_argument(
        "--input", type=shape, default=(1, 3, 224, 224), metavar="NxCxHxW", help="of the images (default: 1x3x224x224)"
    )
    parser.add_argument("--classes", type=whole(1, 10**6), default=1000, help="that it tells apart (default: 1000)")
    parser.add_argument("--picture", type=Path, metavar="FILE", help="draw the network into an .svg, .pdf or .png")
    parser.add_argument("--json", action="store_true", help="print everything as JSON")


def run(arguments: argparse.Namespace) -> int:
    """Exit 0: this command shows, it does not judge."""
    from pipeline.models import specs
    from pipeline.models import summary as summaries
    from pipeline.models.resnet_spec import ResNetSpec
    from pipeline.report import chart, drawing

    name, spec = specs.find(arguments.arch)
    if not isinstance(spec, ResNetSpec):
        raise BadRequest(f"inspect --arch {name}: only networks of this family have stages to show")
    if arguments.picture is not None:
        chart.refuse(arguments.picture, "--picture")

    summary = summaries.summarise(spec, arguments.classes, arguments.input)
    if arguments.picture is not None:
        drawing.network(name, spec, summary, arguments.picture)
    if arguments.json:
        content = {"arch": name, "spec": spec.to_json(), **summary.to_json()}
        json.dump(content, sys.stdout, indent=1)
        sys.stdout.write("\n")
    else:
        _show(name, spec, summary)
    return Exit.PASS


# The headings of the table, and whether a column holds numbers, which go to the right.
COLUMNS = {"stage": False, "blocks": False, "output": False, "parameters": True, "MACs of an image": True}


def _show(name: str, spec: ResNetSpec, summary: Summary) -> None:
    from pipeline.console import tables

    # The stem and the end have no blocks.
    blocks = {f"layer{number}": f"{depth} {spec.block}" for number, depth in enumerate(spec.depths, start=1)}
    rows = []
    for part in summary.parts:
        output = str(list(part.shape))
        rows.append((part.name, blocks.get(part.name, ""), output, f"{part.parameters:,}", f"{part.macs:,}"))

    console = tables.wide_console()
    console.print(tables.table(COLUMNS, rows))
    for line in lines(name, spec, summary):
        console.print(line)


def lines(name: str, spec: ResNetSpec, summary: Summary) -> Iterator[str]:
    """The sums, and what grouping saves."""
    yield (
        f"{name}: {summary.parameters:,} parameters, {summary.macs:,} MACs of an image "
        "in convolutions and linear layers"
    )
    dense = summary.dense
    if dense is None:
        return
    parameter_ratio = dense.parameters / summary.parameters
    mac_ratio = dense.macs / summary.macs
    yield (
        f"in one group instead of {spec.groups}: {dense.parameters:,} parameters "
        f"({parameter_ratio:.2f} times as many), {dense.macs:,} MACs ({mac_ratio:.2f} times)"
    )
