"""onnxruntime.quantization: argv are the method, the float graph, the calibration array and the file to write."""

import sys

import numpy as np
from measured import measured
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantFormat,
    QuantType,
    quantize_static,
)

method, src, calibration, dst = sys.argv[1:5]
images = np.load(calibration, mmap_mode="r")
# What TensorRT's parser takes: symmetric, bias left alone. `uint8` are the defaults, which it refuses.
LEGAL = {"ActivationSymmetric": True, "WeightSymmetric": True, "QuantizeBias": False, "AddQDQPairToWeight": True}
METHODS = {
    "minmax": (CalibrationMethod.MinMax, QuantType.QInt8, LEGAL),
    "entropy": (CalibrationMethod.Entropy, QuantType.QInt8, LEGAL),
    "percentile": (CalibrationMethod.Percentile, QuantType.QInt8, LEGAL),
    "uint8": (CalibrationMethod.MinMax, QuantType.QUInt8, {}),
}


class Reader(CalibrationDataReader):
    def __init__(self) -> None:
        self.at = 0

    def get_next(self) -> dict[str, np.ndarray] | None:
        batch, self.at = images[self.at : self.at + 8], self.at + 8
        return {"images": np.ascontiguousarray(batch)} if len(batch) else None


how, activations, options = METHODS[method]
measured(
    lambda: quantize_static(
        src,
        dst,
        Reader(),
        quant_format=QuantFormat.QDQ,
        activation_type=activations,
        weight_type=QuantType.QInt8,
        per_channel=True,
        calibrate_method=how,
        extra_options=options,
    )
)
