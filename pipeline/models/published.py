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
    """A file or folder that is here: ``name`` for errors, ``said`` for reports, and the container to open, if any."""

    path: Path
    name: str
    said: str
    chosen: str | None = None


def source(asked: str, arch: str) -> Source:
    """What ``asked`` names, fetched and proven where it is elsewhere; raises BadRequest where it cannot be had."""
    kind, colon, rest = asked.partition(":")
    if colon and kind in KINDS and not Path(asked).exists():
        return KINDS[kind](rest, arch)
    path, sharp, chosen = asked.rpartition("#")
    if not sharp or Path(asked).exists():
        path, chosen = asked, ""
    digest = f" (SHA-256 {workspace.sha256(Path(path))})" if Path(path).is_file() else ""
    return Source(Path(path), f"--weights {asked}", f"{path}{digest}", chosen or None)


def _torchvision(row: str, arch: str) -> Source:
    name = f"--weights torchvision:{row}"
    if arch not in PUBLISHED.get(row, {}):
        rows = [each for each, archs in PUBLISHED.items() if arch in archs]
        cure = f"take {' or '.join(rows)}" if rows else "it publishes none for this one"
        raise BadRequest(f"{name}: torchvision publishes no such weights of --arch {arch}; {cure}")
    digits = PUBLISHED[row][arch]
    path = fetch.cache("torchvision") / f"{arch}-{digits}.pth"

    def proven(file: Path) -> None:
        if not workspace.sha256(file).startswith(digits):
            cure = f"delete {path} and fetch it anew" if path.exists() else "ask another server"
            raise BadRequest(f"{name}: {path.name} is not what torchvision published (its hash differs); {cure}")

    if path.is_file():
        proven(path)
    else:
        url = os.environ.get(MIRROR, URL).rstrip("/") + f"/{path.name}"
        fetch.fetch(url, path, MOST_BYTES, proven, f"{name}: give the file itself, or a mirror in {MIRROR}")
    return Source(path, name, f"torchvision's {row}, {path.name} (SHA-256 {workspace.sha256(path)})")


def _hub(asked: str, _: str) -> Source:
    """One .safetensors file of a model: its commit is pinned first, and its content held against the Hub's hash."""
    name = f"--weights hf:{asked}"
    if (found := HUB.fullmatch(asked)) is None:
        raise BadRequest(f"{name}: write it as hf:OWNER/NAME[@REVISION][/FILE.safetensors]")
    repository, revision, file = found.groups()
    # Nothing about the user is sent along.
    os.environ |= {"HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    import huggingface_hub

    try:
        model = huggingface_hub.HfApi().model_info(repository, revision=revision, files_metadata=True)
        part = _chosen(name, model, file)
        kept = huggingface_hub.hf_hub_download(repository, part.rfilename, revision=model.sha)
    except BadRequest:
        raise
    except Exception as error:  # whatever its HTTP client raises
        raise BadRequest(
            f"{name} could not be fetched ({' '.join(str(error).split())[:200]}); check the name and the network, or "
            "give a file"
        ) from error
    path = Path(kept)
    _prove(name, path, part)
    said = f"hf:{repository} at revision {model.sha}, {part.rfilename} (SHA-256 {workspace.sha256(path)})"
    return Source(path, name, said)


def _chosen(name: str, model: Any, asked: str | None) -> Any:
    """The file that is asked for, or the one there is; raises BadRequest where it is none, or of no known commit."""
    if model.sha is None:
        raise BadRequest(f"{name}: the Hub tells no commit of it, so nothing can be pinned; give a file")
    files = {each.rfilename: each for each in model.siblings or ()}
    tensors = [file for file in files if file.endswith(".safetensors") and ".." not in file]
    for choice in (asked, "model.safetensors", *(tensors if len(tensors) == 1 else ())):
        if choice in tensors and asked in {None, choice}:
            return files[choice]
    has = ", ".join(tensors[:5]) or "none, and pickles are not read from there"
    raise BadRequest(f"{name}: {asked or 'one file'} was asked for; of .safetensors files that model has: {has}")


def _prove(name: str, path: Path, part: Any) -> None:
    """Raise BadRequest unless the content is what the Hub says: SHA-256 of large files, Git's SHA-1 of small ones."""
    content = path.read_bytes() if part.lfs is None else b""
    git = hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()
    right = git == part.blob_id if part.lfs is None else workspace.sha256(path) == part.lfs.sha256
    if not right:
        raise BadRequest(f"{name}: {path} is not what the Hub says (its hash differs); delete it and fetch it anew")


KINDS: dict[str, Callable[[str, str], Source]] = {"hf": _hub, "torchvision": _torchvision}
