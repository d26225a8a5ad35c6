"""NNCF on ONNX, its defaults: argv are the method, the float graph, the calibration array and the file to write."""

import sys

import nncf
import numpy as np
import onnx
from measured import measured

_, src, calibration, dst = sys.argv[1:5]
images = np.load(calibration, mmap_mode="r")
batches = [np.ascontiguousarray(images[i : i + 1]) for i in range(len(images))]
dataset = nncf.Dataset(batches, lambda batch: {"images": batch})
measured(lambda: onnx.save(nncf.quantize(onnx.load(src), dataset, subset_size=len(batches)), dst))
