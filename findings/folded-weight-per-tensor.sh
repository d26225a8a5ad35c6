#!/usr/bin/env bash
# A weight that onnxsim computed is quantised by onnxruntime under one scale, whatever per_channel says.
#
# Versions:  onnxsim 0.8.1, onnx 1.23.2, onnxruntime 1.32.0, Python 3.11, Linux x86-64.
# Behaviour: A network writes the weight of a convolution by arithmetic with a Constant node, as weight standardisation
#            does. onnxsim computes it, and leaves it in a Constant node. onnxruntime's quantize_static (per_channel=True)
#            takes what is no initializer for an activation: it calibrates the weight as one, gives it a single scale, and
#            leaves Constant, QuantizeLinear and DequantizeLinear in the file. With the very same numbers in an
#            initializer it gives one scale an output channel, and stores the levels.
# Expected:  The same file for the same numbers.
# Hurt:      Whoever simplifies before quantising, which both projects advise: channels much smaller than the largest are
#            rounded away (here one channel in sixteen is a thousandth as large, and all of its weights become 0).
# Seen:      2026-11-30: "initializer: 16 scale(s), 0 channel(s) lost", "constant: 1 scale(s), 1 channel(s) lost".
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/python" -m pip install --quiet onnxsim==0.8.1 onnx==1.23.2 onnxruntime==1.32.0 numpy==2.4.6
cd "$folder"
"$folder/env/bin/python" - <<'PYTHON'
import logging

import numpy as np
import onnx
import onnxsim
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

logging.disable(logging.WARNING)
CHANNELS = 16
random = np.random.default_rng(0)
weight = random.normal(size=(CHANNELS, CHANNELS, 3, 3)).astype(np.float32)
gain = np.ones((CHANNELS, 1, 1, 1), np.float32)
gain[5] = 0.001


def written(path):
    """A convolution whose weight is an initializer times a Constant, as PyTorch's exporter writes numbers of the code."""
    nodes = [
        helper.make_node("Constant", [], ["gain"], value=numpy_helper.from_array(gain)),
        helper.make_node("Mul", ["raw", "gain"], ["weight"]),
        helper.make_node("Conv", ["x", "weight"], ["y"], pads=[1, 1, 1, 1]),
    ]
    shape = [1, CHANNELS, 8, 8]
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)],
        [numpy_helper.from_array(weight, "raw")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    simplified, _ = onnxsim.simplify(model)
    onnx.save(simplified, path)
    return simplified


class Images(CalibrationDataReader):
    def __init__(self):
        self.batches = iter([{"x": random.normal(size=(1, CHANNELS, 8, 8)).astype(np.float32)}])

    def get_next(self):
        return next(self.batches, None)


def quantised(path):
    """How many scales the weight gets, and how many of its channels become 0."""
    quantize_static(
        path, "quantised.onnx", Images(), quant_format=QuantFormat.QDQ, per_channel=True,
        activation_type=QuantType.QInt8, weight_type=QuantType.QInt8,
    )
    graph = onnx.load("quantised.onnx").graph
    stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    makers = {name: node for node in graph.node for name in node.output}
    [conv] = [node for node in graph.node if node.op_type == "Conv"]
    scale = stored[makers[conv.input[1]].input[1]]
    by_channel = np.broadcast_to(scale.reshape(-1, 1, 1, 1), (CHANNELS, 1, 1, 1))
    levels = np.rint(weight * gain / by_channel)
    return scale.size, int((np.abs(levels).max(axis=(1, 2, 3)) == 0).sum())


simplified = written("constant.onnx")
[held] = [node for node in simplified.graph.node if node.op_type == "Constant"]
tensor = held.attribute[0].t
stored = onnx.ModelProto()
stored.CopyFrom(simplified)
stored.graph.node.remove(held)
stored.graph.initializer.add().CopyFrom(tensor)
stored.graph.initializer[-1].name = held.output[0]
onnx.save(stored, "initializer.onnx")

results = {}
for name in ("initializer", "constant"):
    results[name] = quantised(f"{name}.onnx")
    print(f"{name}: {results[name][0]} scale(s), {results[name][1]} channel(s) lost")
assert results == {"initializer": (CHANNELS, 0), "constant": (1, 1)}, "the behaviour changed"
PYTHON
