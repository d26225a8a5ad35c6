"""``python -m pipeline check DIR``: a finished build hashed and judged again, and held against an earlier one."""

from __future__ import annotations

import argparse
from pathlib import Path

from pipeline import recipe
from pipeline.report import formats, github

HELP = "judge a finished build again, under other margins if asked, or against an earlier build"
EXAMPLES = """examples:
  python -m pipeline check build/resnext50-int8 --max-drop 0.005
  python -m pipeline check build/resnext50-int8 --baseline last/resnext50-int8 --junit check.xml --sarif check.sarif
"""
# What may get worse than in the baseline, and by how much.
MARGINS = {
    "drift": ("DB", "dB that the SQNR of a stage may be below that of the baseline (default: 3, twice the noise)"),
    "growth": ("SHARE", "share that a file may be larger (default: 0.05)"),
    "slowdown": ("SHARE", "time both engines side by side here, and allow this share more time (default: not timed)"),
}


def add_flags(parser: argparse.ArgumentParser) -> None:
    """The flags of this command."""
    parser.add_argument("directory", type=Path, help="what -o named when it was built")
    parser.add_argument("--max-drop", type=float, help="loss of top-1 that is allowed (default: as it was built)")
    parser.add_argument("--confidence", type=float, help="of each bound of that loss (default: as it was built)")
    parser.add_argument("--max-class-drop", type=float, help="loss of one class or group that is allowed")
    parser.add_argument("--groups", type=Path, metavar="FILE.csv", help="groups of test images, as build takes them")
    parser.add_argument(
        "--threshold", type=float, metavar="T", help="softmax that you act on: how many images cross it"
    )
    parser.add_argument("--max-crossed", type=float, metavar="SHARE", help="share of images that may cross it")
    parser.add_argument("--rerun", action="store_true", help="run every file again (default: judge the saved answers)")

    against = parser.add_argument_group("against an earlier build")
    against.add_argument(
        "--baseline", type=Path, metavar="DIR", help="its directory, or its report.json; --max-drop holds there too"
    )
    for name, (unit, text) in MARGINS.items():
        against.add_argument(f"--max-{name}", type=float, metavar=unit, help=text)

    for_ci = parser.add_argument_group("for CI (docs/ci.md)")
    for name, (_, text) in formats.FORMATS.items():
        for_ci.add_argument(f"--{name}", type=Path, metavar="FILE", help=text)
    for_ci.add_argument(
        "--github",
        action=argparse.BooleanOptionalAction,
        help="annotations and the summary of the step (default: where GITHUB_ACTIONS is true)",
    )
    parser.add_argument("--json", action="store_true", help="print the report as JSON instead of the table")


def run(arguments: argparse.Namespace) -> int:
    """Hash every file again, judge its answers, print, and answer with the exit code of the verdict."""
    from pipeline.finished import check
    from pipeline.report import terminal

    margins = {name: getattr(arguments, name) for name in recipe.MARGINS}
    recipe.refuse_margins(**margins)
    asked_files = {name: getattr(arguments, name) for name in formats.FORMATS}
    files = {name: path for name, path in asked_files.items() if path is not None}
    # Before any work: a file that cannot be written would be found out at the end.
    formats.refuse(files)

    checked = check.check(
        arguments.directory,
        arguments.baseline,
        margins=margins,
        groups=arguments.groups,
        rerun=arguments.rerun,
        **{name: getattr(arguments, f"max_{name}") for name in MARGINS},
    )
    formats.write(checked, files)
    tell_github = github.on() if arguments.github is None else arguments.github
    if tell_github:
        github.tell(checked)
    return terminal.deliver(checked.report, f"by this check of {arguments.directory}", as_json=arguments.json)
