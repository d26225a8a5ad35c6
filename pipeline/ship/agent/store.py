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

MARK, SCHEMA = "edge-store.json", 1
VERSIONS, CURRENT, PREVIOUS, PENDING = "versions", "current", "previous", "pending.json"
BUILT, VERIFIED = "built.json", "verified.json"


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
            if foreign := [name for name in sorted(os.listdir(self.root)) if not name.startswith(disk.UNFINISHED)]:
                raise Refused(f"--store {self.root}: it holds {foreign[0]} and is no store; name an empty folder")
            disk.replace(mark, json.dumps({"schema": SCHEMA}).encode())
        if not os.path.isdir(self.versions):
            os.mkdir(self.versions, 0o755)
            disk.sync(self.root)
        self.refuse()

    def refuse(self) -> None:
        """Raise Refused where there is no store, or somebody else could have written to it."""
        if _json(os.path.join(self.root, MARK)).get("schema") != SCHEMA or not os.path.isdir(self.versions):
            raise Refused(f"--store {self.root}: there is no store of this agent; build makes one in an empty folder")
        for path in (self.root, self.versions):
            found = os.stat(path)
            if found.st_uid != os.geteuid() or found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
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
        names = (name for name in os.listdir(self.versions) if not name.startswith("."))
        return sorted(names, key=lambda name: (int(self.built(name).get("released", 0)), name))

    def named(self, version: Optional[str]) -> str:
        """``version``, or the newest one; raises Refused where there is none."""
        found = self.all()
        if version is None and found:
            return found[-1]
        if version not in found:
            asked = "there is no version yet" if version is None else f"there is no version {version}"
            raise Refused(f"{asked} in {self.root}: {', '.join(found) or 'build one first'}")
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

    def note_pending(self, said: Optional[Dict[str, Any]]) -> None:
        """Write or take away that note."""
        path = os.path.join(self.root, PENDING)
        if said is None:
            disk.forget(path)
        else:
            disk.replace(path, json.dumps(said).encode())

    def whole(self, version: str) -> Bundle:
        """The bundle of a version; raises Refused where a member or the engine is not what it was when it was built."""
        found = container.opened(self.path(version), self.keys)
        found.check()
        built = self.built(version)
        engine = self.path(version, str(built.get("engine")))
        if not os.path.isfile(engine) or sha256(engine) != built.get("sha256"):
            raise Refused(f"{version}: its engine is gone or not what was built here; build the bundle again")
        return found

    def loadable(self, version: str, device: Dict[str, Any]) -> Bundle:
        """The bundle of a version that may be used; raises Refused unless it is whole and verified on this device."""
        found, built, verified = self.whole(version), self.built(version), self.verified(version)
        if built.get("device") != device:
            raise Refused(f"{version}: {differences(built.get('device') or {}, device)}; build the bundle again")
        if verified.get("sha256") != built["sha256"] or verified.get("device") != device:
            raise Refused(f"{version}: it has not passed verification here; run verify {version}")
        return found

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
        found = [name for name in sorted(os.listdir(folder)) if name.startswith(disk.UNFINISHED)]
        for name in found:
            disk.discard(os.path.join(folder, name))
        return found


def differences(before: Dict[str, Any], here: Dict[str, Any]) -> str:
    """``built for tensorrt 10.3.0, here 10.7.0``."""
    names = [name for name in sorted(set(before) | set(here)) if before.get(name) != here.get(name)]
    return "built for " + ", ".join(f"{name} {before.get(name)}, here {here.get(name)}" for name in names)


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
            found = json.load(file)
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
