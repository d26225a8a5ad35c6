"""Checkpoints of Flax without JAX: MessagePack as flax.serialization writes it, and folders of Orbax."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pipeline.errors import BadRequest

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    from torch import Tensor

# Numbers of flax.serialization's extensions: an array, and a scalar of NumPy in the same form.
ARRAY = 1
SCALAR = 3
# What stands at the end of the key of an array, and the driver that reads it.
ARRAYS = {"/.zarray": "zarr", "/zarr.json": "zarr3"}


def msgpack(path: Path) -> Any:
    """The tree in ``path``, with tensors for arrays; raises BadRequest where it is no such file."""
    import msgpack

    try:
        return msgpack.unpackb(path.read_bytes(), ext_hook=_extension, strict_map_key=True)
    except (ValueError, TypeError, AttributeError, msgpack.exceptions.UnpackException) as error:
        raise BadRequest(
            f"--weights {path} is truncated, corrupted or no MessagePack of Flax ({error}); save it again by "
            "flax.serialization.to_bytes"
        ) from error


def _extension(code: int, data: bytes) -> Any:
    import msgpack
    import numpy as np

    if code not in {ARRAY, SCALAR}:
        return None
    shape, kind, content = msgpack.unpackb(data)
    return _tensor(np.frombuffer(content, _dtype(kind)).reshape(shape))


def _dtype(kind: str) -> np.dtype[Any]:
    import ml_dtypes
    import numpy as np

    return np.dtype(ml_dtypes.bfloat16) if kind == "bfloat16" else np.dtype(kind)


def _tensor(array: Any) -> Tensor:
    import numpy as np
    import torch

    # Of kind V is bfloat16, which torch does not take from NumPy.
    dtype = np.float32 if array.dtype.kind == "V" else None
    # A copy: what MessagePack has unpacked is read-only, and torch only takes what it may write to.
    return torch.from_numpy(np.array(array, dtype))


def orbax(path: Path) -> dict[str, Any]:
    """The tree in the folder ``path``; raises BadRequest where it holds no checkpoint, or several."""
    import tensorstore

    folder = _item(path).resolve()
    files = {"driver": "file", "path": f"{folder}/"}
    # Orbax writes all arrays into one database (OCDBT), or each into a folder of its own.
    is_database = (folder / "manifest.ocdbt").is_file()
    store = {"driver": "ocdbt", "base": files} if is_database else files
    tree: dict[str, Any] = {}
    try:
        keys = [key.decode() for key in tensorstore.KvStore.open(store).result().list().result()]
        for key in sorted(keys):
            name, slash, last = key.rpartition("/")
            driver = ARRAYS.get(slash + last)
            # An optimiser's state is as large as the weights, and of no use.
            if driver is None or name.startswith("opt_state"):
                continue
            # A path in the database is its key; a path of files goes on from the folder.
            array_path = f"{name}/" if is_database else f"{folder}/{name}/"
            spec = {"driver": driver, "kvstore": {**store, "path": array_path}}
            array = tensorstore.open(spec, open=True, read=True).result().read().result()
            _put(tree, name.split("."), _tensor(array))
    except (ValueError, TypeError, OSError) as error:
        raise BadRequest(f"--weights {path} is truncated or corrupted ({str(error)[:200]}); save it again") from error
    if not tree:
        raise BadRequest(f"--weights {path} holds no array; give the folder that orbax.checkpoint wrote")
    return tree


def _put(tree: dict[str, Any], path: list[str], value: Any) -> None:
    for part in path[:-1]:
        tree = tree.setdefault(part, {})
    tree[path[-1]] = value


def _item(path: Path) -> Path:
    """The folder that holds the arrays: ``path`` itself, or the one item in it that does."""
    children = sorted(path.iterdir())
    items = [folder for folder in (path, *children) if (folder / "_METADATA").is_file()]
    if len(items) == 1:
        return items[0]
    names = [item.name for item in items]
    if not names:
        # The steps of a CheckpointManager, of which one is to be given.
        names = [child.name for child in children if child.is_dir()][:5]
    has = ", ".join(names) or "nothing"
    raise BadRequest(f"--weights {path} is no single checkpoint of Orbax: it has {has}; give the folder of one")
