"""``python -m pipeline report DIR``: the build as one HTML file, or two builds side by side."""

from __future__ import annotations

import sys
import webbrowser
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.errors import BadRequest, Exit

if TYPE_CHECKING:
    import argparse

HELP = "write report.html, one file that needs no network, of a build or of two side by side"


def add_flags(parser: argparse.ArgumentParser) -> None:
    """The flags of this command."""
    parser.add_argument("directory", type=Path, nargs="?", metavar="DIR", help="of a build, finished or not")
    parser.add_argument("--compare", type=Path, nargs=2, metavar=("A", "B"), help="two finished builds side by side")
    parser.add_argument(
        "-o", "--output", type=Path, metavar="FILE", help="the page (default: DIR/report.html, or A/compare.html)"
    )
    parser.add_argument("--open", action="store_true", help="show it in the browser")


def run(arguments: argparse.Namespace) -> int:
    """Exit 0: this command shows, it does not judge. Standard output is where the page is."""
    from pipeline import workspace
    from pipeline.console import news
    from pipeline.finished import report_json
    from pipeline.finished.finished_build import FinishedBuild
    from pipeline.report import compare, page

    if (arguments.directory is None) == (arguments.compare is None):
        raise BadRequest("report takes the directory of a build, or --compare and two of them")
    if arguments.compare is None:
        html = page.html(arguments.directory)
        path = arguments.output or arguments.directory / page.FILE
    else:
        html = compare.html(*arguments.compare)
        path = arguments.output or arguments.compare[0] / compare.FILE
    try:
        workspace.put(path, html.encode())
    except OSError as error:
        raise BadRequest(f"-o {path} cannot be written ({error.strerror}); name a file elsewhere") from error
    if arguments.directory is not None and (arguments.directory / report_json.FILE).exists():
        for why in FinishedBuild.open(arguments.directory).touched():
            news.say(f"{why}: the page shows what was judged; check {arguments.directory} refutes it")
    sys.stdout.write(f"{path}\n")
    if arguments.open and not webbrowser.open(path.resolve().as_uri()):
        raise BadRequest(f"--open: no browser could be started here; open {path} yourself")
    return Exit.PASS
