"""How other frameworks name and lay out the same weights: one row a dialect, read in both directions."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from pipeline.errors import BadRequest

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from torch import Tensor

    from pipeline.models.specs import ResNetSpec


@dataclass(frozen=True)
class Dialect:
    """The names of modules, by default ours, which are torchvision's.

    In braces: ``stage`` from 1, ``after`` the one behind it, ``block`` from 0 in its stage, ``running`` from 0 in the
    network, ``n`` the number of a shortcut behind the convolutions of its block, ``end`` the stages plus one, ``last``
    plus three. ``prefix`` is before every name. ``leaves`` of convolutions and linear layers, ``norm_leaves`` of
    BatchNorm rename what a module holds; ``collections`` are before the prefix of what is trained and of statistics.
    ``channels_last`` says that kernels are (H, W, in, out) and matrices
    (in, out). ``padding`` is what such a network was trained under, which its weights cannot say; None: either.
    ``deep`` says that it has names for a stem of three convolutions and for a shortcut that averages.
    """

    name: str
    prefix: str = ""
    stem: str = "conv1"
    norm: str = "bn1"
    block: str = "layer{stage}.{block}"
    shortcut: tuple[str, str] = ("downsample.0", "downsample.1")
    head: str = "fc"
    leaves: Mapping[str, str] = field(default_factory=dict)
    norm_leaves: Mapping[str, str] = field(default_factory=dict)
    collections: tuple[str, str] | None = None
    channels_last: bool = False
    padding: Literal["symmetric", "same"] | None = None
    deep: bool = False

    def module(self, spec: ResNetSpec, ours: str) -> str:
        """Their name of our module, without the prefix."""
        stages = len(spec.depths)
        found = re.fullmatch(r"layer(\d+)\.(\d+)\.(.+)", ours)
        if found is None:
            name = {"conv1": self.stem, "bn1": self.norm, "fc": self.head}.get(ours, ours)
            return name.format(end=stages + 1, last=stages + 3)
        stage, block, layer = int(found[1]), int(found[2]), found[3]
        layer = dict(zip(("downsample.0", "downsample.1"), self.shortcut, strict=True)).get(layer, layer)
        return f"{self.block}.{layer}".format(
            stage=stage,
            after=stage + 1,
            block=block,
            running=sum(spec.depths[: stage - 1]) + block,
            n=3 if spec.block == "basic" else 4,
        )

    def names(self, spec: ResNetSpec, ours: Iterable[str]) -> dict[str, str]:
        """Their name of each of our parameters, without the prefix."""
        ours = list(ours)
        norms = {key.rpartition(".")[0] for key in ours if key.endswith(".running_mean")}
        named = {}
        for key in ours:
            module, _, leaf = key.rpartition(".")
            leaves = self.norm_leaves if module in norms else self.leaves
            named[key] = f"{self.module(spec, module)}.{leaves.get(leaf, leaf)}"
        return named

    def collection(self, ours: str) -> str:
        """The first part of the full name of our parameter, where they keep statistics apart."""
        if not self.collections:
            return ""
        return self.collections[ours.endswith((".running_mean", ".running_var"))]

    def laid_out(self, theirs: Tensor) -> Tensor:
        """Their tensor as PyTorch has it: kernels (out, in, H, W), matrices (out, in)."""
        order = {4: (3, 2, 0, 1), 2: (1, 0)}.get(theirs.ndim) if self.channels_last else None
        return theirs.permute(order).contiguous() if order else theirs

    def given_back(self, ours: Tensor) -> Tensor:
        """The inverse of :meth:`laid_out`."""
        order = {4: (2, 3, 1, 0), 2: (1, 0)}.get(ours.ndim) if self.channels_last else None
        return ours.permute(order).contiguous() if order else ours

    def pattern(self) -> re.Pattern[str]:
        """What its names look like, without the prefix."""
        layers = [r"(conv|bn)\d", *map(_open, self.shortcut), *[r"downsample\.\d"] * self.deep]
        modules = [_open(self.stem), _open(self.norm), _open(self.head), rf"{_open(self.block)}\.({'|'.join(layers)})"]
        modules += [r"conv1\.\d"] * self.deep
        leaves = [self.leaves.get("weight", "weight"), "bias", "running_mean", "running_var"]
        leaves += self.norm_leaves.values()
        return re.compile(rf"({'|'.join(modules)})\.({'|'.join(leaves)})")


def _open(template: str) -> str:
    return re.sub(r"\\\{\w+\\\}", r"\\d+", re.escape(template))


DIALECTS = {
    row.name: row
    for row in (
        Dialect("torchvision"),
        # The same names, and more of them.
        Dialect("timm", deep=True),
        # Dive into Deep Learning in PyTorch: the class of its later editions, and the plain Sequential of the first.
        Dialect(
            "d2l",
            prefix="net.",
            stem="0.0",
            norm="0.1",
            block="b{after}.{block}",
            shortcut=("conv{n}", "bn{n}"),
            head="last.2",
            padding="symmetric",
        ),
        Dialect(
            "d2l-sequential",
            stem="0.0",
            norm="0.1",
            block="{stage}.{block}",
            shortcut=("conv{n}", "bn{n}"),
            head="{last}",
            padding="symmetric",
        ),
        # labml's ResNetBase, and the linear layer that its experiment puts behind it.
        Dialect(
            "labml",
            stem="0.conv",
            norm="0.bn",
            block="0.blocks.{running}",
            shortcut=("shortcut.conv", "shortcut.bn"),
            head="1",
            padding="symmetric",
        ),
        # Dive into Deep Learning in JAX; Flax Linen names a layer of a Sequential by its place.
        Dialect(
            "flax",
            prefix="net.",
            stem="layers_0.layers_0",
            norm="layers_0.layers_1",
            block="layers_{stage}.layers_{block}",
            shortcut=("conv{n}", "bn{n}"),
            head="layers_{end}.layers_2",
            leaves={"weight": "kernel"},
            norm_leaves={"weight": "scale", "running_mean": "mean", "running_var": "var"},
            collections=("params.", "batch_stats."),
            channels_last=True,
            padding="same",
        ),
    )
}

# Told by name, and not read: what a name of each looks like.
FOREIGN = {
    "Hugging Face transformers": r"(embedder\.embedder|encoder\.stages\.\d+)\.",
    "Detectron2": r"\b(stem\.conv1|res\d\.\d+)\.",
    "Flax's ImageNet example": r"\b(conv_init|\w*ResNetBlock_\d+)\.",
    "torchvision's detection models": r"\bbody\.(conv1|layer\d)",
    "a vision transformer": r"\d+\.(attn|attention|self_attention)\b",
}


def recognised(names: Iterable[str], name: str) -> Dialect:
    """The dialect that most of ``names`` are in, without their prefix; raises BadRequest where that is none."""
    names = list(names)
    if found := _most(names):
        return found
    looks = next((said for said, mark in FOREIGN.items() if any(re.search(mark, each) for each in names)), None)
    like = f"looks like a checkpoint of {looks}" if looks else "is in no dialect that is known here"
    raise BadRequest(
        f"{name} {like} ({shown(names)}); {_beside(names)}{', '.join(DIALECTS)} are read: rename its keys, "
        "docs/checkpoints.md has the table"
    )


def _most(names: list[str]) -> Dialect | None:
    counts = {row.name: sum(map(bool, map(row.pattern().fullmatch, names))) for row in DIALECTS.values()}
    best = max(counts, key=lambda row: counts[row])
    return DIALECTS[best] if 2 * counts[best] >= max(1, len(names)) else None


def _beside(names: list[str]) -> str:
    """What to do where a network stands beside something else, as a loss with weights of its own in Lightning."""
    parts = Counter(each.partition(".")[0] for each in names)
    first = max(parts, key=lambda part: parts[part], default="")
    found = _most([each.removeprefix(f"{first}.") for each in names if each.startswith(f"{first}.")])
    others = shown(each for each in names if not each.startswith(f"{first}."))
    return f"{first}. has the keys of {found.name}, and beside it are {others}: save it alone; " if found else ""


def shown(names: Iterable[str]) -> str:
    """The first five of ``names``."""
    names = list(names)
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "") if names else "no keys"
