"""How the pages are made: ``python -m sphinx -W docs build/docs``."""

import sys
from argparse import _SubParsersAction
from itertools import chain
from pathlib import Path

from docutils import nodes
from docutils.parsers.rst import Directive
from sphinx.application import Sphinx

sys.path.insert(0, str(Path(__file__).parents[1]))

project = "edge-resnet"
extensions = ["myst_parser", "sphinx.ext.autodoc"]
html_theme = "furo"
html_title = "edge-resnet"
myst_heading_anchors = 3
autodoc_default_options = {"members": True}
autodoc_typehints = "description"


class CommandLine(Directive):
    """A section for each command with its help, as a terminal shows it, and that of its actions."""

    def run(self) -> list[nodes.Node]:
        """The sections."""
        from pipeline.__main__ import parser

        made = []
        for name, verb in parser()[1].items():
            actions = [each.choices.values() for each in verb._actions if isinstance(each, _SubParsersAction)]
            texts = [each.format_help() for each in (verb, *chain(*actions))]
            blocks = (nodes.literal_block(text, text, language="text") for text in texts)
            made.append(nodes.section("", nodes.title(text=name), *blocks, ids=[name]))
        return made


def setup(app: Sphinx) -> None:
    """Called by Sphinx."""
    app.add_directive("command-line", CommandLine)
