"""The number formats that Q/DQ pairs round to: a new one is a row."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class NumberFormat:
    """One format of stored levels.

    ``onnx_type`` is ONNX's name of it, ``zero_point`` the level that stands for 0, ``largest_level`` the largest
    magnitude counted from there. ``opset`` is the first whose QuantizeLinear writes it under a float32 scale.
    ``least_own_db``: what a layer by itself keeps at least, in dB, where nothing is wrong with its scales.
    ``never_negative``: it cuts off what is negative, so it fits only behind a ReLU.
    """

    name: str
    onnx_type: str
    bits: int
    zero_point: int
    largest_level: int
    opset: int
    least_own_db: float
    never_negative: bool = False


INT8 = NumberFormat("int8", "INT8", bits=8, zero_point=0, largest_level=127, opset=13, least_own_db=10.0)
# INT8 as ONNX Runtime's kernels on x86 want it: the same values, counted from 128.
UINT8_CENTRED = NumberFormat(
    "uint8-centred", "UINT8", bits=8, zero_point=128, largest_level=127, opset=13, least_own_db=10.0
)
UINT8 = NumberFormat(
    "uint8", "UINT8", bits=8, zero_point=0, largest_level=255, opset=13, least_own_db=10.0, never_negative=True
)
# E4M3: Micikevicius et al. 2022, arXiv 2209.05433, table 1.
FP8 = NumberFormat("fp8", "FLOAT8E4M3FN", bits=8, zero_point=0, largest_level=448, opset=19, least_own_db=10.0)

NUMBER_FORMATS = {row.name: row for row in (INT8, UINT8_CENTRED, UINT8, FP8)}
