"""NVIDIA Model Optimizer for ONNX: argv are the method, the float graph, the array and the file to write."""

import sys

import numpy as np
from measured import measured

sys.path.remove(next(path for path in sys.path if path.endswith("quantisers")))  # this file is not the package
from modelopt.onnx.quantization import quantize

method, src, calibration, dst = sys.argv[1:5]
images = np.load(calibration)
measured(
    lambda: quantize(
        src,
        quantize_mode="int8",
        calibration_data={"images": images},
        calibration_method=method,
        calibration_eps=["cpu"],
        high_precision_dtype="fp32",
        output_path=dst,
    )
)
