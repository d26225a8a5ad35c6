#!/usr/bin/env bash
# TensorRT-RTX reads UINT8 levels with zero point 0 as INT8: what was clipped at 255 is clipped at 127.
#
# Versions:  tensorrt-rtx 1.7.1.116, onnx 1.23.2, Python 3.11, Linux x86-64, no GPU.
# Behaviour: Two graphs: a ReLU, a Q/DQ pair and a convolution with INT8 weights. In one the pair is INT8, in the other
#            UINT8, both with zero point 0 and the same scale. ONNX says that the first clips at 127 scales and the second
#            at 255. TensorRT-RTX builds both, with the same kernels and a convolution that reads Int8. Of the second the
#            parser says in a warning that it is "defaulting to INT8 instead", and keeps the scale as it was.
# Expected:  UINT8 levels, a scale twice as large, or a refusal, as for every zero point that is not 0.
# Hurt:      NNCF's default preset writes UINT8 behind a ReLU: the engine builds, and the upper half of every activation
#            is cut off, on the device only.
# Seen:      2026-11-30: "int8: the convolution reads Int8", "uint8: the convolution reads Int8", "the same kernels: True".
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/python" -m pip install --quiet tensorrt-rtx==1.7.1.116 onnx==1.23.2 numpy==2.4.6
"$folder/env/bin/python" - <<'PYTHON'
import re

import numpy as np
import onnx
import tensorrt_rtx as trt
from onnx import TensorProto, helper, numpy_helper


def model(levels_type):
    levels = np.random.default_rng(0).integers(-127, 128, (16, 16, 3, 3)).astype(np.int8)
    constants = {
        "scale": np.float32(0.05),
        "zero": np.zeros((), levels_type),
        "levels": levels,
        "weight_scale": np.full(16, 0.01, np.float32),
        "weight_zero": np.zeros(16, np.int8),
    }
    nodes = [
        helper.make_node("Relu", ["x"], ["positive"], "relu"),
        helper.make_node("QuantizeLinear", ["positive", "scale", "zero"], ["stored"], "quantise"),
        helper.make_node("DequantizeLinear", ["stored", "scale", "zero"], ["read"], "dequantise"),
        helper.make_node("DequantizeLinear", ["levels", "weight_scale", "weight_zero"], ["weight"], "weight", axis=0),
        helper.make_node("Conv", ["read", "weight"], ["y"], "conv", pads=[1, 1, 1, 1]),
    ]
    shape = [1, 16, 32, 32]
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in constants.items()],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=9)
    onnx.checker.check_model(made, full_check=True)
    return made.SerializeToString()


class Logger(trt.ILogger):
    def __init__(self):
        trt.ILogger.__init__(self)
        self.messages = []

    def log(self, severity, text):
        self.messages.append((str(severity).rsplit(".")[-1], text))


def built(content):
    """The builder's list of layers, and its warnings."""
    logger = Logger()
    builder = trt.Builder(logger)
    network = builder.create_network(0)
    assert trt.OnnxParser(network, logger).parse(content)
    config = builder.create_builder_config()
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    assert builder.build_serialized_network(network, config) is not None
    listed = [text for _, text in logger.messages if text.lstrip().startswith("Layers:")][-1]
    return listed, [text for kind, text in logger.messages if kind == "WARNING"]


def convolution_reads(listed):
    (line,) = [line for line in listed.splitlines() if "LayerType: correlation" in line]
    return re.findall(r"Datatype: (\w+)", line.split("Outputs: ")[0])[0]


def kernels(listed):
    return re.findall(r"LayerType: (\w+)|TacticName: (\w+)", listed)


signed, _ = built(model(np.int8))
unsigned, warnings = built(model(np.uint8))
print("int8: the convolution reads", convolution_reads(signed))
print("uint8: the convolution reads", convolution_reads(unsigned))
print("the same kernels:", kernels(signed) == kernels(unsigned))
print("warnings of uint8:", sorted({text.split(": ", 1)[-1] for text in warnings}))
assert convolution_reads(signed) == convolution_reads(unsigned) == "Int8", "the behaviour changed"
assert kernels(signed) == kernels(unsigned), "the behaviour changed"
PYTHON
