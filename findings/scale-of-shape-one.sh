#!/usr/bin/env bash
# A per-tensor activation scale of shape [1], not [], makes TensorRT-RTX compute an INT8 convolution in float.
#
# Versions:  tensorrt-rtx 1.7.1.116, onnx 1.23.2, onnxruntime 1.32.0, Python 3.11, Linux x86-64, no GPU.
# Behaviour: Two graphs differ in one thing: the scale and the zero point of the activation's QuantizeLinear and
#            DequantizeLinear have the shape [] or [1]. ONNX's checker takes both, ONNX Runtime answers both with the same
#            bits. TensorRT-RTX parses and builds both without a warning; in the first the convolution reads Int8, in the
#            second the levels are dequantised by a kernel of their own and the convolution reads Float.
# Expected:  The same engine, or at least a word.
# Hurt:      Whoever exports FakeQuantize from PyTorch, which writes scales of shape [1]: the build is green, the engine is
#            as slow as float and has the rounding of INT8 as well.
# Seen:      2026-11-30: "scale of shape []: the convolution reads Int8, Int8", "scale of shape [1]: … Float, Float".
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/python" -m pip install --quiet tensorrt-rtx==1.7.1.116 onnx==1.23.2 onnxruntime==1.32.0 numpy==2.4.6
"$folder/env/bin/python" - <<'PYTHON'
import re

import numpy as np
import onnx
import onnxruntime
import tensorrt_rtx as trt
from onnx import TensorProto, helper, numpy_helper


def model(scale_shape):
    """A quantised convolution; the activation's scale has this shape."""
    levels = np.random.default_rng(0).integers(-127, 128, (16, 16, 3, 3)).astype(np.int8)
    constants = {
        "scale": np.full(scale_shape, 0.05, np.float32),
        "zero": np.zeros(scale_shape, np.int8),
        "levels": levels,
        "weight_scale": np.full(16, 0.01, np.float32),
        "weight_zero": np.zeros(16, np.int8),
    }
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["stored"], "quantise"),
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
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
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


def convolution_reads(content):
    """The types that the convolution of the built engine reads, by the builder's own list of layers."""
    logger = Logger()
    builder = trt.Builder(logger)
    network = builder.create_network(0)
    assert trt.OnnxParser(network, logger).parse(content)
    config = builder.create_builder_config()
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    assert builder.build_serialized_network(network, config) is not None
    warnings = [text for kind, text in logger.messages if kind == "WARNING"]
    assert not warnings, warnings
    listed = [text for _, text in logger.messages if text.lstrip().startswith("Layers:")][-1]
    (line,) = [line for line in listed.splitlines() if "LayerType: correlation" in line]
    inputs = line.split("Outputs: ")[0]
    return re.findall(r"Datatype: (\w+)", inputs)[:2]


pixels = np.random.default_rng(1).normal(size=(1, 16, 32, 32)).astype(np.float32)
answers = [onnxruntime.InferenceSession(model(shape)).run(None, {"x": pixels})[0] for shape in ((), (1,))]
assert np.array_equal(*answers), "ONNX Runtime tells the two apart"
scalar, vector = convolution_reads(model(())), convolution_reads(model((1,)))
print("scale of shape []: the convolution reads", ", ".join(scalar))
print("scale of shape [1]: the convolution reads", ", ".join(vector))
assert scalar[0] == "Int8" and vector[0] == "Float", "the behaviour changed"
PYTHON
