"""Public keys that are trusted: files of PEM (RFC 8410), and those built into the agent."""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import pkgutil
import re
from typing import Dict, Iterable

from . import ed25519
from .errors import Refused

Keys = Dict[str, bytes]

# SubjectPublicKeyInfo of an Ed25519 key is these bytes and the key itself (RFC 8410, section 4).
PREFIX = bytes.fromhex("302a300506032b6570032100")
PEM = re.compile(r"-----BEGIN PUBLIC KEY-----\s+([A-Za-z0-9+/=\s]+?)\s+-----END PUBLIC KEY-----\s*")
LONGEST = 4096  # characters of a file of PEM that are read; a key has about a hundred
# Beside this file in an agent that was made with keys: zipapp writes it.
BUILT_IN = "trusted.json"


def name_of(public: bytes) -> str:
    """How a key is called: the first 16 digits of its SHA-256."""
    return hashlib.sha256(public).hexdigest()[:16]


def read(paths: Iterable[str]) -> Keys:
    """The keys in these files of PEM, by name; raises Refused where one holds no Ed25519 public key."""
    keys = {}
    for path in paths:
        content = _decoded(path)
        public = content[len(PREFIX) :]
        if not content.startswith(PREFIX) or not ed25519.usable(public):
            raise Refused(f"--key {path}: it holds no Ed25519 public key in PEM; name the .pub of bundle keygen")
        keys[name_of(public)] = public
    return keys


def _decoded(path: str) -> bytes:
    """What a file of PEM encodes, empty where it is none; raises Refused where it cannot be read."""
    try:
        with open(path, encoding="ascii") as file:
            text = file.read(LONGEST)
        body = PEM.fullmatch(text)
        if body is None:
            return b""
        return base64.b64decode("".join(body.group(1).split()), validate=True)
    except OSError as error:
        raise Refused(f"--key {path}: it cannot be read ({error.strerror}); name a file of bundle keygen") from error
    except (ValueError, binascii.Error):
        return b""


def built_in() -> Keys:
    """The keys that this agent was made with; none where it runs from a checkout."""
    try:
        content = pkgutil.get_data(__package__, BUILT_IN)
    except OSError:
        content = None
    if not content:
        return {}
    keys = [bytes.fromhex(digits) for digits in json.loads(content.decode())]
    return {name_of(key): key for key in keys}
