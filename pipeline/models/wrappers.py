"""What training scripts put around weights: containers, averaged copies, and prefixes of names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pipeline.errors import BadRequest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

# Where a checkpoint keeps its weights beside epochs and optimisers, the first of these that is there. Averaged weights
# (EMA) come first: they are what timm and torchvision publish of a run that has both.
AVERAGED = ("state_dict_ema", "model_ema", "ema_state_dict", "ema")
CONTAINERS = (*AVERAGED, "state_dict", "model_state_dict", "model_state", "model", "net", "network", "module")
# Flax keeps what is trained and the statistics of BatchNorm apart.
COLLECTIONS = ("params", "batch_stats")
# Components that torch.compile, FSDP and Flax put into names.
INSIDE = {"_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module", *COLLECTIONS}
# What counts batches or averages, and computes nothing.
COUNTERS = ("num_batches_tracked", "n_averaged")
DEEPEST = 32


def unwrap(tree: Any, name: str, chosen: str | None = None) -> tuple[dict[str, Tensor], str]:
    """The weights in ``tree`` by name, and in words where they were; ``chosen`` names the container to open.

    Raises BadRequest where there are none, or something else is among them.
    """
    if chosen is not None:
        if not isinstance(tree, Mapping) or not isinstance(tree.get(chosen), Mapping):
            held = ", ".join(key for key in CONTAINERS if isinstance(tree, Mapping) and key in tree) or "none"
            raise BadRequest(f"{name} holds no {chosen}; of containers it has: {held}")
        tree = tree[chosen]
    where, aside = [chosen] if chosen else [], []
    while isinstance(tree, Mapping) and "params" not in tree:
        found = [key for key in CONTAINERS if isinstance(tree.get(key), Mapping)]
        if not found:
            break
        where.append(found[0])
        aside += found[1:]
        tree = tree[found[0]]
    weights = dict(_leaves({key: tree[key] for key in COLLECTIONS if key in tree} if "params" in tree else tree, name))
    return weights, f"its {'.'.join(where)}{', not its ' + ', '.join(aside) if aside else ''}" if where else ""


def _leaves(tree: Any, name: str, path: tuple[str, ...] = ()) -> Iterator[tuple[str, Tensor]]:
    if isinstance(tree, Mapping) and len(path) < DEEPEST:
        for key, value in tree.items():
            yield from _leaves(value, name, (*path, key))
    elif path and all(isinstance(key, str) for key in path) and _plain(tree):
        yield ".".join(path), tree
    else:
        raise BadRequest(f"{name} is no state_dict of tensors; save network.state_dict() and give that")


def _plain(value: object) -> bool:
    import torch

    if not isinstance(value, torch.Tensor):
        return False
    return value.layout == torch.strided and not value.is_complex() and not value.is_quantized


def bare(weights: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], str]:
    """``weights`` without counters and without what all names begin with, and that prefix (``module.``, or none)."""
    names = {
        key: [part for part in key.replace("/", ".").split(".") if part not in INSIDE]
        for key in weights
        if key.rpartition(".")[2] not in COUNTERS
    }
    prefix = ""
    while all(len(parts) > 1 for parts in names.values()) and len(first := {parts[0] for parts in names.values()}) == 1:
        prefix += f"{first.pop()}."
        names = {key: parts[1:] for key, parts in names.items()}
    return {".".join(parts): weights[key] for key, parts in names.items()}, prefix
