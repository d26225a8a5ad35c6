"""The files that a CI system reads of a check: one row a format, each a flag by itself."""

from __future__ import annotations

import os
import re
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline import workspace
from pipeline.errors import BadRequest
from pipeline.report import junit, sarif

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pipeline.finished.check import Checked

FORMATS = {
    "junit": (junit.render, "write JUnit XML there, one test case a stage and check"),
    "sarif": (sarif.render, "write SARIF 2.1.0 there, one result for what is no pass"),
}
# Files of a build, whose place no file of a check may take.
BUILT = re.compile(r"report\.(json|html)|evidence\.json|answers\.safetensors|\d\d-.*")


def refuse(paths: Mapping[str, Path]) -> None:
    """Raise BadRequest, before any work, where one of the files, by format, could not be written, or takes a place."""
    taken: set[Path] = set()
    for name, path in paths.items():
        if path.is_dir():
            raise BadRequest(f"--{name} {path} is a folder; name a file")
        # Two names may lead to one file.
        real_path = path.resolve()
        if real_path in taken:
            raise BadRequest(f"--{name} {path} is asked for another format too; name two files")
        in_a_build = (real_path.parent / "report.json").exists()
        if in_a_build and BUILT.fullmatch(real_path.name):
            raise BadRequest(f"--{name} {path} is a file of the build there; name another")
        taken.add(real_path)
        try:
            # Only a file that is made shows that one can be made.
            with tempfile.TemporaryFile(dir=path.parent):
                pass
        except OSError as error:
            raise BadRequest(
                f"--{name} {path}: nothing can be written in {path.parent} ({error.strerror}); name another file"
            ) from error


def write(checked: Checked, paths: Mapping[str, Path]) -> None:
    """Each file whole, in the place of one that may be there."""
    for name, path in paths.items():
        render, _ = FORMATS[name]
        # In the same folder, since a file is moved in one step only within a file system.
        handle, fresh = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                file.write(render(checked))
            workspace.place(Path(fresh), path)
        finally:
            Path(fresh).unlink(missing_ok=True)
