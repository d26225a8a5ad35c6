"""NVIDIA Model Optimizer for ONNX: argv are the setting, the float graph, the array and the file to write."""

import sys

import numpy as np

sys.path.remove(next(path for path in sys.path if path.endswith("quantisers")))  # modelopt.py is not the package
from modelopt.onnx.quantization import quantize

setting, src, calibration, dst = sys.argv[1:5]
method, around = setting.split(", ")
quantize(
    src,
    quantize_mode="int8",
    calibration_data={"images": np.load(calibration)},
    calibration_method=method,
    calibration_eps=["cpu"],
    high_precision_dtype=around,
    output_path=dst,
)
