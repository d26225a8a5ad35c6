"""The networks this project knows, as data: one row a name. A new network of this family is a new row."""

from __future__ import annotations

import difflib
from dataclasses import asdict, dataclass
from typing import Any, Literal

from pipeline.errors import BadRequest


@dataclass(frozen=True)
class ResNetSpec:
    """Everything that tells one residual network from another.

    ``depths`` are the blocks of each stage and ``widths`` the channels of each stage's 3x3 convolutions at
    ``width_per_group=64``; the stride of a stage sits in the 3x3 convolution of its first block, as in torchvision.
    Sources: He et al. 2015 (arXiv 1512.03385, table 1), Xie et al. 2016 (arXiv 1611.05431, table 1),
    Zagoruyko and Komodakis 2016 (arXiv 1605.07146).
    """

    block: Literal["basic", "bottleneck"]
    depths: tuple[int, ...]
    groups: int = 1
    width_per_group: int = 64
    widths: tuple[int, ...] = (64, 128, 256, 512)

    @property
    def expansion(self) -> int:
        """Output channels of a block over its width."""
        return 4 if self.block == "bottleneck" else 1

    def to_json(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return asdict(self)

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> ResNetSpec:
        """The spec that :meth:`to_json` wrote."""
        values: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()
        }
        return cls(**values)


ARCHITECTURES: dict[str, ResNetSpec] = {
    "resnet18": ResNetSpec("basic", (2, 2, 2, 2)),
    "resnet34": ResNetSpec("basic", (3, 4, 6, 3)),
    "resnet50": ResNetSpec("bottleneck", (3, 4, 6, 3)),
    "resnet101": ResNetSpec("bottleneck", (3, 4, 23, 3)),
    "resnet152": ResNetSpec("bottleneck", (3, 8, 36, 3)),
    "resnext50_32x4d": ResNetSpec("bottleneck", (3, 4, 6, 3), groups=32, width_per_group=4),
    "resnext101_32x8d": ResNetSpec("bottleneck", (3, 4, 23, 3), groups=32, width_per_group=8),
    "resnext101_64x4d": ResNetSpec("bottleneck", (3, 4, 23, 3), groups=64, width_per_group=4),
    "wide_resnet50_2": ResNetSpec("bottleneck", (3, 4, 6, 3), width_per_group=128),
    "wide_resnet101_2": ResNetSpec("bottleneck", (3, 4, 23, 3), width_per_group=128),
    # Two small ones that train in seconds: to try the pipeline, and for its own tests.
    "resnet_tiny": ResNetSpec("basic", (1, 1, 1), widths=(16, 32, 64)),
    "resnext_tiny": ResNetSpec("bottleneck", (1, 1, 1), groups=4, width_per_group=32, widths=(16, 32, 64)),
}

ALIASES = {"resnext50": "resnext50_32x4d", "resnext101": "resnext101_32x8d"}


def find(name: str) -> str:
    """The full name behind ``name``; raises BadRequest with the nearest names where there is none."""
    full = ALIASES.get(name, name)
    if full not in ARCHITECTURES:
        known = [*ARCHITECTURES, *ALIASES]
        near = difflib.get_close_matches(name, known, n=3, cutoff=0.5) or sorted(known)
        raise BadRequest(f"--arch {name}: no such architecture; did you mean {', '.join(near)}?")
    return full
