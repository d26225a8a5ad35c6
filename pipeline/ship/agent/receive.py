"""A bundle that arrives member by member: only what is not here is sent, and what was cut off is gone on with.

``incoming/DIGEST`` holds the head and the members that are whole, ``incoming/SHA256.part`` what has come of a member.
Whoever sends keeps this agent running meanwhile: it holds the lock, and puts each part where it belongs.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
import platform
import select
import tempfile
from typing import TYPE_CHECKING, Any, Callable, Dict, Iterable, Iterator, List, Optional, Tuple

from . import AGENT_VERSION, container, disk
from .errors import AgentError, Refused
from .store import sha256

if TYPE_CHECKING:
    from .container import Bundle
    from .keys import Keys
    from .store import Store

INCOMING = "incoming"
AGENT = "edge-agent.pyz"
# A sender says something every few seconds; one whose line was cut never says goodbye.
SILENCE = 30.0
LONGEST_LINE = 4 * container.LONGEST
Answer = Callable[[Dict[str, Any]], None]
Sources = Dict[str, List[Tuple["Bundle", str]]]


def install(store: Store, own: str) -> str:
    """Put the agent that is the file ``own`` into its store; where it is then.

    Raises Refused where the folder of the store holds anything else.
    """
    if not os.path.isfile(own):
        raise Refused(f"install puts an agent of one file into its store, and this one runs from {own}")
    with open(own, "rb") as file:
        content = file.read()
    store.make()
    path = os.path.join(store.root, AGENT)
    disk.replace(path, content, 0o755)
    return path


def receive(store: Store, lines: Iterable[str], answer: Answer) -> None:
    """Fill ``incoming`` with one bundle; raises Refused where it is not signed, or another is being sent.

    ``lines`` are the head of the bundle in base64, then the SHA-256 of each part that was sent whole, "done" when its
    members are needed no longer, and empty ones. The first is answered with what is missing, a hash with whether the
    part was ``kept``.
    """
    lines = iter(lines)
    head = _decoded(next(lines, ""))
    _refuse_unsigned(head, store.keys)
    store.make()
    root = os.path.join(store.root, INCOMING)
    os.makedirs(root, 0o700, exist_ok=True)
    with disk.held(root):
        digest = hashlib.sha256(head).hexdigest()
        folder = os.path.join(root, digest)
        version = _version_of(store, digest)
        missing: List[Dict[str, Any]] = []
        if version is not None:
            bundle = container.opened(store.path(version), store.keys)
        else:
            bundle = _begun(folder, head, store.keys)
            _take(folder, bundle, _sources(store, root, folder))
            missing = list(_missing(root, bundle))
        _sweep(root, digest, bundle)
        here = {"agent": AGENT_VERSION, "node": platform.node(), "python": platform.python_version()}
        answer(dict(here, bundle=bundle.origin, missing=missing))

        for line in lines:
            if line == "done":
                disk.discard(folder)
            elif line:
                answer({"sha256": line, "kept": _keep(root, folder, bundle, line)})


def _version_of(store: Store, digest: str) -> Optional[str]:
    """The version that was built from the bundle with this digest, where it is whole: then nothing is to be sent."""
    for version in store.all():
        if store.built(version).get("bundle") == digest and _whole(store, version):
            return version
    return None


def discard(store: Store) -> List[str]:
    """Remove what has come of bundles that were never finished; raises Refused while one is being sent."""
    root = os.path.join(store.root, INCOMING)
    if not os.path.isdir(root):
        return []
    with disk.held(root):
        names = sorted(os.listdir(root))
        for name in names:
            disk.discard(os.path.join(root, name))
    return [f"{INCOMING}/{name}" for name in names]


def lines(handle: int, seconds: float = SILENCE) -> Iterator[str]:
    """The lines of the open file ``handle``, until it ends or says nothing for ``seconds``."""
    rest = b""
    while len(rest) <= LONGEST_LINE and select.select([handle], [], [], seconds)[0]:
        piece = os.read(handle, container.PIECE)
        if not piece:
            return
        # What follows the last end of a line is the beginning of one that is still coming.
        *whole, rest = (rest + piece).split(b"\n")
        for line in whole:
            yield line.decode("ascii", "replace").strip()


def _decoded(line: str) -> bytes:
    try:
        return base64.b64decode(line, validate=True)
    except (ValueError, binascii.Error) as error:
        raise Refused("receive is for python -m pipeline ship; on the device itself, build takes the file") from error


def _refuse_unsigned(head: bytes, trusted: Keys) -> None:
    """Raise Refused unless a trusted key signed ``head``; nothing is made in the store before that."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            _begun(folder, head, trusted)
        except Refused as error:
            # The folder is gone before anybody could look at it.
            raise Refused(str(error).replace(folder, "the bundle")) from error


def _begun(folder: str, head: bytes, trusted: Keys) -> Bundle:
    os.makedirs(folder, 0o700, exist_ok=True)
    path = os.path.join(folder, container.HEAD)
    disk.discard(path)
    disk.write(path, [head])
    return container.opened(folder, trusted)


def _whole(store: Store, version: str) -> bool:
    try:
        store.whole(version)
    except AgentError:
        return False
    return True


def _sources(store: Store, root: str, folder: str) -> Sources:
    """Where members are already, by SHA-256: in versions, and in bundles that were not finished."""
    unfinished = [name for name in sorted(os.listdir(root)) if not name.endswith(".part")]
    folders = [store.path(version) for version in store.all()]
    folders += [os.path.join(root, name) for name in unfinished]

    sources: Sources = {}
    for source in folders:
        if source == folder:
            continue
        try:
            bundle = container.opened(source, store.keys)
        except AgentError:
            continue
        for name, place in bundle.places.items():
            sources.setdefault(place.sha256, []).append((bundle, name))
    return sources


def _take(folder: str, bundle: Bundle, sources: Sources) -> None:
    """Copy what is here already."""
    for name, place in bundle.places.items():
        # Its size first: to hash a large file takes long.
        right_size = os.path.isfile(place.path) and os.path.getsize(place.path) == place.size
        if right_size and sha256(place.path) == place.sha256:
            continue
        disk.discard(place.path)
        # Until one of them is what was signed.
        for other, other_name in sources.get(place.sha256, ()):
            if _copied(other, other_name, os.path.join(folder, name)):
                break


def _copied(source: Bundle, name: str, path: str) -> bool:
    fresh = os.path.join(os.path.dirname(path), f"{disk.UNFINISHED}{os.path.basename(path)}")
    disk.discard(fresh)
    try:
        disk.write(fresh, source.pieces(name))
    except Refused:  # it is not what was signed, or has not come yet
        disk.discard(fresh)
        return False
    os.replace(fresh, path)
    return True


def _sweep(root: str, digest: str, bundle: Bundle) -> None:
    """Remove what belongs to another bundle."""
    wanted = {f"{place.sha256}.part" for place in bundle.places.values()}
    wanted.add(digest)
    for name in sorted(os.listdir(root)):
        if name not in wanted:
            disk.discard(os.path.join(root, name))


def _missing(root: str, bundle: Bundle) -> Iterator[Dict[str, Any]]:
    """Each content that is not here, once: its ``name``, and how many bytes of it came."""
    seen = set()
    for name, place in bundle.places.items():
        if os.path.lexists(place.path) or place.sha256 in seen:
            continue
        seen.add(place.sha256)
        part = os.path.join(root, f"{place.sha256}.part")
        have = os.path.getsize(part) if os.path.isfile(part) else 0
        # Of the content with this hash no more can come: it is something else.
        if have > place.size:
            disk.discard(part)
            have = 0
        yield {"name": name, "have": have}


def _keep(root: str, folder: str, bundle: Bundle, digest: str) -> bool:
    """Move a whole part to every member of that content; False, and the part is gone, where it is another."""
    names = [name for name, place in bundle.places.items() if place.sha256 == digest]
    if not names:
        raise Refused(f"no member of the bundle has the SHA-256 {digest[:64]}")
    part = os.path.join(root, f"{digest}.part")
    if not os.path.isfile(part) or os.path.islink(part) or sha256(part) != digest:
        disk.discard(part)
        return False
    first, *others = names
    os.replace(part, os.path.join(folder, first))
    return all(_copied(bundle, first, os.path.join(folder, name)) for name in others)
