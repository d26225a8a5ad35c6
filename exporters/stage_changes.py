"""What each stage may change in a graph: a row a stage, by which :mod:`exporters.certify` judges a file.

A file is judged by the stage that made it, or by all that its changes show where nobody says which one that was. What
no row allows is refuted: a Cast in a float32 stage, a Q/DQ pair in a simplified file.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from exporters.number_formats import NUMBER_FORMATS

if TYPE_CHECKING:
    from collections.abc import Iterable

    from exporters.number_formats import NumberFormat


@dataclass(frozen=True)
class Changes:
    """What one stage, or several one after the other, may change.

    ``name`` is the stage's. ``folds``: a BatchNormalization into the layer before it. ``rescales``: channels by powers
    of two. ``retrains``: weights and biases of layers. ``formats``: the number formats that new Q/DQ pairs and weights
    may have. ``float16``: float32 constants become their nearest float16, with Casts between the types.
    ``bytes_in``: the images may be bytes.

    Every stage may do what changes nothing but the spelling, see :class:`exporters.certify.Walk`.
    """

    name: str
    folds: bool = False
    rescales: bool = False
    retrains: bool = False
    formats: frozenset[str] = frozenset()
    float16: bool = False
    bytes_in: bool = False

    def __or__(self, other: Changes) -> Changes:
        """What both stages together may change."""
        return Changes(
            name=f"{self.name} and {other.name}",
            folds=self.folds or other.folds,
            rescales=self.rescales or other.rescales,
            retrains=self.retrains or other.retrains,
            formats=self.formats | other.formats,
            float16=self.float16 or other.float16,
            bytes_in=self.bytes_in or other.bytes_in,
        )


def family(number_format: NumberFormat) -> frozenset[str]:
    """The names of the formats that stand beside ``number_format`` in one file."""
    formats = {number_format.name}
    for row in (number_format, number_format.activations or number_format):
        for beside in (row, row.unsigned, row.unsigned_behind_relu):
            if beside is not None:
                formats.add(beside.name)
    return frozenset(formats)


SIMPLIFY = Changes("simplify")
# A number format makes a stage of its own name, see ``stages``.
OTHERS = (
    SIMPLIFY,
    Changes("fold_batchnorm", folds=True),
    Changes("equalise", rescales=True),
    Changes("qat", retrains=True),
    Changes("fp16", float16=True),
    Changes("halve", float16=True),
    Changes("float_weights"),
    Changes("uint8_input", bytes_in=True),
)


def stages() -> dict[str, Changes]:
    """All rows by name, those of the number formats that TensorRT takes among them."""
    rows = {row.name: row for row in OTHERS}
    for name, number_format in NUMBER_FORMATS.items():
        if number_format.symmetric:
            rows[name] = Changes(name, formats=family(number_format))
    return rows


def together(names: Iterable[str]) -> Changes:
    """What the stages of these names may change, one after the other; raises ValueError at another name."""
    rows = stages()
    allowed: Changes | None = None
    for name in names:
        if name not in rows:
            raise ValueError(f"{name!r} is no stage that certify knows; choose among {', '.join(rows)}")
        allowed = rows[name] if allowed is None else allowed | rows[name]
    return allowed if allowed is not None else SIMPLIFY
