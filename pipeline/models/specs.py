"""The networks this project knows, as data: one row a name. A new network of this family is a new row."""

from __future__ import annotations

import difflib
import tomllib
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args, get_origin, get_type_hints

from pipeline.errors import BadRequest
from pipeline.models import user_network

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import nn

    from pipeline.models.user_network import OwnSpec

MOST = 2**16


@dataclass(frozen=True)
class ResNetSpec:
    """Everything that tells one residual network from another; the defaults are torchvision's.

    ``depths`` are the blocks of each stage, ``widths`` the channels of their 3x3 convolutions at ``width_per_group=64``
    and ``strides`` the stride of each stage's first block (default: 2, but 1 in the first stage). A block has
    ``widths`` times ``expansion`` channels at its end (default: 4 times in a bottleneck, else once); ``bottlenecks``
    says the channels inside outright. In a bottleneck the stride is in the 3x3 convolution, or ``stride_in`` the first
    1x1, as in the first paper. The ``deep`` stem has three 3x3 convolutions, and with ``shortcut_pool`` a shortcut
    averages 2x2 pixels instead of skipping them. ``padding="same"`` is that of Flax and TensorFlow, which at stride 2
    and even size pads the end only. Raises ValueError where no such network can be built.

    Sources: He et al. 2015 (arXiv 1512.03385, table 1 and section 4.2), Xie et al. 2016 (arXiv 1611.05431, table 1),
    Zagoruyko and Komodakis 2016 (arXiv 1605.07146), He et al. 2018 (arXiv 1812.01187, figure 2: ResNet-D).
    """

    block: Literal["basic", "bottleneck"]
    depths: tuple[int, ...]
    groups: int = 1
    width_per_group: int = 64
    widths: tuple[int, ...] = (64, 128, 256, 512)
    expansion: int | None = None
    bottlenecks: tuple[int, ...] | None = None
    strides: tuple[int, ...] | None = None
    stride_in: Literal["3x3", "1x1"] = "3x3"
    stem: Literal["plain", "deep"] = "plain"
    first_kernel_size: int = 7
    first_stride: int = 2
    stem_activation: bool = True
    max_pool: bool = True
    shortcut_norm: bool = True
    shortcut_pool: bool = False
    bias: bool = False
    padding: Literal["symmetric", "same"] = "symmetric"

    def __post_init__(self) -> None:
        """Refuse what cannot be built."""
        for name, hint in get_type_hints(ResNetSpec).items():
            if not _fits(value := getattr(self, name), hint):
                raise ValueError(f"{name} is {value!r}; it takes {_wanted(hint)}")
        for name in ("widths", "bottlenecks", "strides"):
            found = getattr(self, name)
            if found is not None and len(found) != len(self.depths):
                raise ValueError(f"{name} has {len(found)} numbers for {len(self.depths)} stages; give one a stage")
        if self.block == "basic" and (self.groups, self.width_per_group, self.stride_in) != (1, 64, "3x3"):
            raise ValueError("groups, width_per_group and stride_in go with block = 'bottleneck', not with 'basic'")
        if wrong := [inner for inner in self.inner if inner % self.groups or inner < 1]:
            raise ValueError(f"{wrong[0]} channels inside a block are no multiple of {self.groups} groups")
        if self.stem == "deep" and (self.widths[0] % 2 or self.first_kernel_size != 7):
            raise ValueError("stem = 'deep' takes an even first width, and no first_kernel_size: its kernels are 3x3")

    @property
    def outputs(self) -> tuple[int, ...]:
        """Channels at the end of each stage."""
        expansion = self.expansion or (4 if self.block == "bottleneck" else 1)
        return tuple(width * expansion for width in self.widths)

    @property
    def inner(self) -> tuple[int, ...]:
        """Channels inside the blocks of each stage."""
        return self.bottlenecks or tuple(width * self.width_per_group // 64 * self.groups for width in self.widths)

    @property
    def first_strides(self) -> tuple[int, ...]:
        """The stride of the first block of each stage."""
        return self.strides or (1, *(2,) * (len(self.depths) - 1))

    def network(self, classes: int, channels: int, mean: Sequence[float], std: Sequence[float]) -> nn.Module:
        """The network with fresh weights."""
        from pipeline.models.resnet import ResNet

        return ResNet(self, classes, channels, mean, std)

    def to_json(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> ResNetSpec:
        """The spec that :meth:`to_json` or a TOML file has; raises ValueError where it has another field."""
        names = [field.name for field in fields(cls)]
        if unknown := [name for name in values if name not in names]:
            near = difflib.get_close_matches(unknown[0], names, n=1, cutoff=0.4) or names
            raise ValueError(f"there is no field {unknown[0]}; did you mean {', '.join(near)}?")
        if lacking := [name for name in ("block", "depths") if name not in values]:
            raise ValueError(f"the field {lacking[0]} is missing")
        plain: dict[str, Any] = {k: tuple(value) if isinstance(value, list) else value for k, value in values.items()}
        return cls(**plain)


def _fits(value: Any, hint: Any) -> bool:
    """Whether ``value`` has the type of its field; whole numbers are from 1 to MOST."""
    if get_origin(hint) is Literal:
        return value in get_args(hint)
    if get_origin(hint) is tuple:
        return isinstance(value, tuple) and bool(value) and all(_fits(each, int) for each in value)
    if hint is int:
        return type(value) is int and 1 <= value <= MOST
    return any(_fits(value, each) for each in get_args(hint)) or type(value) is hint


def _wanted(hint: Any) -> str:
    if get_origin(hint) is Literal:
        return " or ".join(map(repr, get_args(hint)))
    if get_origin(hint) is tuple:
        return f"a list of {_wanted(int)}"
    return _wanted(get_args(hint)[0]) if get_args(hint) else "true or false" if hint is bool else f"1 … {MOST}"


_BASIC18, _BASIC34 = ResNetSpec("basic", (2, 2, 2, 2)), ResNetSpec("basic", (3, 4, 6, 3))
_DEEP50, _DEEP101 = ResNetSpec("bottleneck", (3, 4, 6, 3)), ResNetSpec("bottleneck", (3, 4, 23, 3))
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


def find(asked: str) -> tuple[str, ResNetSpec | OwnSpec]:
    """The full name and the spec of a row, of a TOML file, or of a function as module:function; raises BadRequest."""
    if asked.endswith(".toml"):
        return _read(Path(asked))
    if ":" in asked:
        return asked, user_network.named(asked)
    full = ALIASES.get(asked, asked)
    if full not in ARCHITECTURES:
        known = [*ARCHITECTURES, *ALIASES]
        near = difflib.get_close_matches(asked, known, n=3, cutoff=0.5) or sorted(known)
        raise BadRequest(
            f"--arch {asked}: no such architecture; did you mean {', '.join(near)}? "
            "One of your own is a .toml file, or module:function"
        )
    return full, ARCHITECTURES[full]


def _read(path: Path) -> tuple[str, ResNetSpec]:
    try:
        return path.stem, ResNetSpec.from_json(tomllib.loads(path.read_text("utf-8")))
    except OSError as error:
        raise BadRequest(f"--arch {path} cannot be read ({error.strerror}); name a file that is there") from error
    except ValueError as error:  # TOML, UTF-8, or a field
        raise BadRequest(f"--arch {path}: {error}; docs/architectures.md lists the fields") from error
