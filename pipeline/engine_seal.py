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

KEY_BYTES = 32


def seal(engine: Path, made_for: Mapping[str, Any]) -> dict[str, Any]:
    """What proves that this user built ``engine`` for a GPU and versions; makes the key where there is none."""
    return {**made_for, "hmac": _hmac(engine, made_for)}


def owner() -> str:
    """Which key this user has; an engine under another one is built again rather than used again."""
    return hashlib.sha256(_key()).hexdigest()[:16]


def refuse(engine: Path, here: Mapping[str, Any]) -> None:
    """Raise BadRequest unless the note beside ``engine`` proves that this user built it for what is ``here``."""
    details = workspace.read_note(workspace.note_of(engine)).get("details")
    kept_seal = details.get("seal") if isinstance(details, dict) else None
    if not isinstance(kept_seal, dict) or not isinstance(kept_seal.get("hmac"), str):
        raise BadRequest(
            f"{engine}: nothing proves who built it, and to open an engine is to run it; delete it and build again"
        )

    made_for = {name: value for name, value in kept_seal.items() if name != "hmac"}
    if made_for != here:
        raise BadRequest(
            f"{engine}: built for {_text(made_for)}, here: {_text(here)}; rebuild it here with python -m pipeline build"
        )
    # In constant time: how long the comparison takes tells nothing of the right code.
    if not hmac.compare_digest(kept_seal["hmac"], _hmac(engine, made_for)):
        raise BadRequest(
            f"{engine}: it is not what this user built, or its note was changed; delete it and build again"
        )


def _text(made_for: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in made_for.items())


def _hmac(engine: Path, made_for: Mapping[str, Any]) -> str:
    """The code over the content of ``engine`` and what it was made for."""
    message = {"sha256": workspace.sha256(engine), **made_for}
    return hmac.digest(_key(), json.dumps(message, sort_keys=True).encode(), "sha256").hex()


def _key() -> bytes:
    """The user's own key, 32 random bytes that nobody else can read; made where there is none."""
    import platformdirs

    path = Path(platformdirs.user_data_dir("edge-resnet"), "engine.key")
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        if not path.exists():
            _make_key(path)
        status = path.stat()
        key = path.read_bytes()
    except OSError as error:
        raise BadRequest(
            f"the key of your engines cannot be kept in {path} ({error.strerror}); point XDG_DATA_HOME elsewhere"
        ) from error

    # Bits of the group and of all others.
    others_may_read = status.st_mode & 0o077
    if len(key) != KEY_BYTES or others_may_read or status.st_uid != os.getuid():
        raise BadRequest(f"{path} is not a key that only you can read: delete it, and build your engines again")
    return key


def _make_key(path: Path) -> None:
    """Random bytes at ``path``, from the first moment whole and for this user's eyes alone."""
    fresh = path.with_name(f"engine.key.{os.getpid()}")
    handle = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "wb") as file:
        file.write(os.urandom(KEY_BYTES))
    # Of two builds at once the first one's key stays: a link, unlike a rename, takes no place that is taken.
    try:
        path.hardlink_to(fresh)
    except FileExistsError:
        pass
    finally:
        fresh.unlink()
