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

    from pipeline.models.resnet_spec import ResNetSpec


@dataclass(frozen=True)
class Dialect:
    """The names of modules, by default ours, which are torchvision's.

    In braces: ``stage`` from 1, ``after`` the one behind it, ``block`` from 0 in its stage, ``running`` from 0 in the
    network, ``n`` the number of a shortcut behind the convolutions of its block, ``end`` the stages plus one, ``last``
    plus three. ``prefix`` is before every name. ``leaves`` of convolutions and linear layers, ``norm_leaves`` of
    BatchNorm rename what a module holds; ``collections`` are before the prefix of what is trained and of statistics.
    ``channels_last`` says that kernels are (H, W, in, out) and matrices (in, out). ``padding`` is what such a network
    was trained under, which its weights cannot say; None: either. ``deep`` says that it has names for a stem of three
    convolutions and for a shortcut that averages.
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
        in_block = re.fullmatch(r"layer(\d+)\.(\d+)\.(.+)", ours)
        if in_block is None:
            templates = {"conv1": self.stem, "bn1": self.norm, "fc": self.head}
            # In the deep stem our name is theirs.
            return templates.get(ours, ours).format(end=stages + 1, last=stages + 3)

        stage = int(in_block[1])
        block = int(in_block[2])
        layer = in_block[3]
        if layer == "downsample.0":
            layer = self.shortcut[0]
        elif layer == "downsample.1":
            layer = self.shortcut[1]
        return f"{self.block}.{layer}".format(
            stage=stage,
            after=stage + 1,
            block=block,
            running=sum(spec.depths[: stage - 1]) + block,
            n=3 if spec.block == "basic" else 4,  # behind two convolutions, or three
        )

    def names(self, spec: ResNetSpec, ours: Iterable[str]) -> dict[str, str]:
        """Their name of each of our parameters, without the prefix."""
        ours = list(ours)
        # A BatchNorm and a convolution both have a weight, which Flax calls differently: running means tell them apart.
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
        trained, statistics = self.collections
        return statistics if ours.endswith((".running_mean", ".running_var")) else trained

    def laid_out(self, theirs: Tensor) -> Tensor:
        """Their tensor as PyTorch has it: kernels (out, in, H, W), matrices (out, in)."""
        return self._permuted(theirs, {4: (3, 2, 0, 1), 2: (1, 0)})

    def given_back(self, ours: Tensor) -> Tensor:
        """The inverse of :meth:`laid_out`."""
        return self._permuted(ours, {4: (2, 3, 1, 0), 2: (1, 0)})

    def _permuted(self, value: Tensor, orders: Mapping[int, tuple[int, ...]]) -> Tensor:
        """``value`` with its axes in the order for so many of them; vectors have but one order."""
        if not self.channels_last or value.ndim not in orders:
            return value
        return value.permute(orders[value.ndim]).contiguous()

    def pattern(self) -> re.Pattern[str]:
        """What its names look like, without the prefix."""
        layers = [r"(conv|bn)\d", _open(self.shortcut[0]), _open(self.shortcut[1])]
        modules = [_open(self.stem), _open(self.norm), _open(self.head)]
        if self.deep:
            layers.append(r"downsample\.\d")
            modules.append(r"conv1\.\d")
        modules.append(rf"{_open(self.block)}\.({'|'.join(layers)})")
        leaves = [self.leaves.get("weight", "weight"), "bias", "running_mean", "running_var"]
        leaves += self.norm_leaves.values()
        return re.compile(rf"({'|'.join(modules)})\.({'|'.join(leaves)})")


def _open(template: str) -> str:
    """The regular expression of all names that ``template`` gives: any number in the place of its braces."""
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
    dialect = _most_in(names)
    if dialect is not None:
        return dialect
    framework = _foreign(names)
    what = "is in no dialect that is known here"
    if framework is not None:
        what = f"looks like a checkpoint of {framework}"
    raise BadRequest(
        f"{name} {what} ({shown(names)}); {_beside(names)}{', '.join(DIALECTS)} are read: rename its keys, "
        "docs/checkpoints.md has the table"
    )


def _foreign(names: list[str]) -> str | None:
    """The framework of FOREIGN that one of ``names`` gives away."""
    for framework, pattern in FOREIGN.items():
        if any(re.search(pattern, key) for key in names):
            return framework
    return None


def _most_in(names: list[str]) -> Dialect | None:
    """The dialect with the most of ``names``, the first of several; None where it has less than half of them."""
    # torchvision's names are timm's too, and torchvision comes first.
    best = None
    most = 0
    for dialect in DIALECTS.values():
        pattern = dialect.pattern()
        count = sum(pattern.fullmatch(key) is not None for key in names)
        if count > most:
            best = dialect
            most = count
    return best if 2 * most >= len(names) else None


def _beside(names: list[str]) -> str:
    """What to do where a network stands beside something else, as a loss with weights of its own in Lightning."""
    parts = Counter(key.partition(".")[0] for key in names)
    largest = max(parts, key=lambda part: parts[part], default="")
    network = [key for key in names if key.startswith(f"{largest}.")]
    others = [key for key in names if not key.startswith(f"{largest}.")]
    dialect = _most_in([key.removeprefix(f"{largest}.") for key in network])
    if dialect is None:
        return ""
    return f"{largest}. has the keys of {dialect.name}, and beside it are {shown(others)}: save it alone; "


def shown(names: Iterable[str]) -> str:
    """The first five of ``names``."""
    names = list(names)
    if not names:
        return "no keys"
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return ", ".join(names[:5]) + more
