"""ONNX Runtime on the CPU: a file compiled once, and run as compiled."""

from __future__ import annotations

import importlib.util
import platform
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir

from exporters import float_weights, onnx_file, reference
from exporters.engines import ort_integers, ort_layers, ort_session, shapes, trt_config
from exporters.engines.backend import Backend, BuiltEngine, LoadedEngine
from exporters.portable import onnxruntime_session

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from exporters.engines.backend import Progress
    from exporters.engines.description import EngineDescription

# Not LAYOUTS, which are chosen when the file is loaded: it may be run on another processor.
LEVEL = "ORT_ENABLE_EXTENDED"
# Weights become UINT8 where the processor's UINT8 x INT8 sums saturate at 16 bits: without this a ResNeXt-50 keeps
# 10 dB there and loses 10 points, and ONNX Runtime says nothing. Elsewhere the sums are the same, and 1.7 times slower.
SATURATES = "x86 without VNNI"
EXACT = dict([onnxruntime_session.EXACT_SUMS])
# The largest INT8 weight of which two products with 255 fit into 16 bits.
UNSATURATED = 64


class OnnxRuntime(Backend):
    """ONNX Runtime on the CPU."""

    name = "onnxruntime"
    suffix = ".ort.onnx"
    packages = ("onnxruntime", "onnxruntime-gpu")
    runs_here = True
    placements = ("tensorrt", "onnxruntime")

    def available(self) -> str | None:
        """Why this backend cannot be used here, or None."""
        if importlib.util.find_spec("onnxruntime") is None:
            return "onnxruntime is not installed (extra: cpu)"
        return None

    def machine(self) -> str:
        """What a compiled file depends on: how this processor adds."""
        return processor()

    def build(
        self, src: Path, dst: Path, options: Mapping[str, Any] | None = None, progress: Progress | None = None
    ) -> BuiltEngine:
        """Compile the ONNX file ``src`` to ``dst``; it takes no options, and tells no progress.

        Raises RuntimeError where the compiled file makes other shapes than ``src``.
        """
        del options, progress
        model = onnx_file.read(src)
        quantised = onnx_file.count(model, "QuantizeLinear") > 0
        # Weights that stand in float behind a Q, as TensorRT 8 needs them, would be taken for activations.
        float_weights.stored_levels(model.graph)
        if ort_integers.stores_int8(model.graph):
            ort_integers.to_uint8(model.graph)

        disabled = ort_session.disabled_optimisers(model)
        # With float16 around it no convolution runs in integers.
        if not disabled:
            ort_integers.merge_groups(model.graph)
            ort_integers.integer_bias(model.graph)
        entries = EXACT if processor() == SATURATES else None
        reference.session(ir.to_proto(model).SerializeToString(), LEVEL, disabled, dst, entries)
        session = reference.session(dst, ort_session.LAYOUTS)
        warnings = shapes.refuse("ONNX Runtime", src, session, shapes.batches_of([trt_config.BATCHES]))

        # What it fused is told by its own file alone, whose operators ONNX does not all know.
        compiled = onnx_file.read(dst, check=False)
        in_integers = onnx_file.count(compiled, "QLinearConv")
        in_float = onnx_file.count(compiled, "Conv", "FusedConv")
        return BuiltEngine(in_float + in_integers, in_integers if quantised else None, warnings)

    def load(self, path: Path) -> LoadedEngine:
        """The compiled file; only layouts are chosen anew, for the processor of this very machine.

        Raises RuntimeError where this processor would compute other sums than the one that it was compiled for.
        """
        if processor() == SATURATES and _may_saturate(path):
            raise RuntimeError(
                f"{path.name} was compiled on a processor with VNNI, and on this one, without, its INT8 sums would "
                "saturate; build it again here"
            )
        return ort_session.loaded(reference.session(path, ort_session.LAYOUTS, alone=True))

    def describe(self, path: Path, details: Mapping[str, Any] | None = None) -> EngineDescription:
        """What the compiled file in ``path`` is made of, told by its nodes; raises ValueError where it is none."""
        del details
        return ort_layers.describe(onnx_file.read(path, check=False))


@cache
def processor() -> str:
    """Whether this processor adds UINT8 x INT8 products without saturating; of others than x86 their name."""
    if platform.machine() not in onnxruntime_session.X86:
        return platform.machine()
    return SATURATES if onnxruntime_session.sums_saturate() else "x86 with VNNI"


def _may_saturate(path: Path) -> bool:
    """Whether a sum in the compiled file may go beyond 16 bits: an INT8 weight is too large for that."""
    for node in onnx_file.read(path, check=False).graph:
        if node.op_type not in {"QLinearConv", "QGemm"}:
            continue
        weight_levels = onnx_file.initializer_array(node.inputs[3])
        if weight_levels is None or weight_levels.dtype != np.int8:
            continue
        # Not in INT8, where -128 has no magnitude.
        if (np.abs(weight_levels.astype(int)) > UNSATURATED).any():
            return True
    return False


BACKEND = OnnxRuntime()
