"""Weights held against a network: what is missing, what is too much, what has another shape, and what would help."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipeline.errors import BadRequest
from pipeline.models.dialects import Dialect, shown

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from torch import Tensor

    from pipeline.models.resnet_spec import ResNetSpec

# What follows from the data and not from the architecture: the first kernel from the channels of the images, plain or
# deep, the last matrix from the classes.
STEMS = ("conv1.weight", "conv1.0.weight")
HEAD = ("fc.weight", "fc.bias")


@dataclass(frozen=True)
class Fit:
    """``expected`` tensors of the network by our names; ``given`` by those of the file, laid out as PyTorch does.

    ``named`` leads from ours to theirs; ``prefix`` stands before every name in the file; ``name`` is the file's.
    """

    name: str
    expected: Mapping[str, Tensor]
    given: Mapping[str, Tensor]
    named: Mapping[str, str]
    dialect: Dialect
    prefix: str = ""

    def refuse(self) -> None:
        """Raise BadRequest where anything differs: all of it, with the first five names of each kind."""
        their_names = set(self.named.values())
        lacking = [key for key in self.expected if self.named[key] not in self.given]
        extra = [key for key in self.given if key not in their_names]
        reshaped = []
        for key, value in self.expected.items():
            if key not in lacking and self._shape(key) != value.shape:
                reshaped.append(key)
        if not lacking and not extra and not reshaped:
            return
        differences = [*self._shapes(reshaped), *self._keys(lacking, extra)]
        cure = self._cure(lacking, extra, reshaped)
        raise BadRequest(f"{self.name}: {'; '.join([*differences, cure])}")

    def _shape(self, ours: str) -> tuple[int, ...]:
        """The shape that our parameter has in the file."""
        return tuple(self.given[self.named[ours]].shape)

    def _theirs(self, keys: list[str]) -> list[str]:
        """The whole names that our ``keys`` have, or would have, in the file."""
        return [f"{self.prefix}{self.named[key]}" for key in keys]

    def _shapes(self, reshaped: list[str]) -> Iterator[str]:
        """In words, the parameters of another shape."""
        if reshaped:
            first = reshaped[0]
            ours = tuple(self.expected[first].shape)
            theirs = self._shape(first)
            name = f"{self.prefix}{self.named[first]}"
            yield f"{name} has shape {ours} in the network and has shape {theirs} in the file"
        if len(reshaped) > 1:
            yield f"nor do the shapes fit of {shown(self._theirs(reshaped[1:]))}"

    def _keys(self, lacking: list[str], extra: list[str]) -> Iterator[str]:
        """In words, what is missing and what is too much."""
        statistics = [key for key in self.expected if key.endswith((".running_mean", ".running_var"))]
        if self.dialect.name == "flax" and statistics and set(statistics) <= set(lacking):
            yield (
                "it has params and no batch_stats, without which BatchNorm has no mean and variance; save both, as in "
                '{"params": …, "batch_stats": …}'
            )
            lacking = [key for key in lacking if key not in statistics]
        if lacking:
            yield f"the file lacks {len(lacking)} keys: {shown(self._theirs(lacking))}"
        if extra:
            names = [f"{self.prefix}{key}" for key in extra]
            yield f"the network has no place for {len(extra)} keys: {shown(names)}"

    def _cure(self, lacking: list[str], extra: list[str], reshaped: list[str]) -> str:
        """What would help: other data where only the ends differ, else an --arch that the file fits."""
        if set(lacking) <= set(HEAD) and not extra and set(reshaped) <= {*STEMS, *HEAD}:
            return "; ".join(self._ends(lacking, reshaped))

        archs = self._architectures()
        keys_are = f"its keys are {self.dialect.name}'s"
        if not archs:
            cure = "check how it was saved, or describe its network in a .toml file"
            return f"{keys_are}, of no --arch known here; {cure}"
        return f"{keys_are}, and the file fits --arch {' or '.join(archs)}{self._classes(archs[0])}"

    def _ends(self, lacking: list[str], reshaped: list[str]) -> Iterator[str]:
        """What to do about classifier and channels, where all between them fits."""
        if lacking:
            yield "a classifier is needed: give the checkpoint of the whole network"
        for key in STEMS:
            if key in reshaped:
                channels = self._shape(key)[1]  # of (out, in, H, W)
                yield f"the file takes {channels} channel(s): ask for --channels {channels}"
        for key in HEAD:
            if key in reshaped:
                theirs = self._shape(key)[0]
                ours = self.expected[key].shape[0]
                yield f"the file knows {theirs} classes and the data set {ours}: use the data it was trained on"
                break  # matrix and bias say the same

    def _architectures(self) -> list[str]:
        """The rows of the table that the file fits, stem and classifier aside."""
        from pipeline.models.specs import ARCHITECTURES

        fitting = []
        for arch, spec in ARCHITECTURES.items():
            if self.dialect.padding is not None and self.dialect.padding != spec.padding:
                continue
            # By depth first, which costs next to nothing: all shapes take the whole network on the meta device.
            if self._as_deep(spec) and self._fits(spec):
                fitting.append(arch)
        return fitting

    def _classes(self, arch: str) -> str:
        """In words, the classes of the file when it is read as ``arch``; empty where it has no classifier."""
        from pipeline.models.specs import ARCHITECTURES

        name = self.dialect.names(ARCHITECTURES[arch], ["fc.weight"])["fc.weight"]
        head = self.given.get(name)
        if head is None or head.ndim != 2:
            return ""
        return f" with {head.shape[0]} classes"

    def _as_deep(self, spec: ResNetSpec) -> bool:
        """Whether the last block of every stage is there and none behind it."""
        last_blocks = []
        for stage, depth in enumerate(spec.depths, start=1):
            last_blocks.append(f"layer{stage}.{depth - 1}.conv1.weight")
        stages = len(spec.depths)
        beyond = [f"layer{stages}.{spec.depths[-1]}.conv1.weight", f"layer{stages + 1}.0.conv1.weight"]

        named = self.dialect.names(spec, [*last_blocks, *beyond])
        if any(named[key] not in self.given for key in last_blocks):
            return False
        return all(named[key] not in self.given for key in beyond)

    def _fits(self, spec: ResNetSpec) -> bool:
        """Whether all between stem and classifier has the shapes of ``spec``."""
        shapes = _shapes_between_the_ends(spec)
        named = self.dialect.names(spec, [*shapes, *STEMS, *HEAD])
        ends = {named[key] for key in (*STEMS, *HEAD)}
        expected = {named[key]: shape for key, shape in shapes.items()}
        given = {key: tuple(value.shape) for key, value in self.given.items() if key not in ends}
        return expected == given


def _shapes_between_the_ends(spec: ResNetSpec) -> dict[str, tuple[int, ...]]:
    """By our names, the shapes of all parameters that neither classes nor channels change."""
    import torch

    from pipeline.models import networks

    # Classes and channels are any; on the meta device a network is made of shapes alone.
    with torch.device("meta"):
        network = networks.build(spec, 2, 3, (0.0,) * 3, (1.0,) * 3)
    ends = (*STEMS, *HEAD, "pixel_mean", "pixel_std")
    shapes = {}
    for key, value in network.state_dict().items():
        if key not in ends and not key.endswith("num_batches_tracked"):
            shapes[key] = tuple(value.shape)
    return shapes
