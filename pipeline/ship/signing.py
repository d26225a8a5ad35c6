"""Ed25519 keys as files of PEM, made and used by the cryptography package."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from pipeline.errors import BadRequest
from pipeline.ship.agent.keys import name_of

if TYPE_CHECKING:
    from pathlib import Path

    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey


def keygen(path: Path) -> str:
    """Write a new private key to ``path``, for this user's eyes only, and its public half to PATH.pub; its name."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    public = path.with_name(f"{path.name}.pub")
    if path.exists() or public.exists():
        raise BadRequest(f"{path}: there is a key of that name already, and it is not overwritten; choose another name")
    key = Ed25519PrivateKey.generate()
    pem = serialization.Encoding.PEM
    private_half = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    public_half = key.public_key().public_bytes(pem, serialization.PublicFormat.SubjectPublicKeyInfo)
    # The private half first: a public one by itself would only be in the way.
    for file, content, mode in ((path, private_half, 0o600), (public, public_half, 0o644)):
        try:
            with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as handle:
                handle.write(content)
        except OSError as error:
            raise BadRequest(f"{file} cannot be written ({error.strerror}); choose another place") from error
    return name_of(raw(key))


def private(path: Path) -> Ed25519PrivateKey:
    """The key in ``path``; raises BadRequest where there is none, or where others can read it."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    try:
        content = path.read_bytes()
        mode = path.stat().st_mode
    except OSError as error:
        raise BadRequest(f"--key {path}: it cannot be read ({error.strerror}); make one with bundle keygen") from error
    if mode & 0o077:  # any right of the group or of others
        raise BadRequest(f"--key {path}: others than you can read or write it; run: chmod 600 {path}")
    try:
        key = serialization.load_pem_private_key(content, password=None)
    except (ValueError, TypeError) as error:
        raise BadRequest(f"--key {path}: it holds no private key without a password, in PEM") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise BadRequest(f"--key {path}: it is no Ed25519 key; make one with bundle keygen")
    return key


def raw(key: Ed25519PrivateKey) -> bytes:
    """The 32 bytes of the public half."""
    from cryptography.hazmat.primitives import serialization

    return key.public_key().public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
