"""``python -m pipeline check DIR``: a finished build hashed and judged again, under other margins if asked."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.recipe import refuse_margins

if TYPE_CHECKING:
    import argparse

HELP = "judge a finished build again, under other margins if asked"


def add_flags(parser: argparse.ArgumentParser) -> None:
    """The flags of this command."""
    parser.add_argument("directory", type=Path, help="what -o named when it was built")
    parser.add_argument("--max-drop", type=float, help="loss of top-1 that is allowed (default: as it was built)")
    parser.add_argument("--confidence", type=float, help="of each bound of that loss (default: as it was built)")
    parser.add_argument("--rerun", action="store_true", help="run every file again (default: judge the saved answers)")
    parser.add_argument("--json", action="store_true", help="print the report as JSON instead of the table")


def run(arguments: argparse.Namespace) -> int:
    """Hash every file again, judge its answers, print, and answer with the exit code of the verdict."""
    from pipeline.recheck import recheck
    from pipeline.report import terminal

    refuse_margins(arguments.max_drop, arguments.confidence)
    report = recheck(arguments.directory, arguments.max_drop, arguments.confidence, rerun=arguments.rerun)
    return terminal.deliver(report, as_json=arguments.json)
