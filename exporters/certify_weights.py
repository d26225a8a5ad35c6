"""Frozen weights and the graph exported from them: the same bits, each read by the module of its name."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np

from exporters import onnx_file
from exporters.certify import Certificate, Refutation
from exporters.constant import evaluate_constant

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator
    from pathlib import Path

    import onnx_ir as ir
    from numpy.typing import NDArray

    from exporters.constant import Constant

# What each operator reads behind its first input, in PyTorch's words.
READ = {
    "Conv": ("weight", "bias"),
    "Gemm": ("weight", "bias"),
    "BatchNormalization": ("weight", "bias", "running_mean", "running_var"),
}
# What normalises the pixels, in no module of its own.
PIXELS = {"Sub": ("pixel_mean",), "Div": ("pixel_std",)}


def certify_weights(before: Path, after: Path) -> Certificate:
    """Compare every tensor of ``before`` (.safetensors) bit by bit with what the node of its module reads in ``after``.

    What the graph does with them no weight can tell: that is judged by its answers. Raises ValueError where a file
    cannot be read.
    """
    weights = _read(before)
    graph = onnx_file.read(after).graph
    certificate = Certificate(constants=len(weights), nodes=len(graph))

    # Not by the names of initializers: the exporter writes tensors with the same values once.
    in_graph = _read_by_layers(graph)
    # What other operators read is known by its name alone.
    for name, constant in _named(graph, weights.keys() - in_graph.keys()):
        in_graph[name] = constant.array

    for name in sorted(weights.keys() | in_graph.keys()):
        if name not in in_graph:
            difference = f"no node reads {name}"
        elif name not in weights:
            difference = f"the graph holds {name}, which is not among the weights"
        else:
            difference = _difference(name, weights[name], in_graph[name])
        if difference:
            module = name.rpartition(".")[0]
            certificate.refuted.append(Refutation(module, difference))
    return certificate


def _read_by_layers(graph: ir.Graph) -> dict[str, NDArray[np.float32] | None]:
    """What each layer of ``graph`` reads, under the name that PyTorch gives it; None where it is computed."""
    arrays: dict[str, NDArray[np.float32] | None] = {}
    for node in graph:
        module = onnx_file.module_of(node)
        operators = READ if module else PIXELS
        names = operators.get(node.op_type, ())
        for name, value in zip(names, node.inputs[1:], strict=False):
            constant = evaluate_constant(value)
            full_name = f"{module}.{name}".lstrip(".")
            arrays[full_name] = None if constant is None else constant.array
    return arrays


def _named(graph: ir.Graph, names: Collection[str]) -> Iterator[tuple[str, Constant]]:
    """The constants of ``graph`` that have these names and are read."""
    # An Identity hands on a tensor that the exporter wrote once for several names.
    handed_on = [node.outputs[0] for node in graph if node.op_type == "Identity"]
    for value in (*graph.initializers.values(), *handed_on):
        if value.name not in names or not value.uses():
            continue
        constant = evaluate_constant(value)
        if constant is not None:
            yield str(value.name), constant


def _read(path: Path) -> dict[str, NDArray[np.float32]]:
    """All tensors, and the pixel statistics that the record beside them gives."""
    import safetensors
    import safetensors.numpy

    try:
        tensors: dict[str, NDArray[np.float32]] = safetensors.numpy.load_file(path)
        with safetensors.safe_open(path, "np") as file:
            network = (file.metadata() or {}).get("network")
        preprocessing = json.loads(network)["preprocessing"] if network else {}
    except (OSError, ValueError, KeyError, TypeError, safetensors.SafetensorError) as error:
        raise ValueError(f"{path.name} cannot be read as safetensors of this project ({error})") from error

    # A counter of training, which no exported graph holds.
    weights = {name: tensor for name, tensor in tensors.items() if not name.endswith("num_batches_tracked")}
    for name in ("mean", "std"):
        if name in preprocessing:
            # The record counts pixels from 0 to 1, the graph from 0 to 255. In float32, as the network computes it.
            statistic = np.float32(255) * np.array(preprocessing[name], np.float32)
            weights[f"pixel_{name}"] = statistic.reshape(1, -1, 1, 1)
    return weights


def _difference(name: str, expected: NDArray[np.float32], found: NDArray[np.float32] | None) -> str:
    """The first difference, in words; empty where every bit is the same."""
    if found is None:
        return f"{name} is computed, it was {expected.dtype} {expected.shape}"
    if found.dtype != expected.dtype or found.shape != expected.shape:
        return f"{name} is {found.dtype} {found.shape}, it was {expected.dtype} {expected.shape}"

    # Compared as bits, by which NaN is NaN and -0 is not 0.
    wrong = np.flatnonzero(found.ravel().view(np.uint32) != expected.ravel().view(np.uint32))
    if not wrong.size:
        return ""
    place = [int(index) for index in np.unravel_index(int(wrong[0]), expected.shape)]
    return f"{name}{place} is {found[tuple(place)]:.9g}, it was {expected[tuple(place)]:.9g}"
