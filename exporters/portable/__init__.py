"""What this machine and a device do alike, once: CUDA, child processes, runtimes of engines, rules about devices.

The device agent packs these files as they are (pipeline/ship/zipapp.py), so they run on Python 3.8 with numpy and the
standard library. They import each other and nothing else of this project; TensorRT and ONNX Runtime are imported in
the functions that need them.
"""
