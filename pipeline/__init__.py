"""A ResNet or ResNeXt from PyTorch to a verified engine: train or load, export, fold, quantise, build, judge."""

__version__ = "0.1.0"
