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
# What TensorRT's parser takes: symmetric, bias left alone. The others it refuses.
LEGAL = {"ActivationSymmetric": True, "WeightSymmetric": True, "QuantizeBias": False, "AddQDQPairToWeight": True}
BY_CHANNEL = {"weight_type": QuantType.QInt8, "per_channel": True}
SIGNED = {**BY_CHANNEL, "activation_type": QuantType.QInt8, "extra_options": LEGAL}
METHODS = {
    "minmax": {**SIGNED, "calibrate_method": CalibrationMethod.MinMax},
    "entropy": {**SIGNED, "calibrate_method": CalibrationMethod.Entropy},
    "percentile": {**SIGNED, "calibrate_method": CalibrationMethod.Percentile},
    "uint8": {**BY_CHANNEL, "activation_type": QuantType.QUInt8},
    "defaults": {},
}


class Reader(CalibrationDataReader):
    def __init__(self) -> None:
        self.at = 0

    def get_next(self) -> dict[str, np.ndarray] | None:
        batch, self.at = images[self.at : self.at + 8], self.at + 8
        return {"images": np.ascontiguousarray(batch)} if len(batch) else None


measured(lambda: quantize_static(src, dst, Reader(), quant_format=QuantFormat.QDQ, **METHODS[method]))
