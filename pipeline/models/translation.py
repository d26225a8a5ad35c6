"""A checkpoint of any dialect as weights under our names, and ours as a checkpoint of any dialect."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from pipeline.errors import BadRequest
from pipeline.models import checkpoint, dialects, wrappers
from pipeline.models.dialects import DIALECTS
from pipeline.models.fitting import Fit

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from pipeline.models.dialects import Dialect
    from pipeline.models.published import Source
    from pipeline.models.specs import ResNetSpec


@dataclass(frozen=True)
class Opened:
    """A checkpoint: ``tensors`` by the names in it, those by their ``bare`` names behind ``prefix``, and ``where``."""

    name: str
    tensors: dict[str, Tensor]
    bare: dict[str, Tensor]
    prefix: str
    where: str


def opened(source: Source) -> Opened:
    """The checkpoint of ``source``; raises BadRequest where it is none."""
    tensors, where = checkpoint.unwrapped(source.path, source.chosen)
    return Opened(source.name, tensors, *wrappers.bare(tensors, source.name), where)


def fit(found: Opened, spec: ResNetSpec, expected: Mapping[str, Tensor]) -> tuple[Fit, str]:
    """The weights of ``found`` for a network that expects these tensors, and what they are, in words.

    Raises BadRequest where they are of no dialect, or were trained under another padding than that of ``spec``.
    """
    dialect = dialects.recognised(found.bare, found.name)
    laid = {key: dialect.laid_out(value) for key, value in found.bare.items()}
    made = Fit(found.name, expected, laid, dialect.names(spec, expected), dialect, found.prefix)
    if dialect.padding not in {None, spec.padding}:
        made.refuse()  # where shapes differ too, they say which network it is
    refuse(dialect, spec, f"{found.name} has the keys of {dialect.name}")
    return made, _said(f"in the dialect of {dialect.name}", found, found.prefix.removesuffix(dialect.prefix))


def _said(what: str, found: Opened, prefix: str) -> str:
    return ", ".join(filter(None, [what, found.where, prefix and f"without {prefix}"]))


def refuse(dialect: Dialect, spec: ResNetSpec, sentence: str) -> None:
    """Raise BadRequest where networks of ``dialect`` pad in another way, which their weights cannot show."""
    from pipeline.models.specs import ARCHITECTURES

    if dialect.padding in {None, spec.padding}:
        return
    other = replace(spec, padding=dialect.padding)
    fits = [name for name, row in ARCHITECTURES.items() if row == other]
    cure = f"take --arch {fits[0]}" if fits else f"padding = {dialect.padding!r} in a .toml file is such a network"
    raise BadRequest(
        f"{sentence}, whose networks have {dialect.padding!r} padding, and --arch has {spec.padding!r}: shapes are the "
        f"same and answers are not; {cure}"
    )


def own(found: Opened, expected: Mapping[str, Tensor]) -> tuple[Fit, str]:
    """Someone's own network has its own names; only what stands before all of them is taken off."""
    tensors, before = next(
        (each for each in wrappers.stripped(found.tensors) if set(each[0]) & set(expected)), (found.tensors, "")
    )
    same = {key: key for key in expected}
    said = _said("under the network's own names", found, before)
    return Fit(found.name, expected, tensors, same, DIALECTS["torchvision"], before), said


def ends(found: Opened, spec: ResNetSpec) -> tuple[int, int]:
    """Classes and channels of the network that ``found`` is of; 1000 and 3 where it does not show them."""
    dialect = dialects.recognised(found.bare, found.name)
    stem = "conv1.0.weight" if spec.stem == "deep" else "conv1.weight"
    named = dialect.names(spec, (stem, "fc.weight")).values()
    first, last = (dialect.laid_out(found.bare[key]).shape if key in found.bare else () for key in named)
    return (last[0] if len(last) == 2 else 0) or 1000, (first[1] if len(first) == 4 else 0) or 3


def back(dialect: Dialect, spec: ResNetSpec, ours: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Our weights under the names and in the layout of ``dialect``; raises BadRequest where it has no such network."""
    if not dialect.deep and (spec.stem == "deep" or spec.shortcut_pool):
        raise BadRequest(f"{dialect.name} has no names for a stem of three convolutions; take --to timm")
    refuse(dialect, spec, f"--to {dialect.name}")
    named = dialect.names(spec, ours)
    full = {key: dialect.collection(key) + dialect.prefix + theirs for key, theirs in named.items()}
    return {full[key]: dialect.given_back(value).contiguous() for key, value in ours.items()}
