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
BUILT_IN = "trusted.json"


def name_of(public: bytes) -> str:
    """How a key is called: the first 16 digits of its SHA-256."""
    return hashlib.sha256(public).hexdigest()[:16]


def read(paths: Iterable[str]) -> Keys:
    """The keys in these files of PEM, by name; raises Refused where one holds no Ed25519 public key."""
    found = {}
    for path in paths:
        try:
            with open(path, encoding="ascii") as file:
                text = file.read(4096)
            body = PEM.fullmatch(text)
            content = base64.b64decode("".join(body.group(1).split()), validate=True) if body else b""
        except OSError as error:
            raise Refused(
                f"--key {path}: it cannot be read ({error.strerror}); name a file of bundle keygen"
            ) from error
        except (ValueError, binascii.Error):
            content = b""
        public = content[len(PREFIX) :]
        if not content.startswith(PREFIX) or not ed25519.usable(public):
            raise Refused(f"--key {path}: it holds no Ed25519 public key in PEM; name the .pub of bundle keygen")
        found[name_of(public)] = public
    return found


def built_in() -> Keys:
    """The keys that this agent was made with; none where it runs from a checkout."""
    try:
        content = pkgutil.get_data(__package__, BUILT_IN)
    except OSError:
        content = None
    public = [bytes.fromhex(key) for key in json.loads(content.decode())] if content else []
    return {name_of(key): key for key in public}
