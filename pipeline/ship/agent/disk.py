"""Files that are whole or absent after a power cut: written aside, synced, and moved into place."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
from contextlib import contextmanager
from typing import Iterable, Iterator

from .errors import Broken, Refused

# What a power cut leaves behind begins with it, and is swept.
UNFINISHED = ".unfinished-"
# No space, no quota, or a file larger than this user may write.
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def write(path: str, pieces: Iterable[bytes], mode: int = 0o644) -> None:
    """A new file of ``pieces``, synced; raises FileExistsError where something has that name."""
    # Never over what is there, nor through a link.
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    handle = os.open(path, flags, mode)
    with os.fdopen(handle, "wb") as file:
        for piece in pieces:
            file.write(piece)
        file.flush()
        os.fsync(handle)


def replace(path: str, content: bytes, mode: int = 0o644) -> None:
    """``content`` as the file at ``path``: before and after a power cut the old one or the new one is there."""
    folder, name = os.path.split(os.path.abspath(path))
    fresh = os.path.join(folder, f"{UNFINISHED}{name}")
    discard(fresh)
    write(fresh, [content], mode)
    os.replace(fresh, path)
    # The new name is in the folder: without this a power cut may bring the old one back.
    sync(folder)


def point(link: str, target: str) -> None:
    """The symbolic link ``link`` to ``target``, switched in one step."""
    folder, name = os.path.split(link)
    fresh = os.path.join(folder, f"{UNFINISHED}{name}")
    discard(fresh)
    os.symlink(target, fresh)
    os.replace(fresh, link)
    sync(folder)


def forget(path: str) -> None:
    """Remove the file or link ``path``; nothing where it is not there."""
    try:
        os.unlink(path)
    except FileNotFoundError:
        return
    sync(os.path.dirname(path))


def discard(path: str) -> None:
    """Remove what an interrupted run left at ``path``, whatever it is."""
    if os.path.isdir(path) and not os.path.islink(path):
        shutil.rmtree(path)
    elif os.path.lexists(path):
        os.unlink(path)


def sync(path: str) -> None:
    """Until the file or directory ``path`` is on the disk."""
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def held(folder: str) -> Iterator[None]:
    """``folder`` locked for this process; raises Refused at once where another holds it. The lock dies with us."""
    handle = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise Refused(f"--store {folder}: another agent is at work there; wait until it has ended") from error
        yield
    finally:
        os.close(handle)


def explained(error: OSError, doing: str) -> Broken:
    """The sentence for what the system answered."""
    if error.errno in FULL:
        return Broken(f"{doing}: the disk is full ({error.strerror}); free some space, with gc too, and run it again")
    where = f" {error.filename}" if error.filename else ""
    return Broken(f"{doing}: the system answered {error.strerror or error}{where}; mend that and run it again")
