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
    from pipeline.models.resnet_spec import ResNetSpec


# What a checkpoint is taken for whose names do not show it.
DEFAULT_CLASSES = 1000
DEFAULT_CHANNELS = 3


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
    tensors, where = checkpoint.unwrapped(source.path, source.container)
    bare, prefix = wrappers.bare(tensors, source.name)
    return Opened(source.name, tensors, bare, prefix, where)


def fit(file: Opened, spec: ResNetSpec, expected: Mapping[str, Tensor]) -> tuple[Fit, str]:
    """The weights of ``file`` for a network that expects these tensors, and what they are, in words.

    Raises BadRequest where they are of no dialect, or were trained under another padding than that of ``spec``.
    """
    dialect = dialects.recognised(file.bare, file.name)
    given = {name: dialect.laid_out(value) for name, value in file.bare.items()}
    fitted = Fit(file.name, expected, given, dialect.names(spec, expected), dialect, file.prefix)
    if dialect.padding not in {None, spec.padding}:
        fitted.refuse()  # where shapes differ too, they say which network it is
    refuse(dialect, spec, f"{file.name} has the keys of {dialect.name}")

    # Every file of a dialect has its prefix: only what stands before that one is worth a word.
    wrapped_in = file.prefix.removesuffix(dialect.prefix)
    return fitted, _described(f"in the dialect of {dialect.name}", file, wrapped_in)


def _described(names: str, file: Opened, prefix: str) -> str:
    """How the weights are named, where in the file they were, and what was taken off their names; for a person."""
    words = [names]
    if file.where:
        words.append(file.where)
    if prefix:
        words.append(f"without {prefix}")
    return ", ".join(words)


def refuse(dialect: Dialect, spec: ResNetSpec, sentence: str) -> None:
    """Raise BadRequest where networks of ``dialect`` pad in another way, which their weights cannot show."""
    from pipeline.models.specs import ARCHITECTURES

    if dialect.padding is None or dialect.padding == spec.padding:
        return
    padded_alike = replace(spec, padding=dialect.padding)
    cure = f"padding = {dialect.padding!r} in a .toml file is such a network"
    for arch, row in ARCHITECTURES.items():
        if row == padded_alike:
            cure = f"take --arch {arch}"
            break
    raise BadRequest(
        f"{sentence}, whose networks have {dialect.padding!r} padding, and --arch has {spec.padding!r}: shapes are the "
        f"same and answers are not; {cure}"
    )


def fit_user_network(file: Opened, expected: Mapping[str, Tensor]) -> tuple[Fit, str]:
    """The weights of ``file`` for a network of the user's code, and what they are, in words.

    Such a network has names of its own; only what stands before all of them is taken off.
    """
    tensors = file.tensors
    prefix = ""
    # The longest names of which one fits: a network may itself have all of its modules in one.
    for with_shorter_names, taken_off in wrappers.stripped(file.tensors):
        if set(with_shorter_names) & set(expected):
            tensors = with_shorter_names
            prefix = taken_off
            break
    same_names = {name: name for name in expected}
    fitted = Fit(file.name, expected, tensors, same_names, DIALECTS["torchvision"], prefix)
    return fitted, _described("under the network's own names", file, prefix)


def ends(file: Opened, spec: ResNetSpec) -> tuple[int, int]:
    """Classes and channels of the network that ``file`` is of; 1000 and 3 where it does not show them."""
    dialect = dialects.recognised(file.bare, file.name)
    stem = "conv1.0.weight" if spec.stem == "deep" else "conv1.weight"
    named = dialect.names(spec, (stem, "fc.weight"))

    classes = DEFAULT_CLASSES
    head_weight = file.bare.get(named["fc.weight"])
    if head_weight is not None and head_weight.ndim == 2:  # (classes, features)
        classes = dialect.laid_out(head_weight).shape[0] or DEFAULT_CLASSES

    channels = DEFAULT_CHANNELS
    stem_kernel = file.bare.get(named[stem])
    if stem_kernel is not None and stem_kernel.ndim == 4:  # (out, in, H, W)
        channels = dialect.laid_out(stem_kernel).shape[1] or DEFAULT_CHANNELS
    return classes, channels


def back(dialect: Dialect, spec: ResNetSpec, ours: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Our weights under the names and in the layout of ``dialect``; raises BadRequest where it has no such network."""
    if not dialect.deep and (spec.stem == "deep" or spec.shortcut_pool):
        raise BadRequest(f"{dialect.name} has no names for a stem of three convolutions; take --to timm")
    refuse(dialect, spec, f"--to {dialect.name}")
    theirs = {}
    for our_name, their_name in dialect.names(spec, ours).items():
        full_name = dialect.collection(our_name) + dialect.prefix + their_name
        theirs[full_name] = dialect.given_back(ours[our_name]).contiguous()
    return theirs
