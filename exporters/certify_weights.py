"""Frozen weights and the graph exported from them: the same bits, each read by the module of its name."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import numpy as np

from exporters import onnx_file, pairs
from exporters.certificate import Certificate, Refutation
from exporters.constant import evaluate_constant

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping
    from pathlib import Path

    import onnx_ir as ir
    from numpy.typing import NDArray

    from exporters.known_numbers import Constant

# What each operator reads behind its first input, in PyTorch's words.
READ = {
    "Conv": ("weight", "bias"),
    "Gemm": ("weight", "bias"),
    "BatchNormalization": ("weight", "bias", "running_mean", "running_var"),
}
# What the exporter writes for a BatchNorm that was made with affine=False.
WITHOUT_NUMBERS = {"weight": 1, "bias": 0}
# What normalises the pixels, in no module of its own, and the tensor that it reads.
PIXELS = {"Sub": "pixel_mean", "Div": "pixel_std"}
# How a stored tensor may be turned on its way to the layer that reads it.
MOVED = {"Identity", "Transpose", "Unsqueeze", "Squeeze", "Reshape", "Cast"}
# What the exporter puts behind the name of a module that is called again.
CALLED_AGAIN = re.compile(r"_[0-9]+$")
# The metadata of a graph that name the tensors of the network that PyTorch does not read either.
UNREAD = "unread"
# What the frozen network and the graph both say of the answers and the images.
SAID = ("classes", "preprocessing")


def certify_weights(before: Path, after: Path, *, must_say: bool = False) -> Certificate:
    """Compare every tensor of ``before`` (.safetensors) bit by bit with what the node of its module reads in ``after``.

    What the graph does with them no weight can tell: that is judged by its answers. ``must_say``: the graph has to say
    its classes and preprocessing, as one does that a build made; what it says has to be right in any case. Raises
    ValueError where a file cannot be read.
    """
    weights, record = _read(before)
    model = onnx_file.read(after)
    graph = model.graph
    certificate = Certificate(stage="export", constants=len(weights), nodes=len(graph))

    in_graph = _in_graph(graph, weights)
    never_read = _told(model, UNREAD) or []
    for name in sorted(weights.keys() | in_graph.keys()):
        if name not in in_graph and name in never_read:
            certificate.noted.append(f"no node reads {name}, nor does the network in PyTorch")
            continue
        expected = weights.get(name, _implied(name, weights))
        if expected is None:
            certificate.noted.append(f"{name} is not among the weights: only its answers are judged")
            continue
        stored = in_graph.get(name)
        difference = f"no node reads {name}" if stored is None else _difference(name, expected, stored)
        if difference:
            module = name.rpartition(".")[0]
            certificate.refuted.append(Refutation(module, difference))
    for key in SAID:
        told = _told(model, key)
        if key not in record or record[key] == told:
            continue
        if told is None and not must_say:
            certificate.noted.append(f"the graph does not say its {key}")
        else:
            found = f"the graph says other {key} than the frozen network: {told}, not {record[key]}"
            certificate.refuted.append(Refutation("", found))
    return certificate


def _implied(name: str, weights: Mapping[str, NDArray[np.float32]]) -> NDArray[np.float32] | None:
    """What a BatchNorm without numbers of its own reads under ``name``; None of any other tensor."""
    module, _, tensor = name.rpartition(".")
    mean = weights.get(f"{module}.running_mean")
    if mean is None or tensor not in WITHOUT_NUMBERS:
        return None
    return np.full_like(mean, WITHOUT_NUMBERS[tensor])


def _told(model: ir.Model, key: str) -> Any:
    """What the metadata of ``model`` say under ``key``, which is JSON; None where that is missing or broken."""
    try:
        return json.loads(model.metadata_props.get(key, "null"))
    except ValueError:
        return None


def unread(path: Path, weights: Mapping[str, NDArray[np.float32]]) -> list[str]:
    """The names of ``weights`` that no node of the graph in ``path`` reads."""
    return sorted(weights.keys() - _in_graph(onnx_file.read(path).graph, weights).keys())


def _in_graph(graph: ir.Graph, weights: Mapping[str, NDArray[np.float32]]) -> dict[str, NDArray[np.float32]]:
    """What the nodes of ``graph`` read, under the names of ``weights``."""
    # Not by the names of initializers: the exporter writes tensors with the same values once.
    in_graph = _read_by_layers(graph)
    # What other operators read is known by its name alone.
    for name, constant in _named(graph, weights.keys() - in_graph.keys()):
        in_graph[name] = constant.array

    # A module that is called again has a number behind its name, and the same weights.
    for name in sorted(in_graph.keys() - weights.keys()):
        module, _, tensor = name.rpartition(".")
        first = f"{CALLED_AGAIN.sub('', module)}.{tensor}"
        array = in_graph[name]
        if first in weights and not _difference(first, weights[first], array):
            del in_graph[name]
            in_graph.setdefault(first, array)
    return in_graph


def _read_by_layers(graph: ir.Graph) -> dict[str, NDArray[np.float32]]:
    """What each layer of ``graph`` reads as it is stored, under the name that PyTorch gives it."""
    arrays: dict[str, NDArray[np.float32]] = {}
    for node in graph:
        module = onnx_file.module_of(node)
        names = READ.get(node.op_type, ()) if module else ()
        for name, value in zip(names, node.inputs[1:], strict=False):
            array = _stored(value)
            if array is not None:
                arrays[f"{module}.{name}"] = array

    for node in _normalisation(graph):
        array = _stored(node.inputs[1])
        if array is not None:
            arrays[PIXELS[node.op_type]] = array
    return arrays


def _stored(value: ir.Value | None) -> NDArray[np.float32] | None:
    """The constant ``value``, where it is stored and at most moved; None where it is computed, as of weight_norm."""
    for node in pairs.makers(value):
        if node.op_type not in MOVED and node.op_type != "Constant":
            return None
    constant = evaluate_constant(value)
    return None if constant is None else constant.array


def _normalisation(graph: ir.Graph) -> Iterator[ir.Node]:
    """The Sub and the Div that the images pass first; what a network subtracts by itself comes behind them."""
    value = graph.inputs[0]
    wanted = dict(PIXELS)
    while True:
        readers = list(value.consumers())
        node = readers[0] if len(readers) == 1 else None
        if node is None or node.inputs[0] is not value or onnx_file.module_of(node):
            return
        if node.op_type in wanted:
            del wanted[node.op_type]
            yield node
        elif node.op_type not in {"Cast", "Identity"}:
            return
        value = node.outputs[0]


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


def _read(path: Path) -> tuple[dict[str, NDArray[np.float32]], dict[str, Any]]:
    """All tensors with the pixel statistics that the record beside them gives, and that record."""
    import safetensors
    import safetensors.numpy

    try:
        tensors: dict[str, NDArray[np.float32]] = safetensors.numpy.load_file(path)
        with safetensors.safe_open(path, "np") as file:
            network = (file.metadata() or {}).get("network")
        record: dict[str, Any] = json.loads(network) if network else {}
        preprocessing = record["preprocessing"] if network else {}
    except (OSError, ValueError, KeyError, TypeError, safetensors.SafetensorError) as error:
        raise ValueError(f"{path.name} cannot be read as safetensors of this project ({error})") from error

    # A counter of training, which no exported graph holds.
    weights = {name: tensor for name, tensor in tensors.items() if not name.endswith("num_batches_tracked")}
    for name in ("mean", "std"):
        if name in preprocessing:
            # The record counts pixels from 0 to 1, the graph from 0 to 255. In float32, as the network computes it.
            statistic = np.float32(255) * np.array(preprocessing[name], np.float32)
            weights[f"pixel_{name}"] = statistic.reshape(1, -1, 1, 1)
    return weights, record


def _difference(name: str, expected: NDArray[np.float32], found: NDArray[np.float32]) -> str:
    """The first difference, in words; empty where every bit is the same."""
    if found.dtype != expected.dtype or found.shape != expected.shape:
        return f"{name} is {found.dtype} {found.shape}, it was {expected.dtype} {expected.shape}"

    # Compared as bits, by which NaN is NaN and -0 is not 0.
    wrong = np.flatnonzero(found.ravel().view(np.uint32) != expected.ravel().view(np.uint32))
    if not wrong.size:
        return ""
    place = [int(index) for index in np.unravel_index(int(wrong[0]), expected.shape)]
    return f"{name}{place} is {found[tuple(place)]:.9g}, it was {expected[tuple(place)]:.9g}"
