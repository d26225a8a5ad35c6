"""PyTorch network to ONNX, exactly as it is: every BatchNormalization still there, names of the PyTorch modules."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import onnx_ir as ir

from exporters import certify_weights, onnx_file
from exporters.node_attributes import attributes

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from torch import Tensor, nn

# Read by TensorRT 8.5 to 11 and by TensorRT-RTX, so one file serves every device; Q/DQ with float32 scales needs 13.
OPSET = 17


def export(network: nn.Module, dst: Path, shape: tuple[int, int, int], metadata: Mapping[str, str]) -> str:
    """Write ``network`` to ``dst`` with inputs ``images (N, *shape) float32`` and output ``logits (N, classes)``.

    ``metadata`` goes into ``metadata_props``. The TorchScript exporter is used on purpose: torch.export's graph folds
    BatchNorm, or, unoptimised, carries shape arithmetic that TensorRT's parser refuses.
    """
    import torch

    network = network.cpu().eval()
    two_images = torch.zeros(2, *shape)
    with warnings.catch_warnings(), _nothing_printed():
        # torch announces that this exporter will be removed one day, and the newer one cannot leave BatchNorm in; and
        # it tells of every number that it keeps of a shape: whether the graph is the network, its answers show.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            network,
            (two_images,),
            dst,
            dynamo=False,
            opset_version=OPSET,
            do_constant_folding=False,
            input_names=["images"],
            output_names=["logits"],
            dynamic_axes={"images": {0: "batch"}, "logits": {0: "batch"}},
        )

    model = onnx_file.read(dst)
    model.metadata_props.update(metadata)
    never_read = _never_read(network, two_images, dst)
    if never_read:
        model.metadata_props[certify_weights.UNREAD] = json.dumps(never_read)
    _write_pads(model)
    onnx_file.write(model, dst)
    normalisations = onnx_file.count(model, "BatchNormalization")
    return f"{len(model.graph)} nodes, BatchNormalization {normalisations}"


@contextlib.contextmanager
def _nothing_printed() -> Iterator[None]:
    """Nothing on standard output meanwhile: there torch prints, out of C++, the whole graph that it cannot write."""
    sys.stdout.flush()
    standard_output = os.dup(1)
    with Path(os.devnull).open("w") as nowhere:
        os.dup2(nowhere.fileno(), 1)
    try:
        yield
    finally:
        os.dup2(standard_output, 1)
        os.close(standard_output)


def _write_pads(model: ir.Model) -> None:
    """Numbers in place of ``auto_pad`` of a convolution that keeps the size: few runtimes take that with dilations."""
    for node in onnx_file.convolutions(model):
        settings = attributes(node)
        if settings["auto_pad"] != "SAME_UPPER" or set(settings["strides"]) != {1}:
            continue
        before = []
        behind = []
        for size, dilation in zip(settings["kernel_shape"], settings["dilations"], strict=True):
            missing = dilation * (size - 1)
            before.append(missing // 2)
            behind.append(missing - missing // 2)
        del node.attributes["auto_pad"]
        node.attributes["pads"] = ir.AttrInt64s("pads", [*before, *behind])


def _never_read(network: nn.Module, images: Tensor, dst: Path) -> list[str]:
    """The tensors of ``network`` that neither a node of ``dst`` nor the network itself reads.

    Each that no node reads is set to NaN for once: what is read makes an answer NaN.
    """
    import torch

    state = {name: tensor for name, tensor in network.state_dict().items() if tensor.is_floating_point()}
    never_read = []
    for name in certify_weights.unread(dst, {name: tensor.numpy() for name, tensor in state.items()}):
        tensor = state[name]
        kept = tensor.clone()
        with torch.inference_mode():
            tensor.fill_(torch.nan)
            answers = network(images)
            tensor.copy_(kept)
        if torch.isfinite(answers).all():
            never_read.append(name)
    return never_read
