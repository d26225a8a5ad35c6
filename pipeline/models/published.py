"""Where ``--weights`` points to: a file, a model of the Hugging Face Hub, or what torchvision publishes."""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline import fetch, workspace
from pipeline.errors import BadRequest

if TYPE_CHECKING:
    from collections.abc import Callable

HUB = re.compile(r"([\w.-]+/[\w.-]+?)(?:@([\w.-]+))?(?:/([\w./-]+\.safetensors))?")
MIRROR = "EDGE_RESNET_TORCHVISION"
URL = "https://download.pytorch.org/models/"
MOST_BYTES = 2 * 2**30
# The end of the names that torchvision publishes: the first digits of the SHA-256 (torchvision/models/resnet.py 0.28).
PUBLISHED = {
    "IMAGENET1K_V1": {
        "resnet18": "f37072fd",
        "resnet34": "b627a593",
        "resnet50": "0676ba61",
        "resnet101": "63fe2227",
        "resnet152": "394f9c45",
        "resnext50_32x4d": "7cdf4587",
        "resnext101_32x8d": "8ba56ff5",
        "resnext101_64x4d": "173b62eb",
        "wide_resnet50_2": "95faca4d",
        "wide_resnet101_2": "32ee1156",
    },
    "IMAGENET1K_V2": {
        "resnet50": "11ad3fa6",
        "resnet101": "cd907fc2",
        "resnet152": "f82ba261",
        "resnext50_32x4d": "1a0047aa",
        "resnext101_32x8d": "110c445d",
        "wide_resnet50_2": "9ba9bcbe",
        "wide_resnet101_2": "d733dc28",
    },
}


@dataclass(frozen=True)
class Source:
    """A file or folder that is here.

    ``name`` is for errors and ``origin`` for reports; ``container`` is the part of the file to open, if one was named.
    """

    path: Path
    name: str
    origin: str
    container: str | None = None


def source(asked: str, arch: str) -> Source:
    """What ``asked`` names, fetched and proven where it is elsewhere; raises BadRequest where it cannot be had."""
    # A file that is there goes first, so that one called hf:x or a#b can still be given.
    here = Path(asked).exists()
    kind, colon, rest = asked.partition(":")
    if colon and kind in KINDS and not here:
        return KINDS[kind](rest, arch)

    file_name = asked
    container = None
    before, sharp, after = asked.rpartition("#")
    if sharp and not here:
        file_name = before
        container = after or None
    path = Path(file_name)
    origin = file_name
    if path.is_file():
        origin += f" (SHA-256 {workspace.sha256(path)})"
    return Source(path, f"--weights {asked}", origin, container)


def _torchvision(row: str, arch: str) -> Source:
    name = f"--weights torchvision:{row}"
    if arch not in PUBLISHED.get(row, {}):
        rows = [other for other, archs in PUBLISHED.items() if arch in archs]
        cure = f"take {' or '.join(rows)}" if rows else "it publishes none for this one"
        raise BadRequest(f"{name}: torchvision publishes no such weights of --arch {arch}; {cure}")
    digits = PUBLISHED[row][arch]
    path = fetch.cache("torchvision") / f"{arch}-{digits}.pth"

    def prove(file: Path) -> None:
        if not workspace.sha256(file).startswith(digits):
            cure = f"delete {path} and fetch it anew" if path.exists() else "ask another server"
            raise BadRequest(f"{name}: {path.name} is not what torchvision published (its hash differs); {cure}")

    if path.is_file():
        # Proven again each time: what lies in a cache may have been changed since.
        prove(path)
    else:
        server = os.environ.get(MIRROR, URL).rstrip("/")
        cure = f"{name}: give the file itself, or a mirror in {MIRROR}"
        fetch.fetch(f"{server}/{path.name}", path, MOST_BYTES, prove, cure)
    return Source(path, name, f"torchvision's {row}, {path.name} (SHA-256 {workspace.sha256(path)})")


def _hub(asked: str, _: str) -> Source:
    """One .safetensors file of a model: its commit is pinned first, and its content held against the Hub's hash."""
    name = f"--weights hf:{asked}"
    address = HUB.fullmatch(asked)
    if address is None:
        raise BadRequest(f"{name}: write it as hf:OWNER/NAME[@REVISION][/FILE.safetensors]")
    repository, revision, file_name = address.groups()
    # Nothing about the user is sent along. Set before the import, which reads them.
    os.environ |= {"HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    import huggingface_hub

    try:
        model = huggingface_hub.HfApi().model_info(repository, revision=revision, files_metadata=True)
        file = _chosen(name, model, file_name)
        # By the commit and not by the revision again: a branch may have moved in between.
        path = Path(huggingface_hub.hf_hub_download(repository, file.rfilename, revision=model.sha))
    except BadRequest:
        raise
    except Exception as error:  # whatever its HTTP client raises
        reason = " ".join(str(error).split())[:200]
        raise BadRequest(
            f"{name} could not be fetched ({reason}); check the name and the network, or give a file"
        ) from error
    _prove(name, path, file)
    origin = f"hf:{repository} at revision {model.sha}, {file.rfilename} (SHA-256 {workspace.sha256(path)})"
    return Source(path, name, origin)


def _chosen(name: str, model: Any, asked: str | None) -> Any:
    """The file that is asked for, or the one there is; raises BadRequest where it is none, or of no known commit."""
    if model.sha is None:
        raise BadRequest(f"{name}: the Hub tells no commit of it, so nothing can be pinned; give a file")
    readable = {}
    for file in model.siblings or ():
        # Its name becomes a path below the cache.
        if file.rfilename.endswith(".safetensors") and ".." not in file.rfilename:
            readable[file.rfilename] = file

    if asked is not None:
        choice = asked
    elif len(readable) == 1:
        choice = next(iter(readable))
    else:
        choice = "model.safetensors"
    if choice in readable:
        return readable[choice]
    has = ", ".join(list(readable)[:5]) or "none, and pickles are not read from there"
    raise BadRequest(f"{name}: {asked or 'one file'} was asked for; of .safetensors files that model has: {has}")


def _prove(name: str, path: Path, file: Any) -> None:
    """Raise BadRequest unless the content is what the Hub says: SHA-256 of large files, Git's SHA-1 of small ones."""
    if file.lfs is not None:
        right = workspace.sha256(path) == file.lfs.sha256
    else:
        content = path.read_bytes()
        # The hash of a blob in Git: of the word, the length and the content.
        git_hash = hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()
        right = git_hash == file.blob_id
    if not right:
        raise BadRequest(f"{name}: {path} is not what the Hub says (its hash differs); delete it and fetch it anew")


KINDS: dict[str, Callable[[str, str], Source]] = {"hf": _hub, "torchvision": _torchvision}
