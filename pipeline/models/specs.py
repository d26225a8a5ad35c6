"""The networks this project knows, as data: one row a name. A new network of this family is a new row."""

from __future__ import annotations

import difflib
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.errors import BadRequest
from pipeline.models import user_network
from pipeline.models.resnet_spec import ResNetSpec

if TYPE_CHECKING:
    from pipeline.models.user_network import UserSpec

_BASIC18 = ResNetSpec("basic", (2, 2, 2, 2))
_BASIC34 = ResNetSpec("basic", (3, 4, 6, 3))
_DEEP50 = ResNetSpec("bottleneck", (3, 4, 6, 3))
_DEEP101 = ResNetSpec("bottleneck", (3, 4, 23, 3))
_RESNEXT50 = replace(_DEEP50, groups=32, width_per_group=4)
# On images of 32x32 pixels; section 4.2 of the first paper, with projections where it has zeros.
_CIFAR = ResNetSpec(
    "basic", (3, 3, 3), widths=(16, 32, 64), first_kernel_size=3, first_stride=1, max_pool=False
)  # fmt: skip
_D2L = replace(_BASIC18, bias=True, shortcut_norm=False)
_D2L_NEXT = ResNetSpec("bottleneck", (2, 2, 2, 2), groups=16, expansion=1, bottlenecks=(64, 128, 256, 512), bias=True)
_LABML = ResNetSpec(
    "basic", (3, 3, 3), widths=(16, 32, 64), strides=(2, 1, 1), first_kernel_size=3, stem_activation=False,
    max_pool=False, bias=True,
)  # fmt: skip

# docs/architectures.md says where each comes from.
ARCHITECTURES: dict[str, ResNetSpec] = {
    "resnet18": _BASIC18,
    "resnet34": _BASIC34,
    "resnet50": _DEEP50,
    "resnet101": _DEEP101,
    "resnet152": ResNetSpec("bottleneck", (3, 8, 36, 3)),
    "resnext50_32x4d": _RESNEXT50,
    "resnext101_32x8d": replace(_DEEP101, groups=32, width_per_group=8),
    "resnext101_64x4d": replace(_DEEP101, groups=64, width_per_group=4),
    "wide_resnet50_2": replace(_DEEP50, width_per_group=128),
    "wide_resnet101_2": replace(_DEEP101, width_per_group=128),
    "resnet50d": replace(_DEEP50, stem="deep", shortcut_pool=True),
    "resnext50d_32x4d": replace(_RESNEXT50, stem="deep", shortcut_pool=True),
    "resnet20": _CIFAR,
    "resnet32": replace(_CIFAR, depths=(5, 5, 5)),
    "resnet44": replace(_CIFAR, depths=(7, 7, 7)),
    "resnet56": replace(_CIFAR, depths=(9, 9, 9)),
    "resnet110": replace(_CIFAR, depths=(18, 18, 18)),
    "d2l_resnet18": _D2L,
    "d2l_jax_resnet18": replace(_D2L, padding="same"),
    "d2l_resnext26": _D2L_NEXT,
    "d2l_jax_resnext26": replace(_D2L_NEXT, padding="same"),
    "labml_resnet20": _LABML,
    "labml_resnet56": replace(_LABML, block="bottleneck", depths=(6, 6, 6), expansion=1, bottlenecks=(8, 16, 16)),
    # Two small ones that train in seconds: to try the pipeline, and for its own tests.
    "resnet_tiny": ResNetSpec("basic", (1, 1, 1), widths=(16, 32, 64)),
    "resnext_tiny": ResNetSpec("bottleneck", (1, 1, 1), groups=4, width_per_group=32, widths=(16, 32, 64)),
}

ALIASES = {"resnext50": "resnext50_32x4d", "resnext101": "resnext101_32x8d"}


def find(arch: str) -> tuple[str, ResNetSpec | UserSpec]:
    """The full name and the spec of a row, of a TOML file, or of a function as module:function; raises BadRequest."""
    if arch.endswith(".toml"):
        return _read(Path(arch))
    if ":" in arch:
        return arch, user_network.named(arch)

    full_name = ALIASES.get(arch, arch)
    if full_name not in ARCHITECTURES:
        known = [*ARCHITECTURES, *ALIASES]
        near = difflib.get_close_matches(arch, known, n=3, cutoff=0.5) or sorted(known)
        raise BadRequest(
            f"--arch {arch}: no such architecture; did you mean {', '.join(near)}? "
            "One of your own is a .toml file, or module:function"
        )
    return full_name, ARCHITECTURES[full_name]


def _read(path: Path) -> tuple[str, ResNetSpec]:
    try:
        spec = ResNetSpec.from_json(tomllib.loads(path.read_text("utf-8")))
    except OSError as error:
        raise BadRequest(f"--arch {path} cannot be read ({error.strerror}); name a file that is there") from error
    except ValueError as error:  # TOML, UTF-8, or a field
        raise BadRequest(f"--arch {path}: {error}; docs/architectures.md lists the fields") from error
    return path.stem, spec
