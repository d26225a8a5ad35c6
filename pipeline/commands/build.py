"""``python -m pipeline build``: from a network and images to a judged engine, and a report of all of it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline import recipe as recipes
from pipeline.errors import Exit

if TYPE_CHECKING:
    import argparse

HELP = "train or load a network and take it to a judged engine"
EXAMPLES = """examples:
  python -m pipeline build --arch resnext50 --precision int8
  python -m pipeline build --arch resnet50 --weights resnet50.pth --data images/ --precision int8 --target cpu
  python -m pipeline build --arch resnet50 --precision int8 --target jetson-orin-nx@jp6.2 --dry-run
  python -m pipeline build --config pipeline.toml --max-drop 0.005
"""


def add_flags(parser: argparse.ArgumentParser) -> None:
    """The flags of this command."""
    from calibration.ranges import METHODS
    from exporters.engines import BACKENDS
    from pipeline.building.plan import FALLBACKS
    from pipeline.precisions import PRECISIONS

    # Knobs whose choices are the rows of a table: a new row is a new choice.
    tables = {
        "precision": PRECISIONS,
        "engine": ("auto", *BACKENDS),
        "calib_method": ("auto", *METHODS),
        "allow_fallback": FALLBACKS,
    }
    recipes.add_flags(parser, tables)
    parser.add_argument("--config", type=Path, metavar="FILE", help="a TOML file with these flags; others override it")
    parser.add_argument("--save-config", type=Path, metavar="FILE", help="write what was asked for, for --config")
    output = parser.add_mutually_exclusive_group()
    output.add_argument("--json", action="store_true", help="print the report as JSON instead of the table")
    output.add_argument("--dry-run", action="store_true", help="say what would be done, after all that can be refused")


def run(arguments: argparse.Namespace) -> int:
    """Build, print, and answer with the exit code of the verdict."""
    from pipeline import api, config
    from pipeline.building.outline import outline
    from pipeline.building.request import accept
    from pipeline.report import terminal

    recipe = recipes.from_arguments(arguments)
    if arguments.save_config is not None:
        config.refuse_to_save(arguments.save_config)
        asked_for = {name: getattr(arguments, name) for name in recipes.NAMES}
        config.save(arguments.save_config, asked_for)

    if arguments.dry_run:
        sys.stdout.write("\n".join(outline(accept(recipe))) + "\n")
        return Exit.PASS

    report = api.build(recipe).report
    return terminal.deliver(report, f"in {report['recipe']['output']}/report.json", as_json=arguments.json)
