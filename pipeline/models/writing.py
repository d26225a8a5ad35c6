"""Tensors by name into the files that frameworks read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pipeline.errors import BadRequest
from pipeline.models.flax_files import ARRAY

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from torch import Tensor


def _safetensors(tensors: Mapping[str, Tensor], path: Path) -> None:
    import safetensors.torch

    path.write_bytes(safetensors.torch.save(dict(tensors)))


def _pickled(tensors: Mapping[str, Tensor], path: Path) -> None:
    import torch

    torch.save(dict(tensors), path)


def _msgpack(tensors: Mapping[str, Tensor], path: Path) -> None:
    """As flax.serialization.msgpack_restore reads it: a tree along the dots of the names."""
    import msgpack

    tree: dict[str, Any] = {}
    for key, value in tensors.items():
        *parts, leaf = key.split(".")
        node = tree
        for part in parts:
            node = node.setdefault(part, {})
        # Narrow types as float32, which holds every number of theirs; NumPy has no bfloat16.
        wide = value.float() if value.dtype.itemsize < 4 else value
        array = wide.numpy()
        content = msgpack.packb((array.shape, array.dtype.name, array.tobytes()))
        node[leaf] = msgpack.ExtType(ARRAY, content)
    path.write_bytes(msgpack.packb(tree))


WRITERS: dict[str, Callable[[Mapping[str, Tensor], Path], None]] = {
    ".safetensors": _safetensors,
    ".pth": _pickled,
    ".pt": _pickled,
    ".msgpack": _msgpack,
}


def write(tensors: Mapping[str, Tensor], path: Path) -> None:
    """All of ``tensors`` into ``path``, whose suffix says how."""
    WRITERS[path.suffix](tensors, path)


def refuse(path: Path, dialect: str) -> None:
    """Raise BadRequest where no such file can be written to ``path``."""
    if path.suffix not in WRITERS:
        raise BadRequest(f"convert {path}: only {', '.join(WRITERS)} files are written, not {path.suffix or 'this'}")
    if path.suffix == ".msgpack" and dialect != "flax":
        raise BadRequest(f"convert {path}: only Flax reads .msgpack; add --to flax, or take .safetensors")
    if not path.parent.is_dir() or path.is_dir():
        raise BadRequest(f"convert {path}: name a file in a folder that is there")
