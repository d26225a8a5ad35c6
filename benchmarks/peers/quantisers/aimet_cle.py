"""AIMET, tf-enhanced ranges after its cross-layer equalisation: argv are the method, the float graph, the calibration
array and the file to write. Asymmetric as it comes: made symmetric by its quantizers' switch it answers noise.
"""

import sys

import numpy as np
import onnx
from aimet_onnx.cross_layer_equalization import equalize_model
from aimet_onnx.quantsim import QuantizationSimModel
from measured import measured

_, src, calibration, dst = sys.argv[1:5]
images = np.load(calibration)


def work() -> None:
    model = onnx.load(src)
    equalize_model(model)
    sim = QuantizationSimModel(
        model, quant_scheme="tf_enhanced", dummy_input={"images": images[:1]}, providers=["CPUExecutionProvider"]
    )
    sim.compute_encodings([{"images": images[i : i + 8]} for i in range(0, len(images), 8)])
    onnx.save(sim.to_onnx_qdq(), dst)


measured(work)
