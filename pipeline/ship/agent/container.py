"""A bundle read: magic and version, length of the manifest, the manifest, a signature of all before it, the members.

The same reader opens one flat file, and the folder that such a file was unpacked to, in which ``head.edge`` holds what
comes before the members. Nothing is believed before the signature is right, and every member is hashed when it is read.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
import struct
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO, Dict, Iterator, NamedTuple, Tuple

from . import disk, ed25519
from .errors import Refused
from .manifest import Manifest, parsed

if TYPE_CHECKING:
    from .keys import Keys

# As PNG's: a transfer in text mode, or through seven bits, changes it.
MAGIC = b"\x89EDGE\r\n\n"
VERSION = 1
# Magic, version and the length of the manifest, big-endian.
START = struct.Struct(">8sII")
SIGNATURE = 64
LONGEST = 2**20  # bytes of a manifest
PIECE = 2**20  # bytes that are read at once
HEAD = "head.edge"
SIGNER = re.compile(rb'"signer":"([0-9a-f]{16})"')


class Place(NamedTuple):
    """Where a member is: its file, the offset in it, its size in bytes; and the SHA-256 that was signed."""

    path: str
    offset: int
    size: int
    sha256: str


@dataclass(frozen=True)
class Bundle:
    """A bundle whose signature is right; ``places`` has where each member is, by name."""

    origin: str
    manifest: Manifest
    head: bytes
    places: Dict[str, Place]

    @property
    def digest(self) -> str:
        """The SHA-256 of what was signed, and so of all of it."""
        return hashlib.sha256(self.head).hexdigest()

    def pieces(self, name: str) -> Iterator[bytes]:
        """The content of the member ``name``; raises Refused at its end where it is not what was signed."""
        place = self.places[name]
        seen = hashlib.sha256()
        left = place.size
        with _regular(place.path, f"{self.origin}: {name}") as file:
            file.seek(place.offset)
            while left:
                piece = file.read(min(left, PIECE))
                if not piece:
                    break
                seen.update(piece)
                left -= len(piece)
                yield piece
            # A member unpacked to a file of its own ends where that file does.
            longer = place.offset == 0 and bool(file.read(1))
        if left or longer or seen.hexdigest() != place.sha256:
            raise Refused(f"{self.origin}: {name} is not what was signed; get the bundle again")

    def read(self, name: str) -> bytes:
        """The whole content of a member."""
        return b"".join(self.pieces(name))

    def check(self) -> None:
        """Read every member; raises Refused at the first that is not what was signed."""
        for name in self.places:
            for _ in self.pieces(name):
                pass

    def unpack(self, folder: str) -> None:
        """Write every member and the head to ``folder``, which is there and empty."""
        for name in self.places:
            disk.write(os.path.join(folder, name), self.pieces(name))
        disk.write(os.path.join(folder, HEAD), [self.head])


def opened(path: str, keys: Keys) -> Bundle:
    """The bundle at ``path``, a file or a folder; raises Refused where it is none that one of ``keys`` signed."""
    unpacked = os.path.isdir(path)
    head_path = os.path.join(path, HEAD) if unpacked else path
    with _regular(head_path, head_path) as file:
        head, content = _head(file, path, keys)
        rest = os.fstat(file.fileno()).st_size - len(head)
    manifest = parsed(content, path)

    places: Dict[str, Place] = {}
    offset = len(head)
    for member in manifest["members"]:
        name = member["name"]
        if unpacked:
            places[name] = Place(os.path.join(path, name), 0, member["size"], member["sha256"])
        else:
            places[name] = Place(path, offset, member["size"], member["sha256"])
        offset += member["size"]
    _refuse_other_size(path, manifest, rest, 0 if unpacked else offset - len(head))
    return Bundle(path, manifest, head, places)


def _refuse_other_size(path: str, manifest: Manifest, rest: int, expected: int) -> None:
    """Raise Refused unless ``rest``, the bytes behind the head, are those of the members that were signed."""
    if rest == expected:
        return
    if rest < expected:
        what = "is cut short"
        name = _short(manifest, rest)
    else:
        what = "goes on behind its last member"
        name = manifest["members"][-1]["name"]
    raise Refused(f"{path}: it {what} ({name}: {rest} bytes of members, {expected} signed); get the bundle again")


def _head(file: BinaryIO, path: str, keys: Keys) -> Tuple[bytes, bytes]:
    """All that comes before the members, its signature checked, and the manifest in it."""
    start = file.read(START.size)
    if len(start) < START.size or not start.startswith(MAGIC):
        raise Refused(f"{path}: its header is not that of a bundle; name a file of bundle create")
    _, version, length = START.unpack(start)
    if version != VERSION:
        raise Refused(f"{path}: its header says format {version}, this agent reads {VERSION}; update the agent")
    if length > LONGEST:
        raise Refused(f"{path}: its header says a manifest of {length} bytes, {LONGEST} are allowed; get it again")
    content = file.read(length)
    signature = file.read(SIGNATURE)
    if len(content) < length or len(signature) < SIGNATURE:
        raise Refused(f"{path}: it is cut short in its manifest or signature; get the bundle again")
    if not any(ed25519.verify(key, start + content, signature) for key in keys.values()):
        raise Refused(f"{path}: {_unsigned(content, keys)}")
    return start + content + signature, content


def _unsigned(content: bytes, keys: Keys) -> str:
    """Why no key fits. What the manifest says of its signer is not proven, and only told."""
    if not keys:
        return "no key is trusted here; name one with --key, or make the agent with bundle agent --key"
    match = SIGNER.search(content)
    signer = match.group(1).decode() if match else None
    if signer in keys:
        return f"its manifest or its signature was changed after {signer} signed it; get the bundle again"
    trusted = ", ".join(keys)
    return f"it says that {signer} signed it, and trusted are {trusted}: check the key, or that the manifest is whole"


def _short(manifest: Manifest, rest: int) -> str:
    """The member in which a file with ``rest`` bytes of members ends."""
    for member in manifest["members"]:
        rest -= member["size"]
        if rest < 0:
            break
    return str(member["name"])


@contextmanager
def _regular(path: str, origin: str) -> Iterator[BinaryIO]:
    """The file at ``path``; raises Refused for links, pipes, devices and what is not there."""
    # Without O_NONBLOCK to open a pipe would wait for whoever writes to it.
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        handle = os.open(path, flags)
    except OSError as error:
        raise Refused(f"{origin} cannot be read ({error.strerror}); name a bundle, no link to one") from error
    with os.fdopen(handle, "rb") as file:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise Refused(f"{origin} is no file; name a bundle")
        yield file
