"""A finished build as one signed file, the same bytes from the same build, key and date."""

from __future__ import annotations

import hashlib
import os
from typing import TYPE_CHECKING, Any

from pipeline.errors import BadRequest
from pipeline.ship import signing
from pipeline.ship.agent import container, contents, manifest
from pipeline.ship.agent.errors import AgentError
from pipeline.ship.agent.keys import name_of

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey


def pack(key: Ed25519PrivateKey, fields: Mapping[str, Any], members: Mapping[str, bytes]) -> bytes:
    """The whole file; ``fields`` is the manifest without what follows from ``key`` and ``members``."""
    listed = []
    contents_in_order = []
    for name, content in sorted(members.items()):
        listed.append({"name": name, "size": len(content), "sha256": hashlib.sha256(content).hexdigest()})
        contents_in_order.append(content)
    signer = name_of(signing.raw(key))
    text = manifest.encoded({**fields, "schema": manifest.SCHEMA, "signer": signer, "members": listed})
    head = container.START.pack(container.MAGIC, container.VERSION, len(text)) + text
    # The head alone is signed: it has the hash of every member.
    return b"".join([head, key.sign(head), *contents_in_order])


def create(directory: Path, key: Path, output: Path, **asked: Any) -> dict[str, Any]:
    """Write the bundle of the build in ``directory`` to ``output``; its manifest.

    Raises BadRequest where the build did not pass, is not whole, or anything of it cannot be shipped.
    """
    from pipeline.ship import bundle_members

    signer = signing.private(key)
    fields, members = bundle_members.gather(directory, **asked)
    # Beside its place, so that it can be renamed there once it was read back.
    fresh = output.with_name(f".{output.name}.{os.getpid()}")
    try:
        with fresh.open("wb") as file:
            file.write(pack(signer, fields, members))
            file.flush()
            os.fsync(file.fileno())
        # What the device will refuse is refused here, by the same code.
        bundle = container.opened(str(fresh), {"own": signing.raw(signer)})
        contents.refuse(bundle)
        fresh.replace(output)
    except AgentError as error:
        raise BadRequest(str(error).replace(str(fresh), str(output))) from error
    except OSError as error:
        raise BadRequest(f"-o {output}: it cannot be written ({error.strerror}); choose another place") from error
    finally:
        fresh.unlink(missing_ok=True)
    return dict(bundle.manifest)
