"""What setuptools does beside its own when it builds this package: it writes recipe.schema.json, for editors.

pyproject.toml names the class. No other code of this package imports this module, or needs setuptools.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from setuptools.command.build_py import build_py

ROOT = Path(__file__).resolve().parent.parent
SCHEMA = ROOT / "pipeline" / "recipe.schema.json"
PRINT_SCHEMA = """
import json
from pipeline import config
from pipeline.__main__ import parser
print(json.dumps(config.schema(parser("build")[1]["build"]), indent=1))
"""


class BuildWithSchema(build_py):  # type: ignore[misc]
    """The command by which a wheel, an sdist and an editable install come to their files."""

    def finalize_options(self) -> None:
        """Write the schema before the files of the package are listed, so that it is one of them."""
        # A process of its own finds this source tree first (-c), and no installed package (-S): the command line needs
        # the standard library alone, and where a build is isolated there is nothing else.
        command = [sys.executable, "-S", "-c", PRINT_SCHEMA]
        finished = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)  # noqa: S603
        if finished.returncode != 0:
            raise RuntimeError(f"{SCHEMA.name} could not be made: {finished.stderr}")
        SCHEMA.write_text(finished.stdout)
        super().finalize_options()
