"""What tells one residual network of this family from another, as data, and what such a description may say."""

from __future__ import annotations

import difflib
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, get_args, get_origin, get_type_hints

MOST = 2**16


@dataclass(frozen=True)
class ResNetSpec:
    """Everything that tells one residual network from another; the defaults are torchvision's.

    ``depths`` are the blocks of each stage, ``widths`` the channels of their 3x3 convolutions at ``width_per_group=64``
    and ``strides`` the stride of each stage's first block (default: 2, but 1 in the first stage). A block has
    ``widths`` times ``expansion`` channels at its end (default: 4 times in a bottleneck, else once); ``bottlenecks``
    says the channels inside outright. In a bottleneck the stride is in the 3x3 convolution, or ``stride_in`` the first
    1x1, as in the first paper. The stem has the first of ``widths``, or ``stem_width``. The ``deep`` stem has three 3x3
    convolutions, and with ``shortcut_pool`` a shortcut averages 2x2 pixels instead of skipping them.
    ``padding="same"`` is that of Flax and TensorFlow, which at stride 2 and even size pads the end only.
    ``pool_padding="end"`` is that of Caffe's max-pool, which rounds up: it never pads the beginning. Without ``norm``
    there is no BatchNorm, as where it was folded. Raises ValueError where no such network can be built.

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
    stem_width: int | None = None
    first_kernel_size: int = 7
    first_stride: int = 2
    stem_activation: bool = True
    max_pool: bool = True
    pool_padding: Literal["symmetric", "end"] = "symmetric"
    norm: bool = True
    shortcut_norm: bool = True
    shortcut_pool: bool = False
    bias: bool = False
    padding: Literal["symmetric", "same"] = "symmetric"

    def __post_init__(self) -> None:
        """Refuse what cannot be built."""
        # The types first: every rule after that computes with the values.
        self._refuse_types()
        self._refuse_lengths()
        self._refuse_block()
        self._refuse_stem()

    def _refuse_types(self) -> None:
        for name, hint in get_type_hints(ResNetSpec).items():
            value = getattr(self, name)
            if not _fits(value, hint):
                raise ValueError(f"{name} is {value!r}; it takes {_wanted(hint)}")

    def _refuse_lengths(self) -> None:
        for name in ("widths", "bottlenecks", "strides"):
            numbers = getattr(self, name)
            if numbers is not None and len(numbers) != len(self.depths):
                raise ValueError(f"{name} has {len(numbers)} numbers for {len(self.depths)} stages; give one a stage")

    def _refuse_block(self) -> None:
        if self.block == "basic" and (self.groups, self.width_per_group, self.stride_in) != (1, 64, "3x3"):
            raise ValueError("groups, width_per_group and stride_in go with block = 'bottleneck', not with 'basic'")
        for channels in self.inner:
            if channels < 1 or channels % self.groups:
                raise ValueError(f"{channels} channels inside a block are no multiple of {self.groups} groups")

    def _refuse_stem(self) -> None:
        # The first two of the three convolutions have half the width.
        if self.stem == "deep" and (self.stem_outputs % 2 or self.first_kernel_size != 7):
            raise ValueError("stem = 'deep' takes an even first width, and no first_kernel_size: its kernels are 3x3")
        if self.pool_padding == "end" and not self.max_pool:
            raise ValueError("pool_padding goes with max_pool = true: there is no pool to pad")

    @property
    def stem_outputs(self) -> int:
        """Channels that the stem answers."""
        return self.stem_width or self.widths[0]

    @property
    def outputs(self) -> tuple[int, ...]:
        """Channels at the end of each stage."""
        default = 4 if self.block == "bottleneck" else 1
        expansion = self.expansion or default
        return tuple(width * expansion for width in self.widths)

    @property
    def inner(self) -> tuple[int, ...]:
        """Channels inside the blocks of each stage."""
        if self.bottlenecks is not None:
            return self.bottlenecks
        # Rounded down to whole channels of one group before the groups are counted, as torchvision does.
        return tuple(width * self.width_per_group // 64 * self.groups for width in self.widths)

    @property
    def first_strides(self) -> tuple[int, ...]:
        """The stride of the first block of each stage."""
        if self.strides is not None:
            return self.strides
        halved = len(self.depths) - 1
        return (1, *(2,) * halved)

    def to_json(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> ResNetSpec:
        """The spec that :meth:`to_json` or a TOML file has; raises ValueError where it has another field."""
        names = [field.name for field in fields(cls)]
        for name in values:
            if name not in names:
                near = difflib.get_close_matches(name, names, n=1, cutoff=0.4) or names
                raise ValueError(f"there is no field {name}; did you mean {', '.join(near)}?")
        for name in ("block", "depths"):
            if name not in values:
                raise ValueError(f"the field {name} is missing")

        # JSON and TOML have lists where a frozen spec has tuples.
        plain: dict[str, Any] = {}
        for name, value in values.items():
            plain[name] = tuple(value) if isinstance(value, list) else value
        return cls(**plain)


def _fits(value: Any, hint: Any) -> bool:
    """Whether ``value`` has the type of its field; whole numbers are from 1 to MOST."""
    if get_origin(hint) is Literal:
        return value in get_args(hint)
    if get_origin(hint) is tuple:
        return isinstance(value, tuple) and bool(value) and all(_fits(number, int) for number in value)
    if hint is int:
        # Not isinstance, for which True is a whole number.
        return type(value) is int and 1 <= value <= MOST
    alternatives = get_args(hint)  # those of int | None; bool has none
    if alternatives:
        return any(_fits(value, alternative) for alternative in alternatives)
    return type(value) is hint


def _wanted(hint: Any) -> str:
    """The type of a field in words; of int | None only the number, since nobody writes None into a TOML file."""
    if get_origin(hint) is Literal:
        return " or ".join(map(repr, get_args(hint)))
    if get_origin(hint) is tuple:
        return f"a list of {_wanted(int)}"
    if get_args(hint):
        return _wanted(get_args(hint)[0])
    if hint is bool:
        return "true or false"
    return f"1 … {MOST}"
