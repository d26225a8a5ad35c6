"""Accuracy that INT8 costs, won back without training."""
