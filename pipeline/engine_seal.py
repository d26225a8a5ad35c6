"""Which engines may be opened: those that this user built, for the GPU and TensorRT that are here.

To open an engine is to run what it holds, and anyone can rewrite a note. So the note carries an HMAC-SHA256 (RFC 2104)
under a key that only this user can read.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline import workspace
from pipeline.errors import BadRequest

if TYPE_CHECKING:
    from collections.abc import Mapping


def seal(engine: Path, made_for: Mapping[str, Any]) -> dict[str, Any]:
    """What proves that this user built ``engine`` for a GPU and versions; makes the key where there is none."""
    said = {"sha256": workspace.sha256(engine), **made_for}
    return {**made_for, "hmac": _hmac(said)}


def owner() -> str:
    """Which key this user has; an engine under another one is built again rather than used again."""
    return hashlib.sha256(_key()).hexdigest()[:16]


def refuse(engine: Path, here: Mapping[str, Any]) -> None:
    """Raise BadRequest unless the note beside ``engine`` proves that this user built it for what is ``here``."""
    details = workspace.read_note(workspace.note_of(engine)).get("details")
    held = details.get("seal") if isinstance(details, dict) else None
    if not isinstance(held, dict) or not isinstance(held.get("hmac"), str):
        raise BadRequest(
            f"{engine}: nothing proves who built it, and to open an engine is to run it; delete it and build again"
        )
    made_for = {name: value for name, value in held.items() if name != "hmac"}
    if made_for != here:
        said, found = (", ".join(f"{name} {value}" for name, value in each.items()) for each in (made_for, here))
        raise BadRequest(f"{engine}: built for {said}, here: {found}; rebuild it here with python -m pipeline build")
    if not hmac.compare_digest(held["hmac"], _hmac({"sha256": workspace.sha256(engine), **made_for})):
        raise BadRequest(
            f"{engine}: it is not what this user built, or its note was changed; delete it and build again"
        )


def _hmac(said: Mapping[str, Any]) -> str:
    return hmac.digest(_key(), json.dumps(said, sort_keys=True).encode(), "sha256").hex()


def _key() -> bytes:
    """The user's own key, 32 random bytes that nobody else can read."""
    import platformdirs

    path = Path(platformdirs.user_data_dir("edge-resnet"), "engine.key")
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        fresh = path.with_name(f"engine.key.{os.getpid()}")
        if not path.exists():
            with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                file.write(os.urandom(32))
            # Of two builds at once the first one's key stays.
            try:
                path.hardlink_to(fresh)
            except FileExistsError:
                pass
            finally:
                fresh.unlink()
        owner = path.stat()
        key = path.read_bytes()
    except OSError as error:
        raise BadRequest(
            f"the key of your engines cannot be kept in {path} ({error.strerror}); point XDG_DATA_HOME elsewhere"
        ) from error
    if len(key) != 32 or owner.st_mode & 0o077 or owner.st_uid != os.getuid():
        raise BadRequest(f"{path} is not a key that only you can read: delete it, and build your engines again")
    return key
