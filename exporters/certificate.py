"""What a comparison of two files found."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Refutation:
    """What is not proven: the PyTorch ``module`` and what was ``found`` there."""

    module: str
    found: str


@dataclass
class Certificate:
    """What was compared, and everything that was refuted.

    ``stage`` is what the file was judged as. ``largest`` is the greatest share of its bound that any constant used up
    (1 is the bound itself); ``left`` are the BatchNormalizations that were not folded, each with what stands in its
    way. The channels of ``rescaled`` channel spaces are powers of two apart: proven exactly, for writers and readers
    together. ``retrained`` weights and biases are others, which was allowed, and of which nothing is proven.
    ``operators`` counts the nodes of each kind, before and after. ``noted`` are differences that refute nothing, such
    as who made the file.
    """

    stage: str = ""
    constants: int = 0
    nodes: int = 0
    folded: int = 0
    rescaled: int = 0
    retrained: int = 0
    largest: float = 0.0
    left: dict[str, str] = field(default_factory=dict)
    refuted: list[Refutation] = field(default_factory=list)
    operators: dict[str, tuple[int, int]] = field(default_factory=dict)
    noted: list[str] = field(default_factory=list)

    @property
    def proven(self) -> bool:
        """Whether every comparison held."""
        return not self.refuted
