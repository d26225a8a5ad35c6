"""Layers padded as Flax and TensorFlow do by ``SAME``: the output is the input over the stride, rounded up.

What is missing is padded half before and half after, and the odd pixel after: of 3x3 at stride 2 over an even size
(0, 1), of 7x7 (2, 3); over an odd size as in PyTorch (TensorFlow's documentation of tf.nn, "Notes on padding").
"""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional


def pads(x: Tensor, kernel: int, stride: int) -> list[tuple[int, int]]:
    """Pixels before and after, of the rows and of the columns of ``x (N, C, H, W)``."""
    pads_per_axis = []
    for size in _sizes(x):
        outputs = -(-size // stride)  # rounded up
        # From the first pixel of the first window to the last of the last one, less what is there.
        total = max((outputs - 1) * stride + kernel - size, 0)
        before = total // 2
        pads_per_axis.append((before, total - before))
    return pads_per_axis


def _sizes(x: Tensor) -> list[int]:
    if not torch.onnx.is_in_onnx_export():
        return list(x.shape[-2:])
    with warnings.catch_warnings():
        # The exported graph is for one size of image; only its batch is open.
        warnings.simplefilter("ignore", torch.jit.TracerWarning)  # type: ignore[attr-defined]
        return [int(size) for size in x.shape[-2:]]


class SameConv2d(nn.Conv2d):
    """A convolution with square kernel and stride, under ``SAME`` padding."""

    def forward(self, x: Tensor) -> Tensor:
        """(N, inputs, H, W) to (N, outputs, ceil(H / stride), ceil(W / stride))."""
        (top, bottom), (left, right) = pads(x, self.kernel_size[0], self.stride[0])
        # torch's own convolution takes one number an axis, for both of its sides.
        if (top, left) == (bottom, right):
            return functional.conv2d(x, self.weight, self.bias, self.stride, (top, left), groups=self.groups)
        if torch.onnx.is_in_onnx_export():
            sides = [top, left, bottom, right]
            return _Exported.apply(x, self.weight, self.bias, self.stride, sides, self.groups)  # type: ignore[no-any-return,no-untyped-call]
        padded = functional.pad(x, (left, right, top, bottom))
        return functional.conv2d(padded, self.weight, self.bias, self.stride, groups=self.groups)


class _Exported(torch.autograd.Function):
    """The same as one Conv node, whose pads may be uneven in ONNX.

    A Pad before it would stand between a quantised tensor and its convolution.
    """

    @staticmethod
    def forward(_: Any, x: Tensor, weight: Tensor, bias: Tensor | None, stride: Any, sides: Any, groups: int) -> Tensor:
        """As :meth:`SameConv2d.forward`; ``sides`` in the order of ONNX."""
        top, left, bottom, right = sides
        padded = functional.pad(x, (left, right, top, bottom))
        return functional.conv2d(padded, weight, bias, stride, groups=groups)

    @staticmethod
    def symbolic(g: Any, x: Any, weight: Any, bias: Any, stride: Any, sides: Any, groups: int) -> Any:
        """The node."""
        operands = [x, weight]
        # None arrives as a node that answers None.
        if bias is not None and not bias.node().mustBeNone():
            operands.append(bias)
        return g.op("Conv", *operands, strides_i=list(stride), pads_i=sides, group_i=groups)


class SameMaxPool2d(nn.Module):
    """The largest of 3x3 pixels at stride 2, under ``SAME`` padding."""

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to (N, C, ceil(H / 2), ceil(W / 2))."""
        # Of an even size the last window hangs over the end, which ceil_mode permits: nothing has to be padded.
        (top, _), (left, _) = pads(x, 3, 2)
        return functional.max_pool2d(x, 3, 2, (top, left), ceil_mode=True)
