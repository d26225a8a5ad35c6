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
    for _ in range(DEEPEST):
        found = [key for key in CONTAINERS if isinstance(tree, Mapping) and isinstance(tree.get(key), Mapping)]
        if not found or "params" in tree:
            break
        where.append(found[0])
        aside += found[1:]
        tree = tree[found[0]]
    if isinstance(tree, Mapping) and isinstance(tree.get("params"), Mapping):
        tree = {key: tree[key] for key in COLLECTIONS if key in tree}
    weights = dict(_leaves(tree, name, set()))
    return weights, f"its {'.'.join(where)}{', not its ' + ', '.join(aside) if aside else ''}" if where else ""


def _leaves(tree: Any, name: str, seen: set[int], path: tuple[str, ...] = ()) -> Iterator[tuple[str, Tensor]]:
    if isinstance(tree, Mapping) and len(path) < DEEPEST and id(tree) not in seen:
        seen.add(id(tree))  # a pickle can hold itself, or one part in many places
        for key, value in tree.items():
            yield from _leaves(value, name, seen, (*path, key))
    elif path and all(isinstance(key, str) for key in path) and _plain(tree):
        yield ".".join(path), tree
    else:
        raise BadRequest(f"{name} is no state_dict of tensors; save network.state_dict() and give that")


def _plain(value: object) -> bool:
    import torch

    if not isinstance(value, torch.Tensor):
        return False
    return value.layout == torch.strided and not value.is_complex() and not value.is_quantized


def bare(weights: Mapping[str, Tensor], name: str) -> tuple[dict[str, Tensor], str]:
    """``weights`` without counters and without what all names begin with, and that prefix (``module.``, or none).

    Raises BadRequest where two then have the same name.
    """
    cleaned = {}
    for key, value in weights.items():
        short = ".".join(part for part in key.replace("/", ".").split(".") if part not in INSIDE)
        if short in cleaned:
            raise BadRequest(f"{name} holds {short} twice, once as {key}; save one network alone")
        cleaned[short] = value
    *_, shortest = stripped(cleaned)
    return shortest


def stripped(weights: Mapping[str, Tensor]) -> Iterator[tuple[dict[str, Tensor], str]]:
    """``weights`` without counters, then without the first parts that all names share, one after the other."""
    found = {key: value for key, value in weights.items() if key.rpartition(".")[2] not in COUNTERS}
    prefix = ""
    yield found, prefix
    while len(first := {key.partition(".")[0] for key in found}) == 1 and all("." in key for key in found):
        prefix += f"{first.pop()}."
        found = {key.partition(".")[2]: value for key, value in found.items()}
        yield found, prefix
