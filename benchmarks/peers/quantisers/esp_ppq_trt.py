"""esp-ppq for TensorRT with its equalisation: argv are the method, the float graph, the array and what to write."""

import sys

import numpy as np
import torch
from esp_ppq.api import export_ppq_graph, quantize_onnx_model
from esp_ppq.api.setting import QuantizationSettingFactory
from esp_ppq.core import TargetPlatform
from measured import measured

_, src, calibration, dst = sys.argv[1:5]
images = np.load(calibration)
batches = [torch.from_numpy(images[i : i + 8]) for i in range(0, len(images) - 7, 8)]
setting = QuantizationSettingFactory.default_setting()
setting.equalization = True


def work() -> None:
    graph = quantize_onnx_model(
        src,
        batches,
        calib_steps=len(batches),
        input_shape=list(batches[0].shape),
        platform=TargetPlatform.TRT_INT8,
        setting=setting,
        device="cpu",
    )
    export_ppq_graph(graph, TargetPlatform.ONNXRUNTIME, dst)


measured(work)
