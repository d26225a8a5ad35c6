#!/usr/bin/env bash
# A pool with ceil_mode whose last window would start in the padding: the libraries disagree about the shape.
#
# Versions:  onnx 1.23.2, onnxruntime 1.32.0, tensorrt-rtx 1.7.1.116, Python 3.11, Linux x86-64, no GPU.
# Behaviour: MaxPool, kernel 2, stride 2, padding 1 on every side, ceil_mode 1, on 5 x 5 pixels. ONNX Runtime answers 3 x 3,
#            as PyTorch does, which leaves out a window that starts beyond the input and its left padding. TensorRT-RTX
#            says 4 x 4, without a word, and so does onnx's shape inference in opset 17. AveragePool of the same
#            attributes is refused by TensorRT-RTX ("padding size is larger than or equal to the filter size").
# Expected:  One shape; the operator's text has had the rule since opset 22, and TensorRT-RTX says 4 x 4 there too.
# Hurt:      ResNet-D and other networks that pool with ceil_mode: an engine that answers a map one row and one column
#            larger builds, and a mean behind it, or a Flatten and a Gemm, differ or fail on the device only.
# Seen:      2026-11-30: "MaxPool: onnxruntime 3x3, tensorrt-rtx 4x4, onnx 4x4"; "AveragePool: … tensorrt-rtx refused".
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/python" -m pip install --quiet tensorrt-rtx==1.7.1.116 onnx==1.23.2 onnxruntime==1.32.0 numpy==2.4.6
"$folder/env/bin/python" - <<'PYTHON'
import numpy as np
import onnx
import onnxruntime
import tensorrt_rtx as trt
from onnx import TensorProto, helper

SIDE = 5


def model(operator):
    node = helper.make_node(
        operator, ["x"], ["y"], "pool", kernel_shape=[2, 2], strides=[2, 2], pads=[1, 1, 1, 1], ceil_mode=1
    )
    images = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 1, SIDE, SIDE])
    maps = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 1, "height", "width"])
    graph = helper.make_graph([node], "graph", [images], [maps])
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(made)
    return made


class Silent(trt.ILogger):
    def __init__(self):
        trt.ILogger.__init__(self)

    def log(self, severity, text):
        pass


def of_onnxruntime(made):
    session = onnxruntime.InferenceSession(made.SerializeToString())
    return session.run(None, {"x": np.zeros((1, 1, SIDE, SIDE), np.float32)})[0].shape[2:]


def of_tensorrt_rtx(made):
    logger = Silent()
    builder = trt.Builder(logger)
    network = builder.create_network(0)
    parsed = trt.OnnxParser(network, logger).parse(made.SerializeToString())
    return tuple(network.get_output(0).shape)[2:] if parsed else "refused"


def of_onnx(made):
    inferred = onnx.shape_inference.infer_shapes(made).graph.output[0].type.tensor_type.shape.dim
    return tuple(size.dim_value for size in inferred)[2:]


seen = {}
for operator in ("MaxPool", "AveragePool"):
    made = model(operator)
    seen[operator] = of_onnxruntime(made), of_tensorrt_rtx(made), of_onnx(made)
    words = ["x".join(map(str, shape)) if shape != "refused" else shape for shape in seen[operator]]
    print(f"{operator}: onnxruntime {words[0]}, tensorrt-rtx {words[1]}, onnx {words[2]}")
assert seen["MaxPool"] == ((3, 3), (4, 4), (4, 4)), "the behaviour changed"
assert seen["AveragePool"] == ((3, 3), "refused", (4, 4)), "the behaviour changed"
PYTHON
