"""The number formats that Q/DQ pairs round to: a new one is a row, and nothing else knows a format by its name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True)
class NumberFormat:
    """One format of stored levels.

    ``onnx_type`` is ONNX's name of it, ``zero_point`` the level that stands for 0, ``largest_level`` the largest
    magnitude counted from there. ``opset`` is the first whose QuantizeLinear writes it under a float32 scale.
    ``least_own_db``: what a layer by itself keeps at least, in dB, where nothing is wrong with its scales.
    ``mantissa_bits``: the bits behind the point of a small float; None where its levels are the whole numbers.
    ``never_negative``: it cuts off what is negative, so it fits only behind a ReLU.

    ``activations`` is the format of the activations beside weights of this one; None where it is the same.
    ONNX Runtime's kernels take unsigned activations: there ``unsigned`` stands in for this format, and
    ``unsigned_behind_relu``, which has more levels, where nothing negative arrives. None where there is no such format.
    """

    name: str
    onnx_type: str
    bits: int
    zero_point: int
    largest_level: int
    opset: int
    least_own_db: float
    mantissa_bits: int | None = None
    never_negative: bool = False
    activations: NumberFormat | None = None
    unsigned: NumberFormat | None = None
    unsigned_behind_relu: NumberFormat | None = None

    @property
    def uniform(self) -> bool:
        """Whether its levels are evenly spaced."""
        return self.mantissa_bits is None

    @property
    def symmetric(self) -> bool:
        """Whether it has as many levels below 0 as above, and stores 0 as 0: what TensorRT asks for."""
        return self.zero_point == 0 and not self.never_negative

    @property
    def dtype(self) -> np.dtype[Any]:
        """NumPy's type of the stored levels."""
        import onnx_ir as ir

        return ir.DataType[self.onnx_type].numpy()

    def zero_points(self, shape: tuple[int, ...] = ()) -> NDArray[Any]:
        """The zero point as ONNX stores it: a scalar, or one for each scale in ``shape``."""
        import numpy as np

        return np.full(shape, self.zero_point, self.dtype)

    def magnitudes(self) -> NDArray[np.float64]:
        """The magnitudes of all levels, ascending from 0 to ``largest_level``, float64."""
        import numpy as np

        if self.uniform:
            return np.arange(self.largest_level + 1, dtype=np.float64)
        # The highest bit of a small float is its sign: the codes without it ascend with their magnitudes.
        codes = np.arange(2 ** (self.bits - 1), dtype=np.uint8)
        numbers = np.asarray(codes.view(self.dtype), np.float64)
        # Of E4M3 the last code is NaN.
        return numbers[np.isfinite(numbers)]

    def to_levels(self, ratios: NDArray[np.float32]) -> NDArray[Any]:
        """The nearest level to each of ``ratios``, values over their scale, as stored; what lies beyond is clipped."""
        import numpy as np

        clipped = np.clip(ratios, -self.largest_level, self.largest_level)
        # The cast itself rounds to the nearest number of a float type, but cuts off what is behind the point.
        nearest = np.rint(clipped) if self.uniform else clipped
        return nearest.astype(self.dtype)


# INT8 as ONNX Runtime's kernels on x86 want it: the same values, counted from 128.
UINT8_CENTRED = NumberFormat(
    "uint8-centred", "UINT8", bits=8, zero_point=128, largest_level=127, opset=13, least_own_db=10.0
)
UINT8 = NumberFormat(
    "uint8", "UINT8", bits=8, zero_point=0, largest_level=255, opset=13, least_own_db=10.0, never_negative=True
)
# -128 has no counterpart, and is left out.
INT8 = NumberFormat(
    "int8",
    "INT8",
    bits=8,
    zero_point=0,
    largest_level=127,
    opset=13,
    least_own_db=10.0,
    unsigned=UINT8_CENTRED,
    unsigned_behind_relu=UINT8,
)
# E4M3: Micikevicius et al. 2022, arXiv 2209.05433, table 1.
FP8 = NumberFormat(
    "fp8", "FLOAT8E4M3FN", bits=8, zero_point=0, largest_level=448, opset=19, least_own_db=10.0, mantissa_bits=3
)

NUMBER_FORMATS = {row.name: row for row in (INT8, UINT8_CENTRED, UINT8, FP8)}


def stored_as(dtype: np.dtype[Any], zero_point: Any) -> NumberFormat | None:
    """The format whose levels have this type and this zero point; None where it is no row."""
    for number_format in NUMBER_FORMATS.values():
        if number_format.dtype == dtype and number_format.zero_point == zero_point:
            return number_format
    return None


def symmetric_in(dtype: np.dtype[Any]) -> NumberFormat | None:
    """The symmetric format whose levels have this type; None where there is none."""
    for number_format in NUMBER_FORMATS.values():
        if number_format.symmetric and number_format.dtype == dtype:
            return number_format
    return None
