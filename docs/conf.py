"""How the pages are made: ``python -m sphinx -W docs build/docs``."""

import sys
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
    """A section for each command with its help, as a terminal shows it."""

    def run(self) -> list[nodes.Node]:
        """The sections."""
        from pipeline.__main__ import parser

        made = []
        for name, verb in parser()[1].items():
            text = verb.format_help()
            content = nodes.title(text=name), nodes.literal_block(text, text, language="text")
            made.append(nodes.section("", *content, ids=[name]))
        return made


def setup(app: Sphinx) -> None:
    """Called by Sphinx."""
    app.add_directive("command-line", CommandLine)
