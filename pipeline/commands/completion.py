"""``edge-resnet completion bash``: what a shell needs to complete commands and flags."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from pipeline.errors import Exit

if TYPE_CHECKING:
    import argparse

HELP = "print a completion script for bash, zsh or tcsh"
EXAMPLES = """example:
  edge-resnet completion bash > ~/.local/share/bash-completion/completions/edge-resnet
"""


def add_flags(parser: argparse.ArgumentParser) -> None:
    """The flags of this command."""
    parser.add_argument("shell", choices=("bash", "zsh", "tcsh"))


def run(arguments: argparse.Namespace) -> int:
    """The script, for the command ``edge-resnet``."""
    import shtab

    from pipeline.__main__ import parser

    top, _ = parser()
    # As it is installed, and not as python -m pipeline.
    top.prog = "edge-resnet"
    sys.stdout.write(shtab.complete(top, arguments.shell))
    return Exit.PASS
