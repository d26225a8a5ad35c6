"""How far each way of storing a number may move it: float32, float16, and INT8 or FP8 levels with a scale of either."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from exporters.number_formats import INT8, symmetric_in

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from exporters.known_numbers import Constant
    from exporters.number_formats import NumberFormat

    Bound = NDArray[np.float64] | float

# Unit roundoffs (Higham 2002, Accuracy and Stability of Numerical Algorithms, section 2.1).
U16 = 2.0**-11
U32 = 2.0**-24
U64 = 2.0**-53
# Half of the smallest number of the format: the rounding error next to zero.
SMALLEST16 = 2.0**-25
SMALLEST32 = 2.0**-150
# Half a level, and the float32 rounding of w / s for up to 127 levels.
HALF_SCALE = 0.5 + 2.0**-16
# No scale is smaller: a GPU may take a number below the normal ones for 0.
SMALLEST_SCALE = float(np.finfo(np.float32).smallest_normal)


def storage(stored: Constant, exact: NDArray[np.float64]) -> Bound:
    """How far the way it is stored may move a constant: each value to the nearest that can be written."""
    if stored.quantised is None or stored.values.shape != exact.shape:
        if stored.dtype == np.float16:
            return U16 * np.abs(exact) + SMALLEST16
        return 0.0

    levels, scale = stored.quantised
    # Weights about a zero point of UINT8 are those of INT8.
    number_format = symmetric_in(levels.dtype) or INT8
    if not number_format.uniform:
        return _of_small_float(number_format, exact, scale.values)

    # No wider than the trusted values need, or a coarser scale would excuse itself.
    needed_scale = np.maximum(_peaks(exact, scale.values) / number_format.largest_level, SMALLEST_SCALE)
    half_a_level = np.asarray(HALF_SCALE * np.minimum(scale.values, needed_scale))
    if scale.dtype != np.float16:
        return half_a_level
    # The levels were chosen under the scale before it was rounded, which moves each of them, and the half level.
    return half_a_level + (np.abs(levels.values) + 1) * _of_scale(needed_scale)


def _of_small_float(number_format: NumberFormat, exact: NDArray[np.float64], scale: NDArray[np.float64]) -> Bound:
    """Half the distance between its numbers next to ``exact`` over a scale no larger than its channel needs."""
    least_scale = np.maximum(_peaks(exact, scale) / number_format.largest_level, SMALLEST_SCALE)
    needed_scale = np.minimum(scale, least_scale)
    with np.errstate(divide="ignore", invalid="ignore"):
        exponents = np.floor(np.log2(np.abs(exact) / needed_scale))

    # E4M3 has three bits behind the point, and below 2^-6 its numbers lie 2^-9 apart, as they do there.
    mantissa_bits = number_format.mantissa_bits or 0
    smallest_level = number_format.magnitudes()[1]
    least_exponent = np.log2(smallest_level) + mantissa_bits
    # Under a scale of 0, which is refused elsewhere, there is no exponent.
    finite = np.nan_to_num(exponents, nan=least_exponent, neginf=least_exponent, posinf=least_exponent)
    exponents = np.maximum(finite, least_exponent)
    distance = 2.0 ** (exponents - mantissa_bits)
    # HALF_SCALE has the float32 rounding of w / s in it.
    return np.asarray(HALF_SCALE * distance * needed_scale)


def _peaks(exact: NDArray[np.float64], scale: NDArray[np.float64]) -> NDArray[np.float64]:
    """The largest magnitude of all values that share one number of ``scale``, in the shape of ``scale``."""
    shared_axes = tuple(axis for axis, size in enumerate(scale.shape) if size == 1)
    if not shared_axes:
        return np.asarray(np.abs(exact).max(initial=0))
    return np.asarray(np.abs(exact).max(axis=shared_axes, keepdims=True, initial=0))


def _of_scale(scale: NDArray[np.float64]) -> NDArray[np.float64]:
    """How far its float16 lies from ``scale``: next to zero half the smallest number, or all of it where raised."""
    return np.maximum(U16 * scale, 2 * SMALLEST16)


def scale_as(scale: Constant, dtype: np.dtype[np.generic]) -> NDArray[np.float64]:
    """What ``scale`` has to be in ``dtype``: the nearest, and the smallest positive float16 where that is 0."""
    least = 2 * SMALLEST16 if dtype == np.float16 else 0.0
    return np.maximum(scale.array.astype(dtype).astype(np.float64), least)
