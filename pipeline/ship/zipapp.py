"""The device agent as one file that Python runs: the same bytes from the same source and keys."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import exporters
from exporters import portable
from pipeline.errors import BadRequest
from pipeline.ship.agent.keys import BUILT_IN

if TYPE_CHECKING:
    from collections.abc import Mapping

SOURCE = Path(__file__).with_name("agent")
PACKAGE = "edge_agent"
START = f"import sys\n\nfrom {PACKAGE}.__main__ import main\n\nsys.exit(main())\n"
SHEBANG = b"#!/usr/bin/env python3\n"
# Of all files: a date in the zip would be another one each time.
DATE = (1980, 1, 1, 0, 0, 0)


def write(output: Path, trusted: Mapping[str, bytes]) -> int:
    """Write the agent that trusts these public keys to ``output``; its size in bytes."""
    files = sources()
    files["__main__.py"] = START
    files[f"{PACKAGE}/{BUILT_IN}"] = json.dumps(sorted(key.hex() for key in trusted.values()))

    content = io.BytesIO()
    # Stored as they are: zlib's versions pack differently.
    with zipfile.ZipFile(content, "w", zipfile.ZIP_STORED) as archive:
        for name, text in sorted(files.items()):
            archive.writestr(zipfile.ZipInfo(name, DATE), text)

    fresh = output.with_name(f".{output.name}.unfinished")
    try:
        fresh.write_bytes(SHEBANG + content.getvalue())
        fresh.chmod(0o755)
        fresh.replace(output)
    except OSError as error:
        raise BadRequest(f"-o {output}: it cannot be written ({error.strerror}); choose another place") from error
    return output.stat().st_size


def sources() -> dict[str, str]:
    """The agent's source files and those that it shares with this machine, by their names in the zip."""
    package = Path(exporters.__file__)
    # The package of the shared files too: under the same name everywhere, one import finds them.
    files = {f"exporters/{package.name}": package.read_text()}
    for path in Path(portable.__file__).parent.glob("*.py"):
        files[f"exporters/portable/{path.name}"] = path.read_text()
    for path in SOURCE.glob("*.py"):
        files[f"{PACKAGE}/{path.name}"] = path.read_text()
    return files
