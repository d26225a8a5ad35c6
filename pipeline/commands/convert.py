"""``python -m pipeline convert SRC DST --arch NAME``: the same weights under the names of another framework."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline import workspace
from pipeline.errors import BadRequest, Exit, StageFailed
from pipeline.models import checkpoint, networks, published, specs, translation, writing
from pipeline.models.dialects import DIALECTS
from pipeline.models.resnet_spec import ResNetSpec

if TYPE_CHECKING:
    import argparse

    from torch import Tensor

    from pipeline.models.fitting import Fit
    from pipeline.models.published import Source

HELP = "write a checkpoint of one framework as another names and lays it out"
EXAMPLES = """examples:
  python -m pipeline convert flax.msgpack torch.safetensors --arch d2l_jax_resnet18
  python -m pipeline convert 01-freeze.safetensors flax.msgpack --arch d2l_jax_resnet18 --to flax
  python -m pipeline convert hf:timm/resnet50.a1_in1k resnet50.pth --arch resnet50
"""


def add_flags(parser: argparse.ArgumentParser) -> None:
    """The flags of this command."""
    parser.add_argument("source", metavar="SRC", help="all that build takes as --weights")
    parser.add_argument("destination", metavar="DST", type=Path, help=f"a file: {', '.join(writing.WRITERS)}")
    parser.add_argument("--arch", required=True, help="the network, as for build")
    parser.add_argument("--to", choices=tuple(DIALECTS), default="torchvision", help="(default: torchvision)")


def run(arguments: argparse.Namespace) -> int:
    """Exit 0 once the file was read back and holds every number as it was."""
    destination = arguments.destination
    dialect = DIALECTS[arguments.to]
    writing.refuse(destination, dialect.name)
    arch, spec = specs.find(arguments.arch)
    if not isinstance(spec, ResNetSpec):
        raise BadRequest(f"convert --arch {arch}: a network of your own has its own names")

    source = published.source(arguments.source, arch)
    fit, naming = _fit(source, spec)
    translated = translation.back(dialect, spec, checkpoint.taken(fit))
    with tempfile.TemporaryDirectory(dir=destination.parent, prefix=".unfinished-") as folder:
        fresh = Path(folder, destination.name)
        writing.write(translated, fresh)
        # The written file is read like any other of that dialect; it gets its name only where nothing was lost.
        _refuse_changes(fit, published.source(str(fresh), arch), spec)
        workspace.place(fresh, destination)
    sys.stdout.write(
        f"{len(translated)} tensors of {source.origin}, {naming}, "
        f"are in {destination} in the dialect of {dialect.name}; "
        "read back, every bit is the same\n"
    )
    return Exit.PASS


def _fit(source: Source, spec: ResNetSpec) -> tuple[Fit, str]:
    """The weights of ``source`` in a network of as many classes and channels as they have, and whose names they had."""
    import torch

    opened = translation.opened(source)
    classes, channels = translation.ends(opened, spec)
    # On the device meta a tensor has a shape and no values: only names and shapes are asked for.
    with torch.device("meta"):
        # Mean and standard deviation are no part of a checkpoint: any will do.
        network = networks.build(spec, classes, channels, (0.0,) * channels, (1.0,) * channels)
    return translation.fit(opened, spec, checkpoint.parameters(network))


def _refuse_changes(fit: Fit, written: Source, spec: ResNetSpec) -> None:
    """Raise StageFailed where a tensor of ``fit`` is another in the file that was written."""
    written_fit, _ = _fit(written, spec)
    after = checkpoint.taken(written_fit)
    for key, value in checkpoint.taken(fit).items():
        if not _bits(value).equal(_bits(after[key])):
            raise StageFailed(f"convert: {key} was written and read back as another")


def _bits(value: Tensor) -> Tensor:
    """As float64, which holds every number of a narrower type; Flax's MessagePack has float32 for float16."""
    import torch

    return value.double().contiguous().view(torch.int64)
