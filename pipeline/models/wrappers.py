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


def unwrap(tree: Any, name: str, container: str | None = None) -> tuple[dict[str, Tensor], str]:
    """The weights in ``tree`` by name, and in words where they were; ``container`` names the one to open.

    Raises BadRequest where there are none, or something else is among them.
    """
    opened: list[str] = []
    left_aside: list[str] = []
    if container is not None:
        tree = _named_container(tree, name, container)
        opened.append(container)

    for _ in range(DEEPEST):
        inside = [key for key in CONTAINERS if _is_tree(tree, key)]
        # Where "params" is, Flax's own tree begins, and it is opened below.
        if not inside or "params" in tree:
            break
        opened.append(inside[0])
        left_aside += inside[1:]
        tree = tree[inside[0]]

    if _is_tree(tree, "params"):
        tree = {key: tree[key] for key in COLLECTIONS if key in tree}
    weights = dict(_leaves(tree, name, set()))
    if not opened:
        return weights, ""
    where = f"its {'.'.join(opened)}"
    if left_aside:
        where += f", not its {', '.join(left_aside)}"
    return weights, where


def _is_tree(tree: Any, key: str) -> bool:
    """Whether ``tree`` has names and tensors, or trees of them, under ``key``."""
    return isinstance(tree, Mapping) and isinstance(tree.get(key), Mapping)


def _named_container(tree: Any, name: str, container: str) -> Any:
    if _is_tree(tree, container):
        return tree[container]
    known = [key for key in CONTAINERS if isinstance(tree, Mapping) and key in tree]
    raise BadRequest(f"{name} holds no {container}; of containers it has: {', '.join(known) or 'none'}")


def _leaves(tree: Any, name: str, seen: set[int], path: tuple[str, ...] = ()) -> Iterator[tuple[str, Tensor]]:
    """Every tensor below ``tree`` by the names on the way, joined by dots; ``seen`` are the identities of its trees.

    Raises BadRequest where anything else is there. A pickle can hold itself, or one part in many places: a tree that
    was seen, or lies too deep, is taken for such a thing.
    """
    if isinstance(tree, Mapping) and len(path) < DEEPEST and id(tree) not in seen:
        seen.add(id(tree))
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
    cleaned: dict[str, Tensor] = {}
    for key, value in weights.items():
        parts = key.replace("/", ".").split(".")  # Flax's names come with either
        short = ".".join(part for part in parts if part not in INSIDE)
        if short in cleaned:
            raise BadRequest(f"{name} holds {short} twice, once as {key}; save one network alone")
        cleaned[short] = value
    *_, shortest = stripped(cleaned)
    return shortest


def stripped(weights: Mapping[str, Tensor]) -> Iterator[tuple[dict[str, Tensor], str]]:
    """``weights`` without counters, then without the first parts that all names share, one after the other."""
    remaining = without_counters(weights)
    prefix = ""
    yield remaining, prefix
    while remaining and all("." in key for key in remaining):
        first_parts = {key.partition(".")[0] for key in remaining}
        if len(first_parts) > 1:
            return
        prefix += f"{first_parts.pop()}."
        remaining = {key.partition(".")[2]: value for key, value in remaining.items()}
        yield remaining, prefix


def without_counters(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """``weights`` without what counts batches or averages."""
    kept = {}
    for key, value in weights.items():
        leaf = key.rpartition(".")[2]
        if leaf not in COUNTERS:
            kept[key] = value
    return kept
