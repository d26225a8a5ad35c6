"""PyTorch's FakeQuantize modules, exported: argv are the setting, the weights, the calibration array and the file.

A setting is an exporter, ``dynamo`` or ``torchscript``, and what is exported: the ``modules`` as they are, or what they
compute with scales that are ``tensors``, as the modules hold them, or ``numbers``. Every convolution and the classifier
get one on their input and one on their weight.
"""

import sys

import numpy as np
import torch
from safetensors.torch import load_file
from torch import nn
from torch.ao.quantization import FakeQuantize, MinMaxObserver, PerChannelMinMaxObserver
from torch.nn.utils.fusion import fuse_conv_bn_eval

from pipeline.models.resnet import ResNet
from pipeline.models.specs import ARCHITECTURES

setting, weights, calibration, dst = sys.argv[1:5]
exporter, scales = setting.split()
images = torch.from_numpy(np.load(calibration))
LEVELS = {"quant_min": -128, "quant_max": 127, "dtype": torch.qint8}
# Each normalisation, by the layer that it belongs to.
NORMS = {"conv1": "bn1", "conv2": "bn2", "conv3": "bn3", "0": "1"}


class Frozen(nn.Module):
    """What a FakeQuantize computes, without its switches, which torch.export does not take.

    Its scale is a tensor of the shape [1], as the module holds it, or a number.
    """

    def __init__(self, fake: FakeQuantize, *, as_number: bool) -> None:
        super().__init__()
        self.by_channel = fake.ch_axis >= 0
        self.scale = float(fake.scale) if as_number and not self.by_channel else fake.scale.detach()
        self.zero = 0 if isinstance(self.scale, float) else fake.zero_point.detach().to(torch.int32)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.by_channel:
            return torch.fake_quantize_per_channel_affine(x, self.scale, self.zero, 0, -128, 127)
        return torch.fake_quantize_per_tensor_affine(x, self.scale, self.zero, -128, 127)


class Quantised(nn.Module):
    """A layer whose activation and weights are quantised before it."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer
        self.activation: nn.Module = FakeQuantize(MinMaxObserver, qscheme=torch.per_tensor_symmetric, **LEVELS)
        self.weights = FakeQuantize(PerChannelMinMaxObserver, qscheme=torch.per_channel_symmetric, ch_axis=0, **LEVELS)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x, weight, layer = self.activation(x), self.weights(self.layer.weight), self.layer
        if isinstance(layer, nn.Linear):
            return nn.functional.linear(x, weight, layer.bias)
        return nn.functional.conv2d(x, weight, layer.bias, layer.stride, layer.padding)


def quantised(network: nn.Module) -> None:
    """Fold every BatchNorm of ``network``, and quantise its layers."""
    for parent in list(network.modules()):
        if isinstance(parent, Quantised):
            continue
        children = dict(parent.named_children())
        for name, child in children.items():
            norm = children.get(NORMS.get(name, ""))
            if isinstance(child, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                setattr(parent, name, Quantised(fuse_conv_bn_eval(child, norm)))
                setattr(parent, NORMS[name], nn.Identity())
            elif isinstance(child, nn.Linear):
                setattr(parent, name, Quantised(child))


state = load_file(weights)
channels = state["conv1.weight"].shape[1]
network = ResNet(ARCHITECTURES["resnet_tiny"], len(state["fc.bias"]), channels, [0.5] * channels, [0.5] * channels)
# The mean and the deviation of the pixels are those given here.
network.load_state_dict(state, strict=False)
network.eval()
quantised(network)
with torch.no_grad():
    network(images)
for module in network.modules():
    if isinstance(module, FakeQuantize):
        module.disable_observer()
    if isinstance(module, Quantised) and scales != "modules":
        module.activation = Frozen(module.activation, as_number=scales == "numbers")
        module.weights = Frozen(module.weights, as_number=False)
# torch.export finds no way through fake_quantize with an open batch.
if exporter == "dynamo":
    how = {"dynamo": True, "external_data": False}
else:
    how = {"dynamo": False, "dynamic_axes": {"images": {0: "batch"}, "logits": {0: "batch"}}}
torch.onnx.export(
    network, (images[:2],), dst, input_names=["images"], output_names=["logits"], opset_version=19, **how
)  # fmt: skip
