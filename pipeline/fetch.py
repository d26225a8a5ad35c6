"""Files from elsewhere: fetched once into the user's cache, where only what is proven appears."""

from __future__ import annotations

import http.client
import tempfile
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from pipeline.errors import BadRequest

if TYPE_CHECKING:
    from collections.abc import Callable
    from http.client import HTTPResponse

# Bytes that are read at a time.
BLOCK = 2**20


def cache(name: str) -> Path:
    """The folder of fetched files of one kind."""
    import platformdirs

    return Path(platformdirs.user_cache_dir("edge-resnet"), name)


def fetch(url: str, path: Path, most: int, proven: Callable[[Path], object], cure: str) -> None:
    """Put the content of ``url`` to ``path`` once ``proven`` has not raised; of at most ``most`` bytes.

    Raises BadRequest, with ``cure`` in its sentence, where it cannot be fetched.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # A name of its own: another build may be fetching the same file.
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".fetching-") as folder:
        part = Path(folder, path.name)
        try:
            with urllib.request.urlopen(url, timeout=60) as answer, part.open("wb") as file:  # noqa: S310
                _copy(answer, file, most)
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise BadRequest(f"{url} could not be fetched ({error}); {cure}") from error
        proven(part)
        part.replace(path)


def _copy(answer: HTTPResponse, file: BinaryIO, most: int) -> None:
    """The content of ``answer``; not much more than ``most`` bytes, however much is sent."""
    # What is longer than it may be is cut here, and refused by the proof of its content.
    while file.tell() <= most:
        block = answer.read(BLOCK)
        if not block:
            return
        file.write(block)
