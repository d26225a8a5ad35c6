"""dlib's own answers: argv are its file, images (N, 150, 150, 3) uint8 RGB, and the descriptors (N, 128) to write."""

import sys

import dlib
import numpy as np

_, file, images, dst = sys.argv
network = dlib.face_recognition_model_v1(file)
np.save(dst, [np.asarray(network.compute_face_descriptor(np.ascontiguousarray(image))) for image in np.load(images)])
