"""Numbers that depend on no input of a graph, with a bound on how far any runtime's may lie from them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

# The opset whose defaults of attributes hold: the one that export writes.
OPSET = 17


@dataclass(frozen=True)
class Constant:
    """Numbers that depend on no input.

    ``numbers`` are as stored, or float64 where they were computed; ``dtype`` is what they have in the graph. ``error``
    bounds how far the numbers of any runtime lie from them: 0 where nothing is rounded. Of levels behind
    DequantizeLinear, ``quantised`` are those levels, counted from the zero point, and their scale.
    """

    numbers: NDArray[Any]
    dtype: np.dtype[Any]
    error: NDArray[np.float64] | float = 0.0
    quantised: tuple[Constant, Constant] | None = None

    @cached_property
    def array(self) -> NDArray[Any]:
        """The numbers as the graph has them, in its own dtype."""
        return self.numbers if self.numbers.dtype == self.dtype else self.numbers.astype(self.dtype)

    @cached_property
    def values(self) -> NDArray[np.float64]:
        """The numbers in float64."""
        return self.numbers.astype(np.float64, copy=False)

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the numbers."""
        return self.numbers.shape

    @property
    def exact(self) -> bool:
        """Whether every runtime has the same numbers."""
        return not np.any(self.error)


def stored(array: NDArray[Any]) -> Constant:
    """``array`` as a constant that nothing rounds."""
    return Constant(array, array.dtype)
