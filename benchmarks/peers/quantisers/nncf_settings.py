"""NNCF on ONNX: argv are the setting, the float graph, the calibration array and the file to write."""

import sys

import nncf
import numpy as np
import onnx

setting, src, calibration, dst = sys.argv[1:5]
images = np.load(calibration)
batches = [images[index : index + 1] for index in range(len(images))]
dataset = nncf.Dataset(batches, lambda batch: {"images": batch})
preset = {"performance": nncf.QuantizationPreset.PERFORMANCE, "mixed": nncf.QuantizationPreset.MIXED}[setting]
onnx.save(nncf.quantize(onnx.load(src), dataset, preset=preset, subset_size=len(batches)), dst)
