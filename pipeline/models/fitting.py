"""Weights held against a network: what is missing, what is too much, what has another shape, and what would help."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipeline.errors import BadRequest
from pipeline.models.dialects import Dialect, shown

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from torch import Tensor

    from pipeline.models.specs import ResNetSpec

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
        theirs = set(self.named.values())
        lacking = [key for key in self.expected if self.named[key] not in self.given]
        extra = [key for key in self.given if key not in theirs]
        other = [key for key in self.expected if key not in lacking and self._shape(key) != self.expected[key].shape]
        if lacking or extra or other:
            said = [*self._shapes(other), *self._keys(lacking, extra)]
            raise BadRequest(f"{self.name}: {'; '.join([*said, self._cure(lacking, extra, other)])}")

    def _shape(self, ours: str) -> tuple[int, ...]:
        return tuple(self.given[self.named[ours]].shape)

    def _shapes(self, other: list[str]) -> Iterator[str]:
        for key in other[:1]:
            yield (
                f"{self.prefix}{self.named[key]} has shape {tuple(self.expected[key].shape)} in the network and has "
                f"shape {self._shape(key)} in the file"
            )
        if len(other) > 1:
            yield f"nor do the shapes fit of {shown(f'{self.prefix}{self.named[key]}' for key in other[1:])}"

    def _keys(self, lacking: list[str], extra: list[str]) -> Iterator[str]:
        statistics = [key for key in self.expected if key.endswith((".running_mean", ".running_var"))]
        if self.dialect.name == "flax" and statistics and set(statistics) <= set(lacking):
            yield (
                "it has params and no batch_stats, without which BatchNorm has no mean and variance; save both, as in "
                '{"params": …, "batch_stats": …}'
            )
            lacking = [key for key in lacking if key not in statistics]
        if lacking:
            yield f"the file lacks {len(lacking)} keys: {shown(f'{self.prefix}{self.named[key]}' for key in lacking)}"
        if extra:
            yield f"the network has no place for {len(extra)} keys: {shown(f'{self.prefix}{key}' for key in extra)}"

    def _cure(self, lacking: list[str], extra: list[str], other: list[str]) -> str:
        ends = {*STEMS, *HEAD}
        if set(lacking) <= set(HEAD) and not extra and set(other) <= ends:
            return "; ".join(self._ends(lacking, other))
        fits = [arch for arch, spec in _known(self.dialect) if self._as_deep(spec) and self._fits(spec)]
        if not fits:
            whose = f"its keys are {self.dialect.name}'s, of no --arch known here"
            return f"{whose}; check how it was saved, or describe its network in a .toml file"
        head = self.given.get(self.dialect.names(_spec(fits[0]), ["fc.weight"])["fc.weight"])
        classes = f" with {head.shape[0]} classes" if head is not None and head.ndim == 2 else ""
        return f"its keys are {self.dialect.name}'s, and the file fits --arch {' or '.join(fits)}{classes}"

    def _ends(self, lacking: list[str], other: list[str]) -> Iterator[str]:
        if lacking:
            yield "a classifier is needed: give the checkpoint of the whole network"
        for key in STEMS:
            if key in other:
                yield f"the file takes {self._shape(key)[1]} channel(s): ask for --channels {self._shape(key)[1]}"
        if found := [key for key in other if key in HEAD]:
            theirs, ours = self._shape(found[0])[0], self.expected[found[0]].shape[0]
            yield f"the file knows {theirs} classes and the data set {ours}: use the data it was trained on"

    def _as_deep(self, spec: ResNetSpec) -> bool:
        """Whether the last block of every stage is there and none behind it: much faster than all shapes."""
        last = [f"layer{stage}.{depth - 1}.conv1.weight" for stage, depth in enumerate(spec.depths, start=1)]
        beyond = [f"layer{len(last)}.{spec.depths[-1]}.conv1.weight", f"layer{len(last) + 1}.0.conv1.weight"]
        named = self.dialect.names(spec, [*last, *beyond])
        return all(named[key] in self.given for key in last) and not any(named[key] in self.given for key in beyond)

    def _fits(self, spec: ResNetSpec) -> bool:
        """Whether all between stem and classifier has the shapes of ``spec``."""
        shapes = _body(spec)
        named = self.dialect.names(spec, [*shapes, *STEMS, *HEAD])
        ends = {named[key] for key in (*STEMS, *HEAD)}
        given = {key: tuple(value.shape) for key, value in self.given.items() if key not in ends}
        return {named[key]: shape for key, shape in shapes.items()} == given


def _known(dialect: Dialect) -> Iterable[tuple[str, ResNetSpec]]:
    from pipeline.models.specs import ARCHITECTURES

    return ((name, spec) for name, spec in ARCHITECTURES.items() if dialect.padding in {None, spec.padding})


def _spec(arch: str) -> ResNetSpec:
    from pipeline.models.specs import ARCHITECTURES

    return ARCHITECTURES[arch]


def _body(spec: ResNetSpec) -> dict[str, tuple[int, ...]]:
    import torch

    with torch.device("meta"):
        made = spec.network(2, 3, (0.0,) * 3, (1.0,) * 3).state_dict()
    ends = (*STEMS, *HEAD, "pixel_mean", "pixel_std")
    return {
        key: tuple(value.shape)
        for key, value in made.items()
        if key not in ends and not key.endswith("num_batches_tracked")
    }
