"""The precisions that can be asked for, one row each: all that depends on the word is here, as data."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from pipeline.stage import SAME_BITS, Tolerance

# Bounds, from what the registered networks give on the digits and on Fashion-MNIST: docs/bounds.md has the figures.
# They catch gross faults; what a stage may cost in accuracy is decided by the interval of the drop.
EXACT = Tolerance(sqnr_db=SAME_BITS, step_sqnr_db=SAME_BITS, agreement=1.0)
REORDERED = Tolerance(sqnr_db=90, step_sqnr_db=90, agreement=0.995)
FLOAT16 = Tolerance(sqnr_db=40, step_sqnr_db=40, agreement=0.99, drop=0.01)
QUANTISED = Tolerance(sqnr_db=15, step_sqnr_db=15, agreement=0.97, drop=0.01)
# An engine, or float16 between layers, may round some activations to the neighbouring level, and nothing more.
COMPILED = replace(QUANTISED, step_sqnr_db=30)
# Of E4M3 the neighbouring level is up to an eighth away.
COMPILED_FP8 = replace(COMPILED, step_sqnr_db=20)


@dataclass(frozen=True)
class Precision:
    """One precision.

    ``stages`` are those between folding and the engine, by name, in order; the stage that writes Q/DQ pairs has the
    name of its number format. ``quantised`` bounds that stage, ``tolerance`` everything behind them.
    ``number_format`` is a row of exporters.number_formats, None where nothing is quantised; then no range is needed.
    ``opset`` is what its graph is written with. ``typing`` says which TensorRT keeps its types: ``weak`` (TensorRT 8),
    ``strong`` (10 and newer) or ``any``; ``weak_flags`` are the builder's for the weak one.
    ``computes_in`` is the type of the units that it needs, as the data of devices name them. ``scales`` is the type of
    the scales of its Q/DQ pairs, where it has any. ``weak_form`` and ``strong_form`` are the precisions that it is
    written as for a TensorRT with weak typing and for any other, None where it is written as it is.
    ``placements`` are the rows of calibration.qdq.PLACEMENTS whose rules its pairs can follow. ``calib_cache``: whether
    its ranges can be read from a file, and written there.
    """

    name: str
    stages: tuple[str, ...]
    tolerance: Tolerance
    opset: int
    typing: Literal["any", "weak", "strong"]
    computes_in: str
    number_format: str | None = None
    weak_flags: tuple[str, ...] | None = None
    scales: Literal["float32", "float16"] = "float32"
    weak_form: str | None = None
    strong_form: str | None = None
    placements: tuple[str, ...] = ("tensorrt",)
    calib_cache: bool = False
    quantised: Tolerance = QUANTISED

    @property
    def calibrated(self) -> bool:
        """Whether it needs ranges, and so calibration images."""
        return self.number_format is not None


PRECISIONS = {
    row.name: row
    for row in (
        Precision("fp32", (), REORDERED, opset=17, typing="any", computes_in="fp32", weak_flags=()),
        Precision("fp16", ("fp16",), FLOAT16, opset=17, typing="any", computes_in="fp16", weak_flags=("FP16",)),
        Precision(
            "int8",
            ("equalise", "qat", "int8"),
            COMPILED,
            opset=17,
            typing="strong",
            computes_in="int8",
            number_format="int8",
            weak_form="int8-trt8",
            strong_form="int8-fp16",
            placements=("tensorrt", "onnxruntime"),
            calib_cache=True,
        ),
        # For TensorRT with strong typing, which computes the rest of an int8 graph in float32.
        Precision(
            "int8-fp16",
            ("equalise", "qat", "int8", "halve"),
            COMPILED,
            opset=19,
            typing="strong",
            computes_in="int8",
            number_format="int8",
            scales="float16",
            calib_cache=True,
        ),
        # For TensorRT 8, which imports weights in float32 only.
        Precision(
            "int8-trt8",
            ("equalise", "qat", "int8", "float_weights"),
            COMPILED,
            opset=17,
            typing="any",
            computes_in="int8",
            number_format="int8",
            weak_flags=("INT8", "FP16"),
            calib_cache=True,
        ),
        # For Ada, Blackwell and Thor.
        Precision(
            "fp8",
            ("equalise", "fp8", "halve"),
            COMPILED_FP8,
            opset=19,
            typing="strong",
            computes_in="fp8",
            number_format="fp8",
            scales="float16",
        ),
    )
}
