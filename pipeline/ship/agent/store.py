"""Versions on a device: folders that never change once they have their name, and two links that say which is in use.

``versions/ID`` holds the members of a bundle, the engine made of them here, and notes; ``current`` and ``previous``
are symbolic links, switched in one step each. Whatever is cut off leaves names that begin with ``.unfinished-``.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
import tempfile
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ContextManager, Dict, Iterator, List, Optional

from . import container, disk
from .errors import Refused

if TYPE_CHECKING:
    from .container import Bundle
    from .keys import Keys

MARK = "edge-store.json"  # what makes a folder a store
SCHEMA = 1
VERSIONS = "versions"
# The two links, and the note of an activation that is under way.
CURRENT = "current"
PREVIOUS = "previous"
PENDING = "pending.json"
# Notes in the folder of a version.
BUILT = "built.json"
VERIFIED = "verified.json"


class Store:
    """The versions under ``root``, for the device that is described by ``device``."""

    def __init__(self, root: str, keys: Keys) -> None:
        self.root = os.path.abspath(root)
        self.keys = keys
        self.versions = os.path.join(self.root, VERSIONS)

    def make(self) -> None:
        """Make an empty store; raises Refused where the folder holds anything else, or others may write to it."""
        os.makedirs(self.root, 0o755, exist_ok=True)
        mark = os.path.join(self.root, MARK)
        if not os.path.isfile(mark):
            foreign = [name for name in sorted(os.listdir(self.root)) if not name.startswith(disk.UNFINISHED)]
            if foreign:
                raise Refused(f"--store {self.root}: it holds {foreign[0]} and is no store; name an empty folder")
            disk.replace(mark, json.dumps({"schema": SCHEMA}).encode())
        if not os.path.isdir(self.versions):
            os.mkdir(self.versions, 0o755)
            disk.sync(self.root)
        self.refuse()

    def refuse(self) -> None:
        """Raise Refused where there is no store, or somebody else could have written to it."""
        schema = _json(os.path.join(self.root, MARK)).get("schema")
        if schema != SCHEMA or not os.path.isdir(self.versions):
            raise Refused(f"--store {self.root}: there is no store of this agent; build makes one in an empty folder")
        # To open an engine is to run what it holds: nobody else may put one here.
        for path in (self.root, self.versions):
            status = os.stat(path)
            if status.st_uid != os.geteuid() or status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
                raise Refused(
                    f"--store {path}: others can write there, and to open an engine is to run it; "
                    f"run as its owner, after chmod go-w {path}"
                )

    def building(self) -> ContextManager[None]:
        """Held by whoever adds, verifies or removes versions."""
        return disk.held(self.versions)

    def switching(self) -> ContextManager[None]:
        """Held by whoever switches the links."""
        return disk.held(self.root)

    def path(self, version: str, *names: str) -> str:
        """Where a version is, or a file of it."""
        return os.path.join(self.versions, version, *names)

    def all(self) -> List[str]:
        """The versions that are whole, the oldest release first."""
        # What begins with a point is unfinished.
        versions = [name for name in os.listdir(self.versions) if not name.startswith(".")]
        return sorted(versions, key=lambda version: (int(self.built(version).get("released", 0)), version))

    def named(self, version: Optional[str]) -> str:
        """``version``, or the newest one; raises Refused where there is none."""
        versions = self.all()
        if version is None and versions:
            return versions[-1]
        if version not in versions:
            lacking = "there is no version yet" if version is None else f"there is no version {version}"
            raise Refused(f"{lacking} in {self.root}: {', '.join(versions) or 'build one first'}")
        return str(version)

    def linked(self, link: str) -> Optional[str]:
        """The version that ``current`` or ``previous`` means, or None."""
        try:
            target = os.readlink(os.path.join(self.root, link))
        except OSError:
            return None
        return os.path.basename(target)

    def point(self, link: str, version: Optional[str]) -> None:
        """Switch ``current`` or ``previous``; None takes the link away."""
        if version is None:
            disk.forget(os.path.join(self.root, link))
        else:
            disk.point(os.path.join(self.root, link), os.path.join(VERSIONS, version))

    def built(self, version: str) -> Dict[str, Any]:
        """The note of the build, empty where there is none."""
        return _json(self.path(version, BUILT))

    def job(self, version: str) -> Dict[str, Any]:
        """What a child process needs to know to load the engine of ``version``."""
        built = self.built(version)
        return {
            "folder": self.path(version),
            "file": built["engine"],
            "runtime": built["device"]["engine"],
            "keys": {name: key.hex() for name, key in self.keys.items()},
        }

    def verified(self, version: str) -> Dict[str, Any]:
        """The note of the last verification that passed, empty where there is none."""
        return _json(self.path(version, VERIFIED))

    def pending(self) -> Dict[str, Any]:
        """The activation whose health check is not over: ``version``, and both links ``before`` and ``previous``."""
        return _json(os.path.join(self.root, PENDING))

    def note_pending(self, note: Optional[Dict[str, Any]]) -> None:
        """Write that note, or take it away where it is None."""
        path = os.path.join(self.root, PENDING)
        if note is None:
            disk.forget(path)
        else:
            disk.replace(path, json.dumps(note).encode())

    def whole(self, version: str) -> Bundle:
        """The bundle of a version; raises Refused where a member or the engine is not what it was when it was built."""
        bundle = container.opened(self.path(version), self.keys)
        bundle.check()
        built = self.built(version)
        engine = self.path(version, str(built.get("engine")))
        if not os.path.isfile(engine) or sha256(engine) != built.get("sha256"):
            raise Refused(f"{version}: its engine is gone or not what was built here; build the bundle again")
        return bundle

    def loadable(self, version: str, device: Dict[str, Any]) -> Bundle:
        """The bundle of a version that may be used; raises Refused unless it is whole and verified on this device."""
        bundle = self.whole(version)
        built = self.built(version)
        verified = self.verified(version)
        if built.get("device") != device:
            raise Refused(f"{version}: {differences(built.get('device') or {}, device)}; build the bundle again")
        # The note counts for the engine and the device that it was written for, and for no other.
        if verified.get("sha256") != built["sha256"] or verified.get("device") != device:
            raise Refused(f"{version}: it has not passed verification here; run verify {version}")
        return bundle

    @contextmanager
    def staging(self) -> Iterator[str]:
        """A folder for an unfinished version; what is left of it is swept out."""
        self.sweep(self.versions)
        folder = tempfile.mkdtemp(prefix=disk.UNFINISHED, dir=self.versions)
        try:
            yield folder
        finally:
            disk.discard(folder)

    def sweep(self, folder: str) -> List[str]:
        """Remove what interrupted runs left in ``folder``; its names."""
        litter = [name for name in sorted(os.listdir(folder)) if name.startswith(disk.UNFINISHED)]
        for name in litter:
            disk.discard(os.path.join(folder, name))
        return litter


def differences(before: Dict[str, Any], here: Dict[str, Any]) -> str:
    """``built for tensorrt 10.3.0, here 10.7.0``."""
    changes = []
    for name in sorted(set(before) | set(here)):
        was = before.get(name)
        now = here.get(name)
        if was != now:
            changes.append(f"{name} {was}, here {now}")
    return f"built for {', '.join(changes)}"


def sha256(path: str) -> str:
    """The hash of a file's content."""
    seen = hashlib.sha256()
    with open(path, "rb") as file:
        for piece in iter(lambda: file.read(container.PIECE), b""):
            seen.update(piece)
    return seen.hexdigest()


def _json(path: str) -> Dict[str, Any]:
    try:
        with open(path, encoding="utf-8") as file:
            content = json.load(file)
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
