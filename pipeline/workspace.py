"""The output directory: held by one process, files whole or absent, nothing left behind."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import shutil
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.errors import BadRequest

if TYPE_CHECKING:
    from collections.abc import Iterator

# The system's words for a full disk, a full quota and a file that may not grow.
FULL = [os.strerror(number) for number in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)]


@contextmanager
def directory(path: Path) -> Iterator[Path]:
    """``path``, made and held by this process alone; yields a folder in it for unfinished files.

    The lock is on the directory itself: it leaves no file and dies with the process. What a killed run left unfinished
    is swept out first.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        lock = os.open(path, os.O_RDONLY)
    except OSError as error:
        raise BadRequest(
            f"-o {path}: the directory cannot be made ({error.strerror}); choose another with -o"
        ) from error
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise BadRequest(f"-o {path}: another build is writing there; wait for it or choose another -o") from error
        # Nobody else holds the directory, so these are of runs that were killed.
        for abandoned in path.glob(".unfinished-*"):
            shutil.rmtree(abandoned, ignore_errors=True)
        try:
            unfinished = Path(tempfile.mkdtemp(prefix=".unfinished-", dir=path))
        except OSError as error:
            raise BadRequest(
                f"-o {path}: nothing can be written there ({error.strerror}); choose another -o"
            ) from error
        try:
            yield unfinished
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)
    finally:
        os.close(lock)


def sha256(path: Path) -> str:
    """The hash of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def other(path: Path, digest: object) -> str | None:
    """Why ``path`` is not the file with this hash, for a sentence; None where it is."""
    if not path.is_file():
        return f"{path.name} is gone"
    if sha256(path) != digest:
        return f"{path.name} was changed after the build wrote it"
    return None


def place(fresh: Path, path: Path) -> None:
    """Move a finished file to its name; before and after a crash there is a whole file or none."""
    # The content must be on the disk before the name is.
    with fresh.open("rb") as file:
        os.fsync(file.fileno())
    # Some writers make private files whatever the umask says; a build is to be read by whom the user allows.
    # The mask can only be read by setting one.
    mask = os.umask(0)
    os.umask(mask)
    fresh.chmod(0o666 & ~mask)
    fresh.replace(path)


def write_bytes(path: Path, content: bytes, unfinished: Path) -> None:
    """``content`` as a whole file at ``path``."""
    fresh = unfinished / path.name
    fresh.write_bytes(content)
    place(fresh, path)


def put(path: Path, content: bytes) -> None:
    """``content`` as a whole file at ``path``, in a directory that another process may hold."""
    with tempfile.TemporaryDirectory(prefix=".unfinished-", dir=path.parent) as unfinished:
        write_bytes(path, content, Path(unfinished))


def write_json(path: Path, content: Any, unfinished: Path) -> None:
    """``content`` as a whole file at ``path``; NaN is an error."""
    text = json.dumps(content, indent=1, allow_nan=False) + "\n"
    write_bytes(path, text.encode(), unfinished)


def explain(error: Exception) -> str:
    """The sentence for what a stage or the system answered."""
    text = " ".join(str(error).split()) or type(error).__name__
    # Native libraries and child processes hand on the system's words, not its number.
    if any(words in text for words in FULL):
        return f"the disk is full ({text}); free some space and run again, what is finished is kept"
    return text


def forget_others(path: Path, kept: set[str]) -> None:
    """Delete the stage files of an earlier, different build, so that all files in ``path`` belong together.

    The directory may hold a person's own files: only a file whose content its note proves is ours.
    """
    for note_path in path.glob("[0-9][0-9]-*.json"):
        note = read_note(note_path)
        name = note.get("file")
        # A note tells of the file beside it alone, whose name has its stem and no folder.
        if not isinstance(name, str) or name.split(".")[0] != note_path.stem:
            continue
        if name in kept:
            continue
        file = path / name
        if file.is_file() and sha256(file) == note.get("sha256"):
            file.unlink()
            note_path.unlink()


def note_of(path: Path) -> Path:
    """The note beside a stage's file: ``05-int8.json``."""
    return path.with_name(path.name.split(".")[0] + ".json")


def read_note(path: Path) -> dict[str, Any]:
    """The note at ``path``; empty where there is none that can be read."""
    try:
        note = json.loads(path.read_text())
    except (OSError, ValueError, RecursionError):  # JSON of any depth is read by recursion
        return {}
    return note if isinstance(note, dict) else {}
