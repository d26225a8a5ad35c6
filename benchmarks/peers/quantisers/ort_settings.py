"""onnxruntime.quantization: argv are the setting, the float graph, the calibration array and the file to write."""

import sys

import numpy as np
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

setting, src, calibration, dst = sys.argv[1:5]
images = np.load(calibration)
SYMMETRIC = {"ActivationSymmetric": True, "WeightSymmetric": True}
SIGNED = {"activation_type": QuantType.QInt8, "weight_type": QuantType.QInt8, "per_channel": True}
SETTINGS = {
    "defaults": {},
    "signed": SIGNED,
    "signed, symmetric": {**SIGNED, "extra_options": SYMMETRIC},
    "for TensorRT": {**SIGNED, "extra_options": {**SYMMETRIC, "QuantizeBias": False, "AddQDQPairToWeight": True}},
    "stored weights": {**SIGNED, "extra_options": {**SYMMETRIC, "QuantizeBias": False}},
    "one weight scale": {
        **SIGNED, "per_channel": False, "extra_options": {**SYMMETRIC, "QuantizeBias": False},
    },
    "pairs of their own": {
        **SIGNED, "extra_options": {**SYMMETRIC, "QuantizeBias": False, "DedicatedQDQPair": True},
    },
    "convolutions only": {
        **SIGNED, "op_types_to_quantize": ["Conv"], "extra_options": {**SYMMETRIC, "QuantizeBias": False},
    },
    "without the first convolution": {
        **SIGNED, "nodes_to_exclude": ["/conv1/Conv"], "extra_options": {**SYMMETRIC, "QuantizeBias": False},
    },
    "unsigned, symmetric": {
        **SIGNED, "activation_type": QuantType.QUInt8, "extra_options": {**SYMMETRIC, "QuantizeBias": False},
    },
}  # fmt: skip


class Reader(CalibrationDataReader):
    """The images, in one batch."""

    def __init__(self) -> None:
        self.left = iter([{"images": images}])

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(self.left, None)


quantize_static(src, dst, Reader(), quant_format=QuantFormat.QDQ, **SETTINGS[setting])
